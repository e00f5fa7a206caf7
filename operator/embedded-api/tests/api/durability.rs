//! What was acknowledged survives: a kill, a restart, a failing disk.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{DEVICES, JSON, config, create, device, get, open, send};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::json;
use virtnet_embedded_api::{Api, Batch, Config, Disk, DiskError, FileDisk, Loaded, MemoryDisk};

const STATE: &str = "VIRTNET_TEST_STATE";
const ENOUGH: usize = 60;

async fn reopen(path: &Path) -> Api {
    Api::open(config(Arc::new(FileDisk::open(path).unwrap()))).await.unwrap()
}

/// What the process that is killed does: makes devices without end, eight at a time, and prints the name of each
/// acknowledged one.
async fn write_until_killed(path: &Path) {
    let config = Config::new(virtnet_crds::crd::all(), Arc::new(FileDisk::open(path).unwrap()));
    let api = Api::open(config).await.unwrap();
    let api = &api;
    let one = |index: usize| async move {
        let name = format!("d-{index}");
        create(api, &name).await;
        let mut out = std::io::stdout();
        writeln!(out, "acknowledged {name}").unwrap();
        out.flush().unwrap();
    };
    let mut running: FuturesUnordered<_> = (0..8).map(one).collect();
    let mut next = 8;
    while running.next().await.is_some() {
        running.push(one(next));
        next += 1;
    }
}

#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    // The process that is killed is this test again, with the path of the state in its environment.
    if let Some(path) = std::env::var_os(STATE) {
        return write_until_killed(Path::new(&path)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let mut acknowledged = Vec::new();
    // Twice over the same file: what the first process left must not hinder the second.
    for _ in 0..2 {
        if !acknowledged.is_empty() {
            let api = reopen(&path).await;
            let (code, deleted) = send(&api, "DELETE", DEVICES, JSON, &json!(null)).await;
            assert_eq!(code, 200, "{deleted}");
            acknowledged.clear();
            api.close().await;
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "durability::acknowledged_writes_survive_a_kill", "--nocapture"])
            .env(STATE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut killed = false;
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            acknowledged.extend(line.split_once("acknowledged ").map(|(_, name)| name.to_owned()));
            if acknowledged.len() >= ENOUGH && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= ENOUGH, "the child ended by itself");
    }
    let api = reopen(&path).await;
    let (_, list) = get(&api, DEVICES).await;
    let held: Vec<&str> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["metadata"]["name"].as_str().unwrap())
        .collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|name| !held.contains(&name.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    // At most the eight that were under way may be there without an acknowledgement.
    assert!(held.len() <= acknowledged.len() + 8, "{} held, {} acknowledged", held.len(), acknowledged.len());
}

#[tokio::test]
async fn a_restart_continues_where_it_was_and_ends_old_watches() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let api = reopen(&path).await;
    let first = create(&api, "a").await;
    let second = create(&api, "b").await;
    let (_, definitions) = get(&api, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions").await;
    api.close().await;
    let (code, refused) = send(&api, "POST", DEVICES, JSON, &device("late")).await;
    assert_eq!((code, &refused["reason"]), (503, &json!("ServiceUnavailable")));

    let api = reopen(&path).await;
    assert_eq!(get(&api, &format!("{DEVICES}/a")).await.1, first);
    let (_, again) = get(&api, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions").await;
    assert_eq!(again["items"], definitions["items"], "an unchanged definition was written again");
    let version =
        |object: &serde_json::Value| object["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let old = get(&api, &format!("{DEVICES}?watch=1&resourceVersion={}", version(&first))).await.1;
    assert_eq!((&old["type"], &old["object"]["code"]), (&json!("ERROR"), &json!(410)));
    let third = create(&api, "c").await;
    assert!(version(&third).parse::<u64>().unwrap() > version(&second).parse::<u64>().unwrap());
    let (_, list) = get(&api, DEVICES).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
}

/// A disk that refuses while it is told to.
#[derive(Debug, Default)]
struct Failing {
    disk: MemoryDisk,
    fails: AtomicBool,
}

#[async_trait]
impl Disk for Failing {
    async fn load(&self) -> Result<Loaded, DiskError> {
        self.disk.load().await
    }

    async fn commit(&self, batch: Batch) -> Result<(), DiskError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(DiskError::Failed {
                operation: "writing",
                place: "/state".to_owned(),
                source: "no space left on device".into(),
            });
        }
        self.disk.commit(batch).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_refuses_never_happened() {
    let disk = Arc::new(Failing::default());
    let api = Api::open(config(Arc::<Failing>::clone(&disk))).await.unwrap();
    create(&api, "a").await;
    disk.fails.store(true, Ordering::SeqCst);
    let (code, refused) = send(&api, "POST", DEVICES, JSON, &device("b")).await;
    assert_eq!(code, 500);
    assert!(refused["message"].as_str().unwrap().contains("no space left on device"), "{refused}");
    assert_eq!(get(&api, &format!("{DEVICES}/b")).await.0, 404);
    disk.fails.store(false, Ordering::SeqCst);
    create(&api, "b").await;
}

#[tokio::test]
async fn the_state_file_is_private_and_damage_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    drop(FileDisk::open(&path).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let held = FileDisk::open(&path).unwrap();
    let twice = FileDisk::open(&path).unwrap_err();
    assert!(twice.to_string().contains("state.redb"), "{twice}");
    drop(held);
    std::fs::write(&path, b"no database").unwrap();
    assert!(FileDisk::open(&path).unwrap_err().to_string().starts_with("opening "));

    let disk = MemoryDisk::default();
    let row = virtnet_embedded_api::Row { key: "virtnet.dev/dpus//a".to_owned(), value: Some(b"{".to_vec()) };
    disk.commit(Batch { revision: 1, rows: vec![row] }).await.unwrap();
    let error = Api::open(config(Arc::new(disk))).await.unwrap_err();
    assert!(error.to_string().contains("virtnet.dev/dpus//a"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_objects() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let api = open().await;
        create(&api, "a").await;
        let mut generated = device("");
        generated["metadata"] = json!({ "generateName": "web-" });
        let (code, made) = send(&api, "POST", DEVICES, JSON, &generated).await;
        assert_eq!(code, 201, "{made}");
        runs.push(get(&api, DEVICES).await.1);
    }
    assert_eq!(runs[0], runs[1]);
    let name = runs[0]["items"][1]["metadata"]["name"].as_str().unwrap();
    assert!(name.len() == 9 && name.starts_with("web-"), "{name}");
}
