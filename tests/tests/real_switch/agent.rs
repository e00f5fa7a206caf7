//! The whole agent on a real switch: what is declared comes about, what is done behind its back is repaired, and what isn't
//! ours is never touched.

use std::time::Duration;

use kube::ResourceExt;
use serde_json::{Value, json};
use virtnet_local_switch::SWITCH;
use virtnet_model::Netdevs;
use virtnet_tests::ovsdb_wire::{inserted, transactions};
use virtnet_tests::real_world::RealWorld;
use virtnet_tests::world::{DPU, reason};

/// Firmware that holds 504 VFs, 4 static and 16 hot-plugged PFs.
const ROOM_FOR_ALL: &str = "PF_TOTAL_SF=524";

fn hotplug(tag: u16) -> Value {
    json!({
        "dpu": DPU, "function": {"hotplug": {}}, "mtu": 1500,
        "port": {"bridge": "ovsbr1", "tag": tag, "externalIds": {"iface-id": "web"}},
    })
}

/// A netdev's line as ip(8) prints it.
fn link(world: &RealWorld, name: &str) -> anyhow::Result<String> {
    world.ovs.inside("ip", &["-oneline", "link", "show", "dev", name])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_behind_its_back_is_repaired_and_told() {
    let world = RealWorld::new(ROOM_FOR_ALL).await.unwrap();
    // Each repair is told: after it there is an Event more, or one that was counted once more.
    let told = async |reason: &str, note: String, at_least: usize| {
        for _ in 0..600 {
            let times = world.times_told(reason, &note).await.unwrap();
            if times >= at_least {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{reason} was not told {at_least} times: {note}");
    };
    // A database full of other people's: ports of every sort, keys on them and on the bridges.
    for number in 0..40 {
        let name = format!("foreign{number}");
        let key = format!("external_ids:virtnet-like={number}");
        world
            .ovs
            .vsctl(&[
                "add-port",
                "ovsbr1",
                &name,
                "tag=7",
                "--",
                "set",
                "interface",
                &name,
                "type=internal",
                &key,
                "options:key=1",
                "other_config:a=b",
            ])
            .unwrap();
    }
    world
        .ovs
        .vsctl(&["set", "bridge", "ovsbr1", "external_ids:bridge-id=ovsbr1", "other_config:x=y"])
        .unwrap();
    let foreign = world.ovs.configuration().unwrap();

    let _agent = world.agent().unwrap();
    world.apply("web-0", hotplug(100)).await.unwrap();
    world.until_ready(1).await.unwrap();
    let name = world.representor("web-0").await.unwrap();
    let port = |column: &str| world.ovs.vsctl(&["get", "port", &name, column]);
    let put = || format!("put {name} of default/web-0 on bridge ovsbr1, tag 100");
    let set = |change: &str| format!("set representor {name} of default/web-0: {change}");
    assert_eq!(port("tag").unwrap().trim(), "100");
    assert!(link(&world, &name).unwrap().contains("mtu 1500"));

    // Each is repaired, by event: the agent polls nothing, and its heartbeat does not look.
    let tagged = || Ok(port("tag").is_ok_and(|tag| tag.trim() == "100"));
    world.ovs.vsctl(&["del-port", &name]).unwrap();
    world.until("the port is back", tagged).await.unwrap();
    told("PortSet", put(), 1).await;
    world.ovs.vsctl(&["set", "port", &name, "tag=7"]).unwrap();
    world.until("the tag is back", tagged).await.unwrap();
    told("PortSet", put(), 2).await;
    world.ovs.vsctl(&["set", "port", &name, "tag=0"]).unwrap();
    world.until("a tag that is no VLAN id is set back", tagged).await.unwrap();
    let iface_id = || {
        Ok(world
            .ovs
            .vsctl(&["get", "interface", &name, "external_ids:iface-id"])
            .is_ok_and(|id| id.contains("web")))
    };
    world.ovs.vsctl(&["set", "interface", &name, "external_ids:iface-id=other"]).unwrap();
    world.until("the user's key is back", iface_id).await.unwrap();
    world.ovs.inside("ip", &["link", "set", &name, "down"]).unwrap();
    world.until("the representor is up", || Ok(link(&world, &name)?.contains(",UP"))).await.unwrap();
    told("RepresentorSet", set("up"), 1).await;
    world.ovs.inside("ip", &["link", "set", &name, "mtu", "1400"]).unwrap();
    world.until("the MTU is back", || Ok(link(&world, &name)?.contains("mtu 1500"))).await.unwrap();
    told("RepresentorSet", set("MTU 1500"), 1).await;
    world.until_ready(1).await.unwrap();

    // A bridge that goes takes its ports along; made again, it has them again.
    world.ovs.vsctl(&["add-br", "ovsbr3", "--", "set", "bridge", "ovsbr3", "datapath_type=netdev"]).unwrap();
    let mut elsewhere = hotplug(100);
    elsewhere["port"]["bridge"] = json!("ovsbr3");
    world.apply("web-0", elsewhere).await.unwrap();
    world.until_ready(1).await.unwrap();
    world.ovs.vsctl(&["del-br", "ovsbr3"]).unwrap();
    wait_for_reason(&world, "web-0", "BridgeNotFound").await;
    world.ovs.vsctl(&["add-br", "ovsbr3", "--", "set", "bridge", "ovsbr3", "datapath_type=netdev"]).unwrap();
    world.until_ready(1).await.unwrap();
    world.ovs.vsctl(&["del-br", "ovsbr3"]).unwrap();

    // Nothing of ours is left, and nothing of theirs has changed.
    world.delete("web-0").await.unwrap();
    while !world.list().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.ovs.configuration().unwrap(), foreign);
    assert!(link(&world, &name).is_err(), "its representor went with the function");
}

async fn wait_for_reason(world: &RealWorld, name: &str, wanted: &str) -> String {
    let mut last = None;
    for _ in 0..1200 {
        let device = world.devices().get(name).await.unwrap();
        last = reason(&device);
        if let Some((reason, message)) = &last
            && reason == wanted
        {
            return message.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} has not become {wanted}: {last:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_someone_else_under_the_wanted_name_is_left_alone() {
    let world = RealWorld::new(ROOM_FOR_ALL).await.unwrap();
    // The representor of the first hot-plugged function, taken before the agent comes: as a port, and within a bond.
    let (first, second) = ("en3f0pf0sf2000", "en3f0pf0sf2001");
    let keys = ["external_ids:owner=neutron"];
    world.ovs.vsctl(&["add-port", "ovsbr1", first, "--", "set", "interface", first, keys[0]]).unwrap();
    world.ovs.vsctl(&["add-bond", "ovsbr2", "bond7", second, "dummy0"]).unwrap();
    let _agent = world.agent().unwrap();
    for (device, number) in [("web-0", 2000), ("web-1", 2001), ("web-2", 2002)] {
        let mut spec = hotplug(100);
        spec["function"]["hotplug"]["sfNumber"] = json!(number);
        world.apply(device, spec).await.unwrap();
    }
    let message = wait_for_reason(&world, "web-0", "PortConflict").await;
    assert!(
        message.contains(first) && message.contains("ovsbr1") && message.contains("(external_ids: owner)"),
        "{message}"
    );
    let message = wait_for_reason(&world, "web-1", "PortConflict").await;
    assert!(message.contains(second) && message.contains("ovsbr2"), "{message}");
    // It harms nobody else, and ends when its cause does.
    world.ovs.vsctl(&["del-port", "bond7"]).unwrap();
    world.ovs.vsctl(&["del-port", first]).unwrap();
    world.until_ready(3).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_a_previous_life_are_adopted_and_orphans_removed() {
    let world = RealWorld::new(ROOM_FOR_ALL).await.unwrap();
    let agent = world.agent().unwrap();
    for name in ["web-0", "web-1"] {
        world.apply(name, hotplug(100)).await.unwrap();
    }
    world.until_ready(2).await.unwrap();
    let kept = world.representor("web-0").await.unwrap();
    let row = || world.ovs.vsctl(&["get", "port", &kept, "_uuid"]).unwrap();
    let before = row();
    drop(agent);
    // While no agent looks: a device is given another life, and an orphan of one that nobody knows appears.
    let uid = world.devices().get("web-0").await.unwrap().uid().unwrap();
    for (name, device, uid) in
        [("orphan0", "default/gone", "no-such-uid"), (kept.as_str(), "default/web-0", "earlier-life")]
    {
        let marks = [
            format!("external_ids:virtnet-dpu={DPU}"),
            format!("external_ids:virtnet-device={device}"),
            format!("external_ids:virtnet-uid={uid}"),
        ];
        let mut command = vec!["--may-exist", "add-port", "ovsbr1", name, "--", "set", "interface", name];
        command.extend(marks.iter().map(String::as_str));
        world.ovs.vsctl(&command).unwrap();
    }
    // Another DPU's and someone's that only looks like ours.
    world
        .ovs
        .vsctl(&[
            "add-port",
            "ovsbr1",
            "other0",
            "--",
            "set",
            "interface",
            "other0",
            "external_ids:virtnet-dpu=dpu-9",
            "external_ids:virtnet-device=default/x",
            "external_ids:virtnet-uid=x",
        ])
        .unwrap();
    world
        .ovs
        .vsctl(&[
            "add-port",
            "ovsbr1",
            "half0",
            "--",
            "set",
            "interface",
            "half0",
            &format!("external_ids:virtnet-dpu={DPU}"),
        ])
        .unwrap();
    let _agent = world.agent().unwrap();
    world
        .until("the orphan is gone", || Ok(world.ovs.vsctl(&["get", "port", "orphan0", "name"]).is_err()))
        .await
        .unwrap();
    world.until_ready(2).await.unwrap();
    assert_eq!(row(), before, "the port of the earlier life was taken on as it is");
    let ids = world.ovs.vsctl(&["get", "interface", &kept, "external_ids:virtnet-uid"]).unwrap();
    assert!(ids.contains(&uid), "{ids}");
    for name in ["other0", "half0"] {
        world.ovs.vsctl(&["get", "port", name, "name"]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_the_dpu_says_to_make_is_made_again_when_it_goes() {
    let world = RealWorld::new(ROOM_FOR_ALL).await.unwrap();
    let _agent = world.agent().unwrap();
    let mut spec = hotplug(100);
    spec["port"]["bridge"] = json!("ovsbr9");
    world.apply("web-0", spec).await.unwrap();
    let message = wait_for_reason(&world, "web-0", "BridgeNotFound").await;
    assert!(message.contains("spec.switch.bridges"), "{message}");
    let bridges =
        json!([{"name": "ovsbr9", "datapathType": "netdev"}, {"name": "ovsbr1", "datapathType": "system"}]);
    world.apply_dpu(json!({"switch": {"bridges": bridges}})).await.unwrap();
    world.until_ready(1).await.unwrap();
    let told = world.ovs.vsctl(&["get", "bridge", "ovsbr9", "datapath_type"]).unwrap();
    assert_eq!(told.trim(), "netdev");
    assert_eq!(
        world.ovs.vsctl(&["get", "bridge", "ovsbr1", "datapath_type"]).unwrap().trim(),
        "netdev",
        "it was there"
    );
    world.ovs.vsctl(&["del-br", "ovsbr9"]).unwrap();
    world
        .until("the bridge is back", || Ok(world.ovs.vsctl(&["br-exists", "ovsbr9"]).is_ok()))
        .await
        .unwrap();
    world.until_ready(1).await.unwrap();
}

/// The switch goes on telling of a port that is attached, whose netdev it has lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_representor_that_was_made_again_is_attached_again() {
    let world = RealWorld::new(ROOM_FOR_ALL).await.unwrap();
    let _agent = world.agent().unwrap();
    world.apply("web-0", hotplug(100)).await.unwrap();
    world.until_ready(1).await.unwrap();
    let name = world.representor("web-0").await.unwrap();
    let held = || Ok(link(&world, &name).is_ok_and(|line| line.contains("PROMISC")));
    assert!(held().unwrap());
    let representor = name.parse().unwrap();
    world.taps.vanish(&representor);
    world.taps.appear(&representor).unwrap();
    assert!(!held().unwrap());
    world.until("the new netdev is the switch's", held).await.unwrap();
    world.until_ready(1).await.unwrap();
    let removed = world.events("PortRemoved").await.unwrap();
    assert!(removed.iter().any(|note| note.contains("bears its name now")), "{removed:?}");
}

/// A switch that ends in order lets go of its netdevs, which then look like ones that it does not hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_is_stopped_for_a_while_keeps_its_ports() {
    let mut world = RealWorld::new(ROOM_FOR_ALL).await.unwrap();
    let _agent = world.agent().unwrap();
    world.apply("web-0", hotplug(100)).await.unwrap();
    world.until_ready(1).await.unwrap();
    let name = world.representor("web-0").await.unwrap();
    let row = world.ovs.vsctl(&["get", "port", &name, "_uuid"]).unwrap();
    world.wire.take();
    world.ovs.end(SWITCH).unwrap();
    assert!(!link(&world, &name).unwrap().contains("PROMISC"));
    // Longer than an agent waits for its second look.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(transactions(&world.wire.take()).count, 0);
    world.ovs.start_switch().unwrap();
    world.until("it holds the netdev again", || Ok(link(&world, &name)?.contains("PROMISC"))).await.unwrap();
    world.until_ready(1).await.unwrap();
    assert_eq!(world.ovs.vsctl(&["get", "port", &name, "_uuid"]).unwrap(), row);
    assert_eq!(transactions(&world.wire.take()).count, 0);
}

/// The names and specs of 16 hot-plugged PFs, 4 static PFs and 504 VFs.
fn all_that_fits() -> Vec<(String, Value)> {
    let spec = |function: Value| json!({"dpu": DPU, "function": function, "port": {"bridge": "ovsbr1"}});
    let hot = (0..16).map(|number| (format!("hot-{number}"), spec(json!({"hotplug": {}}))));
    let fixed = (0..4).map(|pf| (format!("static-{pf}"), spec(json!({"static": {"pf": pf}}))));
    let vfs = (0..4).flat_map(|pf| (0..126).map(move |vf| (pf, vf)));
    let vfs = vfs.map(|(pf, vf)| (format!("vf-{pf}-{vf}"), spec(json!({"vf": {"pf": pf, "vf": vf}}))));
    hot.chain(fixed).chain(vfs).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_and_twenty_four_devices_are_few_transactions() {
    let world = RealWorld::new(ROOM_FOR_ALL).await.unwrap();
    world.make_vfs(126).await.unwrap();
    let all = all_that_fits();
    for (name, spec) in &all {
        world.apply(name, spec.clone()).await.unwrap();
    }
    let agent = world.agent().unwrap();
    world.until_ready(all.len()).await.unwrap();
    let said = world.wire.take();
    let made = transactions(&said);
    println!("524 devices: {} transactions of {:?} ports", made.count, inserted(&said, "Port"));
    assert!(made.count <= 16 && made.at_once == 1, "{made:?}");

    // Events are told one after another, and the last of them a while after the last device is Ready.
    while !world.writes.take().is_empty() {
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    // At rest nothing is written. `make soak` rests for ten minutes.
    let seconds = std::env::var("VIRTNET_REST_SECONDS").map_or(20, |text| text.parse().unwrap());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    assert_eq!(transactions(&world.wire.take()).count, 0);
    let written: Vec<_> =
        world.writes.take().into_iter().filter(|write| write.resource != "leases").collect();
    assert!(written.is_empty(), "{written:?}");
    // Nor after a start with everything Ready.
    drop(agent);
    let _agent = world.agent().unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(transactions(&world.wire.take()).count, 0);
    let written: Vec<_> =
        world.writes.take().into_iter().filter(|write| write.resource != "leases").collect();
    assert!(written.is_empty(), "{written:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_are_applied_one_by_one_are_one_transaction_at_a_time() {
    let world = RealWorld::new(ROOM_FOR_ALL).await.unwrap();
    let _agent = world.agent().unwrap();
    world.make_vfs(126).await.unwrap();
    let all = all_that_fits();
    for (name, spec) in all.iter().filter(|(name, _)| !name.starts_with("vf-1") && !name.starts_with("vf-2"))
    {
        world.apply(name, spec.clone()).await.unwrap();
    }
    world.until_ready(272).await.unwrap();
    let said = world.wire.take();
    let made = transactions(&said);
    println!("272 devices one by one: {} transactions of {:?} ports", made.count, inserted(&said, "Port"));
    assert_eq!(made.at_once, 1);
}
