//! `virtnetctl tree` and `virtnetctl top`: what they show of devices and DPUs, and what they say where there is nothing.

use crate::support::world::World;
use crate::support::{self, device, sample};
use regex::Regex;
use serde_json::Value;

/// Ages pass between two looks.
fn ageless(text: &str) -> String {
    let age = Regex::new(r"(\d+[smhdy])+ ago|for (\d+[smhdy])+").expect("a pattern of ages");
    age.replace_all(text, "AGE").into_owned()
}

/// The Dpu tells of a plugged function a moment after its device does.
fn wait_slots(world: &World, count: u32) {
    let used = format!("--for=jsonpath={{.status.allocated.hotplugSlots}}={count}");
    world.place.kubectl_ok(&["wait", "dpu/dpu-0", "--timeout=60s", &used]);
}

/// A device that is Ready, one that is not and won't be, and one of no DPU.
fn some_devices() -> World {
    let world = World::start(&["dpu-0"]);
    let place = &world.place;
    place.kubectl_ok(&["apply", "-f", &sample("hotplug.yaml")]);
    place.wait_ready(&["web-0"]);
    place.kubectl_with(&["apply", "-f", "-"], &device("stalls", "  msix: 999\n")).ok();
    place.kubectl_ok(&["wait", "vnd/stalls", "--for=condition=Stalled", "--timeout=60s"]);
    let unbound = device("unbound", "").replace("dpu: dpu-0", "dpuSelector: {matchLabels: {no: such}}");
    place.kubectl_with(&["apply", "-f", "-"], &unbound).ok();
    world.wait_undeclared("dpu-0", 4);
    // Events come after what they tell of.
    for told in ["Plugged", "Ready"] {
        support::eventually(told, || place.kubectl_ok(&["get", "events"]).contains(told));
    }
    world
}

#[test]
fn a_tree_shows_one_device_a_namespace_or_a_dpu() {
    let world = some_devices();
    let tree = |arguments: &[&str]| ageless(&world.virtnetctl(&[&["tree"], arguments].concat()).ok());
    let (one, all, dpu) = (tree(&["web-0"]), tree(&[]), tree(&["--dpu", "dpu-0"]));
    support::golden("tree-device.txt", &one);
    support::golden("tree-namespace.txt", &all);
    support::golden("tree-dpu.txt", &dpu);
    assert!(all.contains(&one));
    assert_eq!(tree(&["-A"]), all);
    assert_eq!(tree(&["-n", "default", "--dpu", "dpu-0"]), dpu);
    let elsewhere = tree(&["-n", "kube-system", "--dpu", "dpu-0"]);
    assert!(elsewhere.contains("├─ no devices\n"), "{elsewhere}");
}

#[test]
fn programs_have_the_tree_as_data() {
    let world = some_devices();
    let json = world.virtnetctl(&["tree", "--dpu", "dpu-0", "-o", "json"]).ok();
    let yaml = world.virtnetctl(&["tree", "--dpu", "dpu-0", "-o", "yaml"]).ok();
    let tree: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), tree);
    assert_eq!(tree["dpu"]["status"]["undeclared"].as_array().unwrap().len(), 4);
    let names: Vec<_> = tree["devices"].as_array().unwrap().iter().map(|device| &device["name"]).collect();
    assert_eq!(names, ["stalls", "web-0"]);
    let web = &tree["devices"][1];
    assert_eq!(web["status"]["representor"]["name"], "en3f0pf0sf2000");
    assert!(web["events"].as_array().unwrap().iter().any(|event| event["reason"] == "Plugged"), "{web}");
}

