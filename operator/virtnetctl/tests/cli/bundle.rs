//! `virtnetctl bundle`: the file is opened, and what must be in it is, and what must not be is not.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::support::world::World;
use crate::support::{self, device, sample};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use virtnet_agent::Metrics;

/// The files of a bundle by their paths in its folder.
fn open(path: &Path, folder: &str) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(std::fs::File::open(path).unwrap()));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().strip_prefix(folder).unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(path, text);
    }
    files
}

/// Two DPUs with a device each, one of them in a namespace of its own.
fn two_dpus() -> World {
    let world = World::start(&["dpu-0", "dpu-1"]);
    let place = &world.place;
    place.kubectl_ok(&["create", "namespace", "tenant-a"]);
    place.kubectl_ok(&["apply", "-f", &sample("hotplug.yaml"), "-f", &sample("set.yaml")]);
    let other = device("other", "").replace("dpu-0", "dpu-1");
    place.kubectl_with(&["apply", "-n", "tenant-a", "-f", "-"], &other).ok();
    place.wait_ready(&["web-0"]);
    let wait = ["wait", "-n", "tenant-a", "--for=condition=Ready", "vnd/other", "--timeout=60s"];
    place.kubectl_ok(&wait);
    for (namespace, told) in [("default", "Plugged"), ("tenant-a", "Plugged")] {
        let events = ["get", "events", "-n", namespace];
        support::eventually(told, || place.kubectl_ok(&events).contains(told));
    }
    world
}

#[test]
fn it_holds_what_helps_and_nothing_that_lets_in() {
    let world = two_dpus();
    let printed = world.virtnetctl(&["bundle", "-f", "b.tar.gz"]).ok();
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines[0].starts_with("versions.yaml: virtnetctl and the API ("), "{}", lines[0]);
    assert_eq!(
        lines[1..4],
        ["dpus.yaml: 2 objects", "virtnetdevices.yaml: 2 objects", "virtnetdevicesets.yaml: 2 objects"]
    );
    let events = lines[4].strip_prefix("events.yaml: ").and_then(|holds| holds.strip_suffix(" objects"));
    assert!(events.unwrap().parse::<u32>().unwrap() >= 2, "{}: each device was plugged", lines[4]);
    assert_eq!((lines[5], lines[6..].to_vec()), ("leases.yaml: 2 objects", vec!["b.tar.gz"]));
    let path = world.place.path("b.tar.gz");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let files = open(&path, "b");
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "README",
            "dpus.yaml",
            "events.yaml",
            "leases.yaml",
            "versions.yaml",
            "virtnetdevices.yaml",
            "virtnetdevicesets.yaml",
        ]
    );
    // kubectl noted what it applied, and who applied it.
    let there = world.place.kubectl_ok(&["get", "vnd", "web-0", "-o", "yaml", "--show-managed-fields"]);
    let token = std::fs::read_to_string(world.place.state().join("token")).unwrap();
    for never in ["last-applied-configuration", "managedFields", "kind: Config", token.trim()] {
        assert!(files.values().all(|text| !text.contains(never)), "{never}");
    }
    assert!(there.contains("last-applied-configuration") && there.contains("managedFields"), "{there}");
    let devices = &files["virtnetdevices.yaml"];
    assert!(devices.contains("kind: VirtnetDevice\n") && devices.contains("  name: other\n"), "{devices}");
    assert!(files["events.yaml"].contains("reason: Plugged\n"), "{}", files["events.yaml"]);
    assert!(files["leases.yaml"].contains("renewTime: "), "{}", files["leases.yaml"]);
    let readme = &files["README"];
    for part in
        ["About: all DPUs, all namespaces.", "  agent/: the agent's metrics", "virtnet-agent plan prints it"]
    {
        assert!(readme.contains(part), "{part}: {readme}");
    }
    assert!(!readme.contains("Could not be had"), "{readme}");
}

#[test]
fn of_one_dpu_it_holds_what_is_about_that() {
    let world = two_dpus();
    world.virtnetctl(&["bundle", "--dpu", "dpu-1", "-f", "b.tar.gz"]).ok();
    let files = open(&world.place.path("b.tar.gz"), "b");
    for file in ["dpus.yaml", "virtnetdevices.yaml", "events.yaml", "leases.yaml"] {
        let text = &files[file];
        assert!(text.contains("dpu-1") && !text.contains("dpu-0"), "{file}: {text}");
    }
    world.virtnetctl(&["bundle", "-n", "tenant-a", "-f", "b.tar.gz"]).ok();
    let files = open(&world.place.path("b.tar.gz"), "b");
    assert!(!files["virtnetdevices.yaml"].contains("web-0"), "{}", files["virtnetdevices.yaml"]);
    assert_eq!(files["virtnetdevicesets.yaml"], "");
}

#[test]
fn an_agent_that_is_named_is_asked() {
    let world = World::start(&["dpu-0"]);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let metrics = Metrics::default();
    metrics.observations.inc();
    world.spawn(async move { virtnet_telemetry::serve(address, metrics.probes()).await.unwrap() });
    support::eventually("the agent serves", || std::net::TcpStream::connect(address).is_ok());
    world.virtnetctl(&["bundle", "-f", "b.tar.gz", "--agent", &format!("http://{address}")]).ok();
    let files = open(&world.place.path("b.tar.gz"), "b");
    assert!(files["agent/metrics.txt"].contains("virtnet_agent_observations_total 1\n"), "{files:?}");
    assert_eq!((files["agent/healthz.txt"].as_str(), files["agent/readyz.txt"].as_str()), ("ok", "ok"));
}

