//! The agent on a simulated DPU through the embedded API, under virtual time.

#![expect(clippy::unwrap_used, reason = "a test that can not go on panics")]

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use serde_json::json;
use virtnet_crds::VirtnetDevice;
use virtnet_embedded_api::Write;
use virtnet_model::{FunctionKind, IfName};
use virtnet_sim::{Effect, FirmwareConfig, SimConfig};
use virtnet_tests::faults::Faults;
use virtnet_tests::world::{DPU, World, reason};

/// Firmware that holds 504 VFs, 4 static and 16 hot-plugged PFs.
const ROOM_FOR_ALL: &str = "PF_TOTAL_SF=524";

async fn world(firmware: &str) -> World {
    let firmware = FirmwareConfig::guide_with(firmware).unwrap();
    let sim = SimConfig { firmware, ..SimConfig::default() };
    World::new(1, sim, Faults::new(1, 0, Vec::new())).await.unwrap()
}

/// 504 VFs, 4 static and 16 hot-plugged PFs, each with a port, and a host that makes the VFs.
async fn declare_all(world: &World) {
    let port = json!({"bridge": "ovsbr1"});
    for pf in 0..16 {
        let spec = json!({"dpu": DPU, "function": {"hotplug": {}}, "port": port});
        world.create(&format!("hot-{pf}"), spec).await.unwrap();
    }
    for pf in 0..4 {
        let spec = json!({"dpu": DPU, "function": {"static": {"pf": pf}}, "port": port});
        world.create(&format!("static-{pf}"), spec).await.unwrap();
        for vf in 0..126 {
            let spec = json!({"dpu": DPU, "function": {"vf": {"pf": pf, "vf": vf}}, "port": port});
            world.create(&format!("vf-{pf}-{vf}"), spec).await.unwrap();
        }
    }
    set_num_vfs(world).await;
}

async fn set_num_vfs(world: &World) {
    let sriov: Vec<_> = (0..4).map(|pf| json!({"pf": pf, "numVfs": 126})).collect();
    let dpu = json!({
        "apiVersion": virtnet_crds::API_VERSION, "kind": "Dpu", "metadata": {"name": DPU},
        "spec": {"host": {"sriov": sriov}},
    });
    let params = kube::api::PatchParams::apply("test");
    world.dpus().patch(DPU, &params, &kube::api::Patch::Apply(dpu)).await.unwrap();
}

/// The agent's writes by object, Events and Lease apart.
fn writes_by_object(writes: Vec<Write>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for write in writes.into_iter().filter(|write| write.manager == "virtnet-agent") {
        if write.resource != "leases" && write.resource != "events" {
            *counts.entry(format!("{}/{}", write.resource, write.name)).or_default() += 1;
        }
    }
    counts
}