#[test]
fn top_counts_what_is_there_and_who_lives() {
    let world = World::start(&["dpu-0", "dpu-1"]);
    let place = &world.place;
    place.kubectl_ok(&["apply", "-f", &sample("hotplug.yaml")]);
    place.kubectl_with(&["apply", "-f", "-"], &device("stalls", "  msix: 999\n")).ok();
    let vfs = r#"{"spec":{"host":{"sriov":[{"pf":1,"numVfs":3}]}}}"#;
    place.kubectl_ok(&["patch", "dpu", "dpu-1", "--type=merge", "-p", vfs]);
    place.wait_ready(&["web-0"]);
    place.kubectl_ok(&["wait", "vnd/stalls", "--for=condition=Stalled", "--timeout=60s"]);
    wait_slots(&world, 1);
    world.wait_undeclared("dpu-1", 7);
    support::golden("top.txt", &world.virtnetctl(&["top"]).ok());

    world.silence("dpu-1");
    let table = world.virtnetctl(&["top"]).ok();
    let cells: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((cells[1][2], cells[2][2], cells[3][1]), ("alive", "silent", "1/2"), "{table}");

    let json = world.virtnetctl(&["top", "-o", "json"]).ok();
    let top: Value = serde_json::from_str(&json).unwrap();
    let total = &top["total"];
    assert_eq!((&total["dpus"], &total["alive"], &total["undeclared"]), (&2.into(), &1.into(), &11.into()));
    assert_eq!(top["dpus"][0]["hotplugSlots"], serde_json::json!({"used": 1, "all": 16}));
    assert_eq!(top["dpus"][1]["agent"]["state"], "silent");
    assert_eq!(top["dpus"][1]["vfsPerPf"]["1"], serde_json::json!({"used": 3, "all": 126}));
    let one = world.virtnetctl(&["top", "dpu-0"]).ok();
    assert_eq!(one.lines().count(), 2, "{one}");
    let absent = ["top", "dpu-0", "--lease-namespace", "elsewhere"];
    assert!(world.virtnetctl(&absent).ok().contains(" none "));
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let world = World::start(&["dpu-0"]);
    let run = |arguments: &[&str]| world.virtnetctl(arguments);
    let absent = run(&["tree", "nope"]).failed(1);
    assert_eq!(absent, "virtnetctl: there is no VirtnetDevice default/nope; there is none at all\n");
    for arguments in [["tree", "--dpu", "nope"], ["top", "nope", "-ojson"]] {
        assert_eq!(run(&arguments).failed(1), "virtnetctl: there is no Dpu nope; there is dpu-0\n");
    }
    let empty = run(&["tree"]);
    assert_eq!((empty.code, empty.stderr.as_str()), (Some(0), "No resources found in default namespace.\n"));
    let nothing = support::kubeconfig_of_nothing(&world.place);
    for (arguments, doing) in [(["tree", "-A"], "listing Events"), (["top", "-oyaml"], "listing the Dpus")] {
        let unreachable = run(&[&arguments[..], &["--kubeconfig", &nothing]].concat()).failed(1);
        assert!(
            unreachable.starts_with(&format!(
                "virtnetctl: {doing}: no answer from the API at http://127.0.0.1:1/; is it running?: "
            )),
            "{unreachable}"
        );
        assert_eq!(unreachable.lines().count(), 1, "{unreachable}");
    }
    let wrong: [&[&str]; 5] = [
        &["tree", "a", "-A"],
        &["tree", "a", "--dpu", "dpu-0"],
        &["tree", "-n", "default", "-A"],
        &["tree", "-o", "wide"],
        &["top", "dpu-0", "dpu-1"],
    ];
    for arguments in wrong {
        run(arguments).failed(2);
    }
}

#[test]
fn the_readme_shows_what_is_printed() {
    let world = World::start(&["dpu-0"]);
    let place = &world.place;
    place.kubectl_ok(&["apply", "-f", &sample("hotplug.yaml")]);
    place.wait_ready(&["web-0"]);
    wait_slots(&world, 1);
    support::eventually("Ready is told", || place.kubectl_ok(&["get", "events"]).contains("web-0 is Ready"));
    let tree = format!("$ virtnetctl tree web-0\n{}", world.virtnetctl(&["tree", "web-0"]).ok());
    let top = format!("$ virtnetctl top\n{}", world.virtnetctl(&["top"]).ok());
    world.wait_undeclared("dpu-0", 4);
    let manifests = world.virtnetctl(&["export", "--dpu", "dpu-0"]).ok();
    let applied = place.kubectl_with(&["apply", "-f", "-"], &manifests).ok();
    world.wait_undeclared("dpu-0", 0);
    let again = world.virtnetctl(&["export", "--dpu", "dpu-0"]).stderr;
    let adopted = format!(
        "$ virtnetctl export --dpu dpu-0 > adopt.yaml\n$ kubectl apply -f adopt.yaml\n{applied}\
         $ virtnetctl export --dpu dpu-0\n{again}"
    );
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    for shown in [tree, top, adopted] {
        let block: String = shown.lines().map(|line| format!("    {line}\n")).collect();
        assert!(ageless(&readme).contains(&ageless(&block)), "not in the README:\n{block}");
    }
}
