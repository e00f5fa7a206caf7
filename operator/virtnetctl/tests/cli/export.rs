//! `virtnetctl export`: what no object declares is adopted by what is printed, and nothing of it changes.

use crate::support;
use crate::support::world::World;
use serde_json::Value;
use virtnet_model::{
    BridgeName, Feature, Function, HotplugRequest, IfName, Mac, Mtu, PfId, Port, QueueSize, SfNumber, Uplink,
};
use virtnet_sim::{Effect, SimConfig};

/// What a person would hot-plug, with its own ideas of MTU and queues.
fn request(mac: &str) -> HotplugRequest {
    HotplugRequest {
        mtu: Mtu::try_from(9000).unwrap(),
        num_msix: Some(3),
        ..HotplugRequest::new(mac.parse().unwrap(), 2, QueueSize::try_from(512).unwrap())
    }
}

fn plug(world: &World, request: &HotplugRequest) -> Function {
    world.wait(world.sim("bf3-a").controller().hotplug(request)).unwrap()
}

fn representor(function: &Function) -> IfName {
    function.sf.as_ref().unwrap().representor.clone()
}

/// A port that somebody has made for the function by hand.
fn port_of_a_person(world: &World, function: &Function, bridge: &str) {
    let bridge: BridgeName = bridge.parse().unwrap();
    let port = Port {
        bridge,
        interface_type: String::new(),
        tag: Some(7),
        trunks: [].into(),
        external_ids: [("made-by".to_owned(), "hand".to_owned())].into(),
        ofport: None,
        error: None,
    };
    let name = representor(function);
    world.sim("bf3-a").put_port(&name, port);
    world.wait(world.sim("bf3-a").wait_for_port(&name, support::LIMIT)).unwrap();
}

/// Sets the representor as a person does who cares for the function's MTU.
fn set_link(world: &World, function: &Function, up: bool) {
    let (name, mtu) = (representor(function), u32::from(function.mtu));
    support::eventually("the representor is there", || {
        world.sim("bf3-a").edit_link(&name, |link| (link.up, link.mtu) = (up, mtu))
    });
}

/// A DPU with functions of every kind that were made by hand: some in use, one transitional, one on the second port.
fn by_hand() -> (World, usize) {
    let mut config = SimConfig::default();
    let transitional = ["VIRTIO_NET_EMULATION_PF_PCI_LAYOUT=1", "VIRTIO_EMULATION_HOTPLUG_TRANS=1"];
    config.set_firmware(&transitional).unwrap();
    config.set_firmware(&["VIRTIO_NET_EMULATION_NUM_PF=2"]).unwrap();
    let world = World::with(&[("bf3-a", config)]);
    // Its digits alone could be read as a number.
    let first = plug(&world, &request("02:10:20:30:40:50"));
    set_link(&world, &first, true);
    port_of_a_person(&world, &first, "ovsbr1");
    let legacy = HotplugRequest { transitional: true, ..request("0c:c4:7a:ff:22:94") };
    set_link(&world, &plug(&world, &legacy), true);
    let number = SfNumber::try_from(2000).unwrap();
    let second =
        HotplugRequest { uplink: Uplink::P1, sf_number: Some(number), ..request("0c:c4:7a:ff:22:95") };
    set_link(&world, &plug(&world, &second), false);
    world.sim("bf3-a").write_num_vfs(PfId::try_from(0).unwrap(), 3).unwrap();
    // Two static PFs, three hot-plugged ones, three VFs.
    world.wait_undeclared("bf3-a", 8);
    support::eventually("the host has all of them, and their representors are reported", || {
        let functions = world.wait(world.sim("bf3-a").controller().observe()).unwrap().functions;
        functions.values().all(|function| function.driver.in_use)
            && world.of_dpu("bf3-a", "{.status.undeclared[*].linkState}").split(' ').count() == 8
            && world.of_dpu("bf3-a", "{.status.undeclared[*].linkState}").matches("Up").count() == 2
    });
    (world, 8)
}

