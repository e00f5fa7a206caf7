//! What people ask of kubectl beside the README's sessions, on a real API server: `explain`, as the embedded API answers it,
//! and `get --watch`.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};
use virtnet_agent::{Clock, Metrics, Parts};
use virtnet_embedded_api::{self as embedded, Listen, MemoryDisk, Server};
use virtnet_sim::{Sim, SimConfig};
use virtnet_tests::control_plane::ControlPlane;
use virtnet_tests::kubectl::Kubectl;
use virtnet_tests::manifests;

/// Far longer than any of it takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn the_kinds_are_explained_as_by_a_real_server() {
    let plane = ControlPlane::shared().await.unwrap();
    let real = manifests::install(&plane).await.unwrap();
    let folder = TempDir::new().unwrap();
    let config = embedded::Config::new(virtnet_crds::crd::all(), Arc::new(MemoryDisk::default()));
    let api = embedded::Api::open(config).await.unwrap();
    let listen = Listen::Tcp(([127, 0, 0, 1], 0).into());
    let server = Server::start(&api, listen, folder.path()).await.unwrap();
    let embedded = Kubectl::new(server.kubeconfig_path().unwrap().to_owned());
    // A server explains a kind some time after it serves it.
    for kind in ["vnd", "vnds", "dpu"] {
        let begun = Instant::now();
        while real.run(&["explain", kind]).unwrap().ok().is_err() {
            assert!(begun.elapsed() < LIMIT, "{kind} is not explained after {} s", LIMIT.as_secs());
            sleep(Duration::from_millis(100)).await;
        }
    }
    for what in [
        "virtnetdevice.spec --recursive",
        "vnd.status --recursive",
        "vnds.spec --recursive",
        "vnds.status --recursive",
        "dpu.spec --recursive",
        "dpu.status --recursive",
        "virtnetdevice.spec.function.hotplug",
        "virtnetdevice.spec.port.tag",
        "vnd.status.conditions",
        "dpu.spec.firmware.ports",
        "vnds.spec.template.spec",
    ] {
        let words: Vec<_> = ["explain"].into_iter().chain(what.split(' ')).collect();
        let [real, embedded] = [&real, &embedded].map(|kubectl| kubectl.run(&words).unwrap().ok().unwrap());
        assert_eq!(embedded, real, "explain {what}");
        assert!(real.contains("GROUP:      virtnet.dev"), "{real}");
    }
    server.shutdown().await;
    api.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_a_device_becoming_ready_and_going() {
    const DPU: &str = "bf3-watched";
    let plane = ControlPlane::shared().await.unwrap();
    let kubectl = manifests::install(&plane).await.unwrap();
    let sim = Sim::new(SimConfig::default());
    let config = virtnet_agent::Config { dpu: DPU.into(), lease_namespace: "virtnet-system".into() };
    let client = plane.client().await.unwrap();
    let agent = virtnet_agent::run(config, client, Parts::from(&sim), Clock::system(), Metrics::default());
    let agent = tokio::spawn(agent);

    let selector = format!("--field-selector=spec.dpu={DPU}");
    let mut watch = Command::new("kubectl")
        .args(["get", "virtnetdevices", "--watch", "--output-watch-events", &selector])
        .env("KUBECONFIG", plane.kubeconfig())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let device = |name: &str, dpu: &str| {
        let spec = json!({"dpu": dpu, "function": {"hotplug": {}}, "port": {"bridge": "ovsbr1"}});
        let text = json!({
            "apiVersion": virtnet_crds::API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": name},
            "spec": spec,
        });
        kubectl.run_with(&["apply", "-f", "-"], &text.to_string()).unwrap().ok().unwrap()
    };
    device("of-another", "bf3-unwatched");
    device("watched", DPU);
    let mut seen = Vec::new();
    let mut deleted = false;
    loop {
        let line = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
        let words = line.split_whitespace().collect::<Vec<_>>();
        seen.push(line.clone());
        if words.contains(&"Ready") && words.contains(&"True") && !deleted {
            deleted = true;
            kubectl.run(&["delete", "virtnetdevice", "watched", "--wait=false"]).unwrap().ok().unwrap();
        }
        if words.first() == Some(&"DELETED") {
            break;
        }
    }
    assert!(seen[0].contains("BRIDGE") && seen[1].starts_with("ADDED"), "{seen:#?}");
    assert!(deleted && !seen.iter().any(|line| line.contains("of-another")), "{seen:#?}");
    kubectl.run(&["delete", "virtnetdevice", "of-another"]).unwrap().ok().unwrap();
    agent.abort();
}