fn over_budget(counts: &BTreeMap<String, usize>, budget: usize) -> Vec<(&String, &usize)> {
    counts
        .iter()
        .filter(|(object, count)| object.starts_with("virtnetdevices/") && **count > budget)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn five_hundred_and_twenty_four_devices_become_ready_within_the_budget_of_writes() {
    let world = world(ROOM_FOR_ALL).await;
    let start = tokio::time::Instant::now();
    let agent = tokio::spawn(world.agent());
    declare_all(&world).await;
    assert_eq!(world.until_ready(Duration::from_secs(120)).await.unwrap(), Vec::<String>::new());
    let counts = writes_by_object(world.writes.take());
    assert_eq!(over_budget(&counts, 2), [], "more than finalizer and status");
    // Made, then at most one status a second.
    let (dpu, seconds) = (counts[&format!("dpus/{DPU}")], start.elapsed().as_secs_f64().ceil() as usize);
    assert!(dpu <= seconds + 2, "{dpu} writes of the Dpu in {seconds} s");

    tokio::time::sleep(Duration::from_secs(30)).await;
    world.writes.take();
    let before = world.sim.counters().effects;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(writes_by_object(world.writes.take()), BTreeMap::new(), "writes at rest");
    assert_eq!(world.sim.counters().effects, before, "effects at rest");

    world.devices().delete_collection(&Default::default(), &Default::default()).await.unwrap();
    while !world.list().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let counts = writes_by_object(world.writes.take());
    assert_eq!(over_budget(&counts, 1), [], "more than the release of the finalizer");
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn with_the_guides_own_firmware_sixteen_devices_wait_and_name_the_setting() {
    let world = world("").await;
    let agent = tokio::spawn(world.agent());
    declare_all(&world).await;
    let waiting = world.until_ready(Duration::from_secs(30)).await.unwrap();
    assert_eq!(waiting.len(), 16, "{waiting:#?}");
    let unnamed: Vec<_> =
        waiting.iter().filter(|line| !line.contains("SfExhausted: PF_TOTAL_SF=508 of p0")).collect();
    assert_eq!(unnamed, Vec::<&String>::new());
    agent.abort();
}

/// One device of each kind, all Ready.
async fn small_world() -> (World, tokio::task::JoinHandle<()>) {
    let world = world(ROOM_FOR_ALL).await;
    let agent = tokio::spawn(world.agent());
    let port = json!({"bridge": "ovsbr1", "tag": 100, "externalIds": {"iface-id": "web"}});
    for (name, function) in [
        ("hot", json!({"hotplug": {}})),
        ("static", json!({"static": {"pf": 0}})),
        ("vf", json!({"vf": {"pf": 0, "vf": 3}})),
    ] {
        let spec = json!({"dpu": DPU, "function": function, "mtu": 1500, "port": port});
        world.create(name, spec).await.unwrap();
    }
    set_num_vfs(&world).await;
    assert_eq!(world.until_ready(Duration::from_secs(120)).await.unwrap(), Vec::<String>::new());
    (world, agent)
}

async fn representors(world: &World) -> Vec<IfName> {
    let representor =
        |device: VirtnetDevice| device.status.unwrap().representor.unwrap().name.parse().unwrap();
    world.list().await.unwrap().into_iter().map(representor).collect()
}

#[tokio::test(start_paused = true)]
async fn what_others_change_is_repaired_by_event_and_told_by_an_event() {
    let (world, agent) = small_world().await;
    for name in representors(&world).await {
        for drift in ["delete the port", "another tag", "drop our key", "take the link down", "another MTU"] {
            let before = world.sim.counters();
            match drift {
                "delete the port" => assert!(world.sim.delete_port(&name)),
                "another tag" => assert!(world.sim.edit_port(&name, |port| port.tag = None)),
                "drop our key" => {
                    assert!(world.sim.edit_port(&name, |port| drop(port.external_ids.remove("iface-id"))));
                }
                "take the link down" => assert!(world.sim.edit_link(&name, |link| link.up = false)),
                _ => assert!(world.sim.edit_link(&name, |link| link.mtu = 1400)),
            }
            // Less than the heartbeat and the second in which a state is not written: only an event can do it.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let switch = world.sim.switch().observe().await.unwrap();
            let port = switch.ports.get(&name).unwrap_or_else(|| panic!("{drift}: {name} is gone"));
            assert_eq!(port.tag, Some(100), "{drift}");
            assert_eq!(port.external_ids.get("iface-id").map(String::as_str), Some("web"), "{drift}");
            assert!(port.is_attached(), "{drift}: {port:?}");
            let links = world.sim.links().observe().await.unwrap();
            assert!(links[&name].up && links[&name].mtu == 1500, "{drift}: {:?}", links[&name]);
            let after = world.sim.counters();
            assert_eq!(
                after.of(Effect::Hotplug),
                before.of(Effect::Hotplug),
                "{drift}: the function is untouched"
            );
            assert_eq!(
                after.of(Effect::Modify),
                before.of(Effect::Modify),
                "{drift}: the function is untouched"
            );
        }
    }
    let events: Api<Event> = Api::all(world.client.clone());
    let reasons: Vec<_> = events
        .list(&Default::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .filter_map(|event| event.reason)
        .collect();
    for reason in ["PortSet", "RepresentorSet", "Plugged", "Ready"] {
        assert!(reasons.iter().any(|told| told == reason), "{reason} of {reasons:?}");
    }
    agent.abort();
}

/// Conditions of this manager, by force.
async fn say(world: &World, manager: &str, object: serde_json::Value, conditions: &[(&str, &str, &str)]) {
    let conditions: Vec<_> = conditions
        .iter()
        .map(|(type_, status, reason)| {
            json!({
                "type": type_, "status": status, "reason": reason, "message": "said by another",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        })
        .collect();
    let (kind, name) =
        (object["kind"].as_str().unwrap().to_owned(), object["name"].as_str().unwrap().to_owned());
    let body = json!({
        "apiVersion": virtnet_crds::API_VERSION, "kind": kind, "metadata": {"name": name},
        "status": {"conditions": conditions},
    });
    let (params, patch) = (kube::api::PatchParams::apply(manager).force(), kube::api::Patch::Apply(body));
    if kind == "Dpu" {
        world.dpus().patch_status(&name, &params, &patch).await.unwrap();
    } else {
        world.devices().patch_status(&name, &params, &patch).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_condition_of_someone_else_is_left_alone_and_no_cause_to_write() {
    let (world, agent) = small_world().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let foreign = [("acme.example/Inspected", "True", "Inspected")];
    say(&world, "acme", json!({"kind": "VirtnetDevice", "name": "hot"}), &foreign).await;
    say(&world, "acme", json!({"kind": "Dpu", "name": DPU}), &foreign).await;
    world.writes.take();
    // Each of these is a cause to observe, and so to look at what is to be written.
    for name in representors(&world).await {
        assert!(world.sim.edit_link(&name, |link| link.up = false));
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(writes_by_object(world.writes.take()), BTreeMap::new());
    let device = world.devices().get("hot").await.unwrap();
    let conditions = device.status.unwrap().conditions;
    assert!(conditions.iter().any(|condition| condition.type_ == foreign[0].0), "{conditions:?}");
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn what_a_binder_said_that_is_gone_is_taken_back_by_the_agent() {
    let (world, agent) = small_world().await;
    world.sim.shut_down_host();
    let selector = json!({"matchLabels": {"rack": "r1"}});
    let spec = json!({"dpuSelector": selector, "function": {"hotplug": {}}, "port": {"bridge": "ovsbr1"}});
    world.create("late", spec).await.unwrap();
    let said = ["Bound", "Ready"].map(|type_| (type_, "False", "NoDpuFits"));
    let said = [said[0], said[1], ("Reconciling", "True", "NoDpuFits")];
    say(&world, "virtnet-binder", json!({"kind": "VirtnetDevice", "name": "late"}), &said).await;
    let bound = kube::api::Patch::Merge(json!({"spec": {"dpu": DPU}}));
    world.devices().patch("late", &Default::default(), &bound).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let told = reason(&world.devices().get("late").await.unwrap()).unwrap();
    assert_eq!(told.0, "HostOff", "{}", told.1);
    world.sim.boot_host();
    assert_eq!(world.until_ready(Duration::from_secs(60)).await.unwrap(), Vec::<String>::new());
    let conditions = world.devices().get("late").await.unwrap().status.unwrap().conditions;
    assert!(conditions.iter().all(|condition| condition.type_ != "Reconciling"), "{conditions:?}");
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_slow_controller_is_not_said_to_have_had_no_answer() {
    let world = world(ROOM_FOR_ALL).await;
    world.sim.set_latency(Effect::Modify, Duration::from_secs(50));
    let agent = tokio::spawn(world.agent());
    set_num_vfs(&world).await;
    for vf in 0..48 {
        let mac = format!("0c:c4:7a:ee:00:{vf:02x}");
        let spec = json!({"dpu": DPU, "function": {"vf": {"pf": 0, "vf": vf}}, "mac": mac});
        world.create(&format!("vf-{vf}"), spec).await.unwrap();
    }
    assert_eq!(world.until_ready(Duration::from_secs(300)).await.unwrap(), Vec::<String>::new());
    let events: Api<Event> = Api::all(world.client.clone());
    let events = events.list(&Default::default()).await.unwrap().items.into_iter();
    let failed: Vec<_> = events.filter(|event| event.reason.as_deref() == Some("StepFailed")).collect();
    assert!(failed.is_empty(), "{:?}", failed[0].note);
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_reboot_and_a_power_cycle_of_the_host_end_where_they_began() {
    let (world, agent) = small_world().await;
    let identity = |device: VirtnetDevice| {
        let function = device.status.unwrap().function.unwrap();
        (device.metadata.name.unwrap(), function.mac, function.bdf.is_some())
    };
    let before: Vec<_> = world.list().await.unwrap().into_iter().map(identity).collect();
    for outage in ["shutdown", "reboot", "power cycle"] {
        match outage {
            "shutdown" => {
                world.sim.shut_down_host();
                tokio::time::sleep(Duration::from_secs(10)).await;
                let reasons: Vec<_> =
                    world.list().await.unwrap().iter().filter_map(reason).map(|(reason, _)| reason).collect();
                assert_eq!(reasons, ["HostOff"; 3]);
                world.sim.boot_host();
            }
            "reboot" => world.sim.reboot_host(),
            _ => world.sim.power_cycle().await,
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(
            world.until_ready(Duration::from_secs(60)).await.unwrap(),
            Vec::<String>::new(),
            "{outage}"
        );
        let after: Vec<_> = world.list().await.unwrap().into_iter().map(identity).collect();
        assert_eq!(after, before, "{outage}");
    }
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_mac_that_a_device_gives_up_is_had_by_the_one_that_waits_for_it() {
    const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
    // The watch lags, so that the agent learns of its own writes by their answers.
    let world = World::new(1, SimConfig::default(), Faults::new(1, 1, Vec::new())).await.unwrap();
    let agent = tokio::spawn(world.agent());
    for name in ["first", "second"] {
        let spec = json!({"dpu": DPU, "function": {"hotplug": {}}, "mac": MACS[0], "rebindPolicy": "IfIdle"});
        world.create(name, spec).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let state = world.sim.controller().observe().await.unwrap();
    let first = state.functions.values().find(|function| function.mac.to_string() == MACS[0]).unwrap();
    world.sim.unbind(first.bdf.unwrap()).unwrap();
    let edit = kube::api::Patch::Merge(json!({"spec": {"mac": MACS[1]}}));
    world.devices().patch("first", &Default::default(), &edit).await.unwrap();
    assert_eq!(world.until_ready(Duration::from_secs(30)).await.unwrap(), Vec::<String>::new());
    assert_eq!(world.sim.counters().of(Effect::DevicePlug), 2, "each plugged once");
    agent.abort();
}

/// Two devices that declare one static PF, of which the first has it; and a watch that lags behind what is done.
async fn two_for_one_function() -> (World, tokio::task::JoinHandle<()>) {
    let world = World::new(1, SimConfig::default(), Faults::new(1, 1, Vec::new())).await.unwrap();
    let agent = tokio::spawn(world.agent());
    for name in ["first", "second"] {
        world.create(name, json!({"dpu": DPU, "function": {"static": {"pf": 0}}})).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let waiting = world.until_ready(Duration::from_secs(10)).await.unwrap();
    assert!(matches!(&waiting[..], [line] if line.starts_with("second: FunctionClaimed")), "{waiting:?}");
    (world, agent)
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_is_taken_off_once_however_late_the_watch_tells_of_it() {
    let (world, agent) = two_for_one_function().await;
    let before = world.faults.trace().len();
    world.devices().delete("first", &Default::default()).await.unwrap();
    assert_eq!(world.until_ready(Duration::from_secs(30)).await.unwrap(), Vec::<String>::new());
    let trace = world.faults.trace().split_off(before);
    let patches = trace.iter().filter(|line| line.ends_with("/virtnetdevices/first"));
    assert_eq!(patches.count(), 1, "{trace:#?}");
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn what_a_device_had_goes_to_the_one_that_waits_also_when_its_finalizer_was_taken_off_by_force() {
    let (world, agent) = two_for_one_function().await;
    // The agent hears of the end before it could release the object itself.
    world.devices().delete("first", &Default::default()).await.unwrap();
    let force = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world.devices().patch("first", &Default::default(), &force).await.unwrap();
    assert_eq!(world.until_ready(Duration::from_secs(30)).await.unwrap(), Vec::<String>::new());
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_everything_ready_changes_nothing_anywhere() {
    let (world, agent) = small_world().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    agent.abort();
    world.writes.take();
    let before = world.sim.counters().effects;
    let agent = tokio::spawn(world.agent());
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(writes_by_object(world.writes.take()), BTreeMap::new());
    assert_eq!(world.sim.counters().effects, before);
    agent.abort();
}

/// A small declaration, and an agent that dies at these moments: twice the number of an effect, and one more for after it.
async fn killed_at(moments: Vec<u64>) -> (World, u64) {
    let sim =
        SimConfig { firmware: FirmwareConfig::guide_with(ROOM_FOR_ALL).unwrap(), ..SimConfig::default() };
    let world = World::new(1, sim, Faults::new(1, 0, moments)).await.unwrap();
    let port = json!({"bridge": "ovsbr1"});
    for (name, function, mac) in [
        ("hot", json!({"hotplug": {}}), Some("02:00:00:00:00:01")),
        // Its driver is up from the start, so it keeps the controller's MAC.
        ("static", json!({"static": {"pf": 0}}), None),
        ("vf", json!({"vf": {"pf": 0, "vf": 1}}), Some("02:00:00:00:00:03")),
    ] {
        let mut spec = json!({"dpu": DPU, "function": function, "port": port, "rebindPolicy": "IfIdle"});
        if let Some(mac) = mac {
            spec["mac"] = json!(mac);
        }
        world.create(name, spec).await.unwrap();
    }
    set_num_vfs(&world).await;
    let before_edit = async {
        assert_eq!(world.until_ready(Duration::from_secs(200)).await.unwrap(), Vec::<String>::new());
        // An edit of the identity, with no driver in the way, and then the end of one of the three.
        let function = |world: &World| world.sim.controller();
        let state = function(&world).observe().await.unwrap();
        let hot = state
            .functions
            .values()
            .find(|function| function.mac.to_string() == "02:00:00:00:00:01")
            .unwrap();
        world.sim.unbind(hot.bdf.unwrap()).unwrap();
        let edit = kube::api::Patch::Merge(json!({"spec": {"mac": "02:00:00:00:00:0a"}}));
        world.devices().patch("hot", &Default::default(), &edit).await.unwrap();
        world.devices().delete("static", &Default::default()).await.unwrap();
        while world.devices().get_opt("static").await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(world.until_ready(Duration::from_secs(200)).await.unwrap(), Vec::<String>::new());
    };
    tokio::select! {
        biased;
        () = before_edit => {}
        () = world.agents(Duration::from_millis(700)) => {}
    }
    let effects = world.faults.effects();
    (world, effects)
}

#[tokio::test(start_paused = true)]
async fn an_agent_killed_before_or_after_any_effect_makes_exactly_the_wanted_set() {
    let (_, effects) = killed_at(Vec::new()).await;
    assert!(effects > 15, "{effects} effects");
    for moment in 0..2 * effects {
        let (world, _) = killed_at(vec![moment]).await;
        let state = world.sim.controller().observe().await.unwrap();
        let plugged: Vec<_> = state
            .functions
            .values()
            .filter(|function| function.kind == FunctionKind::HotPlug)
            .map(|function| function.mac.to_string())
            .collect();
        assert_eq!(plugged, ["02:00:00:00:00:0a"], "killed at {moment}: {:#?}", world.faults.trace());
        let switch = world.sim.switch().observe().await.unwrap();
        assert_eq!(switch.ports.len(), 2, "killed at {moment}: {:?}", switch.ports.keys());
        assert_eq!(world.sim.counters().of(Effect::DevicePlug), 1, "killed at {moment}: plugged once");
    }
}
