//! `virtnetctl tree`: what it shows of devices and DPUs, and what it says where there is nothing.

mod support;

use regex::Regex;
use serde_json::Value;
use support::world::World;
use support::{device, sample};

/// Ages pass between two looks.
fn ageless(text: &str) -> String {
    let age = Regex::new(r"(\d+[smhdy])+ ago|for (\d+[smhdy])+").expect("a pattern of ages");
    age.replace_all(text, "AGE").into_owned()
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
fn what_is_wrong_is_said_in_one_line() {
    let world = World::start(&["dpu-0"]);
    let run = |arguments: &[&str]| world.virtnetctl(arguments);
    let absent = run(&["tree", "nope"]).failed(1);
    assert_eq!(absent, "virtnetctl: there is no VirtnetDevice default/nope; there is none at all\n");
    let absent = run(&["tree", "--dpu", "nope"]).failed(1);
    assert_eq!(absent, "virtnetctl: there is no Dpu nope; there is dpu-0\n");
    let empty = run(&["tree"]);
    assert_eq!((empty.code, empty.stderr.as_str()), (Some(0), "No resources found in default namespace.\n"));
    let nothing = support::kubeconfig_of_nothing(&world.place);
    let unreachable = run(&["tree", "-A", "--kubeconfig", &nothing]).failed(1);
    let silent =
        "virtnetctl: listing Events: no answer from the API at http://127.0.0.1:1/; is it running?: ";
    assert!(unreachable.starts_with(silent), "{unreachable}");
    assert_eq!(unreachable.lines().count(), 1, "{unreachable}");
    let wrong: [&[&str]; 4] = [
        &["tree", "a", "-A"],
        &["tree", "a", "--dpu", "dpu-0"],
        &["tree", "-n", "default", "-A"],
        &["tree", "-o", "wide"],
    ];
    for arguments in wrong {
        run(arguments).failed(2);
    }
}