#[test]
fn what_is_printed_adopts_all_and_changes_nothing() {
    let (world, count) = by_hand();
    let before = world.see("bf3-a");
    let printed = world.virtnetctl(&["export", "--dpu", "bf3-a"]).ok();
    support::golden("export.yaml", &printed);
    assert_eq!(world.place.kubectl_with(&["diff", "-f", "-"], &printed).code, Some(1), "none is there yet");

    let applied = world.place.kubectl_with(&["apply", "-f", "-"], &printed).ok();
    assert_eq!(applied.matches(" created\n").count(), count, "{applied}");
    world.place.kubectl_ok(&["wait", "vnd", "--all", "--for=condition=Ready", "--timeout=60s"]);
    world.wait_undeclared("bf3-a", 0);
    assert_eq!(world.see("bf3-a"), before, "something was changed");
    assert_eq!(world.place.kubectl_with(&["diff", "-f", "-"], &printed).ok(), "");
    for effect in [Effect::Unplug, Effect::Modify, Effect::LinkSet, Effect::SwitchApply] {
        assert_eq!(world.sim("bf3-a").counters().of(effect), 0, "{effect}");
    }

    let again = world.virtnetctl(&["export", "--dpu", "bf3-a"]);
    assert_eq!(again.stderr, "Every function of bf3-a is declared: there is nothing to export.\n");
    assert_eq!(again.ok(), "");
}

/// What the controller has of the function with this MAC that a plug decides; none before the host has it.
fn plugged(world: &World, mac: Mac) -> Option<impl PartialEq + std::fmt::Debug + use<>> {
    let state = world.wait(world.sim("bf3-a").controller().observe()).ok()?;
    let function = state.functions.into_values().find(|function| function.mac == mac)?;
    let Function { mtu, max_queues, max_queue_size, num_msix, features, transitional, sf, driver, .. } =
        function;
    let sf = sf.map(|sf| (sf.port, sf.number));
    driver.in_use.then_some((mtu, max_queues, max_queue_size, num_msix, features, transitional, sf))
}

#[test]
fn what_was_adopted_comes_back_as_it_was_when_it_is_plugged_anew() {
    let world = World::start(&["bf3-a"]);
    let features = [Feature::Csum, Feature::Mac, Feature::Mtu, Feature::Version1];
    let own =
        HotplugRequest { features: Some(features.into_iter().collect()), ..request("0c:c4:7a:ff:22:93") };
    let name = representor(&plug(&world, &own));
    support::eventually("it is reported with its representor", || {
        world.of_dpu("bf3-a", "{.status.undeclared[?(@.type==\"HotPlug\")].linkState}") == "Down"
    });
    // It is senior to what is adopted below, and the controller chooses its number.
    world
        .place
        .kubectl_with(&["apply", "-f", "-"], &support::device("older", "").replace("dpu-0", "bf3-a"))
        .ok();
    world.place.wait_ready(&["older"]);
    let printed = world.virtnetctl(&["export", "--dpu", "bf3-a"]).ok();
    world.place.kubectl_with(&["apply", "-f", "-"], &printed).ok();
    world.place.wait_ready(&["bf3-a-sf2000"]);
    assert!(printed.contains("# A representor with another MTU"), "{printed}");
    let links = world.wait(world.sim("bf3-a").links().observe()).unwrap();
    assert_eq!(links[&name].mtu, 9000, "a declared MTU is the representor's too");
    let before = plugged(&world, own.mac).unwrap();

    world.wait(world.sim("bf3-a").power_cycle());
    assert!(plugged(&world, own.mac).is_none());
    support::eventually("it is plugged anew", || plugged(&world, own.mac).is_some());
    assert_eq!(plugged(&world, own.mac), Some(before));
}

#[test]
fn json_is_taken_by_server_side_apply() {
    let (world, count) = by_hand();
    world.place.kubectl_ok(&["create", "namespace", "tenant-a"]);
    let before = world.see("bf3-a");
    let printed = world.virtnetctl(&["export", "--dpu", "bf3-a", "-n", "tenant-a", "-o", "json"]).ok();
    let objects = serde_json::Deserializer::from_str(&printed).into_iter::<Value>();
    let namespaces: Vec<_> = objects.map(|object| object.unwrap()["metadata"]["namespace"].clone()).collect();
    assert_eq!(namespaces, vec!["tenant-a"; count]);
    world.place.kubectl_with(&["apply", "--server-side", "-f", "-"], &printed).ok();
    let wait = ["wait", "vnd", "-n", "tenant-a", "--all", "--for=condition=Ready", "--timeout=60s"];
    world.place.kubectl_ok(&wait);
    assert_eq!(world.see("bf3-a"), before, "something was changed");
}