/// A database of Open vSwitch as far as its monitor goes: it has a port of ours and one of somebody else's.
fn database(path: &Path) {
    let id = |number: u8| format!("00000000-0000-4000-8000-0000000000{number:02}");
    let row = |row: Value| json!({"initial": row});
    let ours = json!([
        "map",
        [
            ["virtnet-dpu", "dpu-0"],
            ["virtnet-device", "default/web-0"],
            ["virtnet-uid", "u"],
            ["iface-id", "private"],
        ]
    ]);
    let of_port = |port: u8| json!(["set", [["uuid", id(port)]]]);
    let ports = json!(["set", [["uuid", id(2)], ["uuid", id(3)]]]);
    let tables = json!({
        "Open_vSwitch": {id(1): row(json!({"next_cfg": 1, "cur_cfg": 1}))},
        "Bridge": {id(6): row(json!({"name": "ovsbr1", "ports": ports}))},
        "Port": {
            id(2): row(json!({"name": "en3f0pf0sf2000", "interfaces": of_port(4), "tag": 7})),
            id(3): row(json!({"name": "theirs", "interfaces": of_port(5)})),
        },
        "Interface": {
            id(4): row(json!({"name": "en3f0pf0sf2000", "ofport": 1, "external_ids": ours})),
            id(5): row(json!({"name": "theirs", "ofport": 2, "external_ids": ["map", [["iface-id", "private"]]]})),
        },
    });
    let listener = UnixListener::bind(path).unwrap();
    // The thread ends with its only client.
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let requests = serde_json::Deserializer::from_reader(&stream).into_iter::<Value>();
        for request in requests.map_while(Result::ok) {
            let answer = json!({"id": request["id"], "result": [false, id(9), tables], "error": null});
            (&stream).write_all(answer.to_string().as_bytes()).unwrap();
        }
    });
}

#[test]
fn of_open_vswitch_it_holds_our_ports_and_no_others() {
    let world = World::start(&["dpu-0"]);
    let socket = world.place.path("db.sock");
    database(&socket);
    let address = format!("unix:{}", socket.display());
    let printed = world.virtnetctl(&["bundle", "-f", "b.tar.gz", "--ovsdb", &address]).ok();
    assert!(printed.contains("ports.yaml: 1 port\n"), "{printed}");
    let ports = &open(&world.place.path("b.tar.gz"), "b")["ports.yaml"];
    for part in ["name: en3f0pf0sf2000\n", "bridge: ovsbr1\n", "tag: 7\n", "virtnet-device: default/web-0\n"]
    {
        assert!(ports.contains(part), "{part}: {ports}");
    }
    assert!(!ports.contains("theirs") && !ports.contains("private"), "{ports}");
}

#[test]
fn what_could_not_be_had_is_told_and_the_rest_is_there() {
    let world = World::start(&["dpu-0"]);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let agent = format!("http://{nobody}");
    let run = world.virtnetctl(&["bundle", "--agent", &agent, "--ovsdb", "unix:/nowhere/db.sock"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(
        run.stderr.ends_with("virtnetctl: 4 of its parts could not be had; its README says why\n"),
        "{run:?}"
    );
    let name = run.stdout.lines().last().unwrap();
    let folder = name.strip_suffix(".tar.gz").unwrap();
    assert!(folder.starts_with("virtnet-bundle-20"), "{name}");
    let files = open(&world.place.path(name), folder);
    assert!(files["dpus.yaml"].contains("name: dpu-0\n"));
    let readme = &files["README"];
    for part in
        ["  agent/metrics.txt: asking the agent at http://127.0.0.1:", "  ports.yaml: reading the ports: "]
    {
        assert!(readme.contains(part), "{part}: {readme}");
    }
}

#[test]
fn what_is_wrong_is_said_and_no_file_is_left() {
    let world = World::start(&["dpu-0"]);
    let folder = world.place.path("empty");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("b.tar.gz").display().to_string();
    let bundle = |arguments: &[&str]| world.virtnetctl(&[&["bundle", "-f", &file], arguments].concat());
    let absent = bundle(&["--dpu", "nope"]).failed(1);
    assert_eq!(absent, "virtnetctl: there is no Dpu nope; there is dpu-0\n");
    let nothing = support::kubeconfig_of_nothing(&world.place);
    let unreachable = bundle(&["--kubeconfig", &nothing]).failed(1);
    assert!(
        unreachable.starts_with(
            "virtnetctl: asking the API for its version: no answer from the API at http://127.0.0.1:1/; is "
        ),
        "{unreachable}"
    );
    let nowhere = world.virtnetctl(&["bundle", "-f", "no/such/b.tar.gz"]).failed(1);
    assert!(
        nowhere.starts_with("virtnetctl: making no/such/b.tar.gz: is there a folder no/such: "),
        "{nowhere}"
    );
    let user = bundle(&["--agent", "http://user:pass@dpu:9402"]).failed(2);
    assert!(
        user.contains("say http://HOST:PORT") && user.contains("without a user and a password"),
        "{user}"
    );
    let wrong: [&[&str]; 4] =
        [&["-n", "default", "-A"], &["--agent", "dpu:9402"], &["--ovsdb", "nowhere"], &["dpu-0"]];
    for arguments in wrong {
        bundle(arguments).failed(2);
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "something is left");
}