#[test]
fn a_bridge_takes_those_without_a_port_and_leaves_other_peoples_alone() {
    let world = World::start(&["bf3-a"]);
    let (theirs, free) =
        (plug(&world, &request("0c:c4:7a:ff:22:93")), plug(&world, &request("0c:c4:7a:ff:22:94")));
    port_of_a_person(&world, &theirs, "ovsbr2");
    let before = world.wait(world.sim("bf3-a").switch().observe()).unwrap();
    support::eventually("both are reported", || {
        world.of_dpu("bf3-a", "{.status.undeclared[?(@.type==\"HotPlug\")].linkState}") == "Down Down"
    });

    let printed = world.virtnetctl(&["export", "--dpu", "bf3-a", "--bridge", "ovsbr1"]).ok();
    assert!(
        printed.contains("# Each representor becomes a port of ovsbr1. One that is a port already"),
        "{printed}"
    );
    world.place.kubectl_with(&["apply", "-f", "-"], &printed).ok();
    world.place.wait_ready(&["bf3-a-sf2001"]);
    let conflict = ["wait", "vnd/bf3-a-sf2000", "--timeout=60s"];
    let reason = "--for=jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=PortConflict";
    world.place.kubectl_ok(&[&conflict[..], &[reason]].concat());
    let after = world.wait(world.sim("bf3-a").switch().observe()).unwrap();
    let name = representor(&theirs);
    assert_eq!(after.ports[&name], before.ports[&name]);
    assert_eq!(after.ports[&representor(&free)].bridge.as_str(), "ovsbr1");
}

#[test]
fn a_name_that_another_device_has_is_left_to_it() {
    let world = World::start(&["bf3-a"]);
    let other = support::device("bf3-a-sf2000", "").replace("dpu-0", "bf3-b");
    world.place.kubectl_with(&["apply", "-f", "-"], &other).ok();
    let mac: Mac = "0c:c4:7a:ff:22:93".parse().unwrap();
    world.wait(world.sim("bf3-a").plug_foreign(mac)).unwrap();
    // Beside the four static PFs.
    world.wait_undeclared("bf3-a", 5);
    let printed = world.virtnetctl(&["export", "--dpu", "bf3-a"]).ok();
    assert!(printed.contains("  name: bf3-a-sf2000-2\n"), "{printed}");
}

#[test]
fn what_is_not_known_is_not_said_and_what_may_be_of_the_past_is_said_to_be() {
    let world = World::start(&["bf3-a"]);
    world.wait_undeclared("bf3-a", 4);
    world.silence("bf3-a");
    let edit = r#"[
        {"op": "replace", "path": "/status/undeclared/0/vuid", "value": "VNETS\nkind: Secret"},
        {"op": "remove", "path": "/status/undeclared/1/linkState"}
    ]"#;
    world.place.kubectl_ok(&["patch", "dpu", "bf3-a", "--subresource=status", "--type=json", "-p", edit]);
    let run = world.virtnetctl(&["export", "--dpu", "bf3-a"]);
    let errors: Vec<_> = run.stderr.lines().collect();
    let old = "this is what was last reported, and may not hold any more: its agent last renewed its Lease ";
    assert_eq!((run.code, errors.len()), (Some(1), 2), "{run:?}");
    assert!(errors[0].starts_with(&format!("virtnetctl: {old}")), "{run:?}");
    assert!(errors[1].ends_with(" is left out: whether its representor is up is not known"), "{run:?}");
    assert!(run.stdout.starts_with(&format!("# Take care: {old}")), "{run:?}");
    assert!(run.stdout.contains("\n# VNETS kind: Secret at "), "{run:?}");
    assert_eq!(run.stdout.matches("\nkind: VirtnetDevice\n").count(), 3, "{run:?}");
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let world = World::start(&["bf3-a", "bf3-b"]);
    let export = |arguments: &[&str]| world.virtnetctl(&[&["export"], arguments].concat());
    let absent = export(&["--dpu", "nope"]).failed(1);
    assert_eq!(absent, "virtnetctl: there is no Dpu nope; there are bf3-a, bf3-b\n");
    let dpu = "apiVersion: virtnet.dev/v1alpha1\nkind: Dpu\nmetadata: {name: new}\nspec: {}\n";
    world.place.kubectl_with(&["apply", "-f", "-"], dpu).ok();
    let silent = export(&["--dpu", "new"]).failed(1);
    assert!(
        silent.starts_with("virtnetctl: DPU new has not reported its functions yet: is its agent "),
        "{silent}"
    );
    let nowhere = export(&["--dpu", "bf3-a", "--kubeconfig", "gone"]).failed(1);
    assert!(nowhere.contains("reading the kubeconfig gone"), "{nowhere}");
    for wrong in [&[][..], &["--dpu", "bf3-a", "--bridge", "a/b"], &["--dpu", "bf3-a", "-o", "table"]] {
        export(wrong).failed(2);
    }
}
