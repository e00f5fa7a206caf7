//! Open vSwitch and netdevs: whose ports are touched, when they attach, what a transaction answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use virtnet_model::{
    ErrorKind, LinkChange, Mtu, Owner, Port, PortSettings, Refusal, SubFunction, SwitchChange, SwitchState,
};
use virtnet_sim::{Effect, Sim};

use crate::common::{config, request, rest, rested};

fn owner(device: &str) -> Owner {
    Owner { dpu: "dpu-0".into(), device: format!("default/{device}"), uid: format!("uid-of-{device}") }
}

fn settings(bridge: &str, device: &str) -> PortSettings {
    PortSettings {
        bridge: bridge.parse().unwrap(),
        interface_type: String::new(),
        tag: None,
        trunks: BTreeSet::new(),
        external_ids: BTreeMap::new(),
        owner: owner(device),
    }
}

fn set(name: &str, settings: PortSettings) -> SwitchChange {
    SwitchChange::SetPort { name: name.parse().unwrap(), settings }
}

fn remove(name: &str, device: &str) -> SwitchChange {
    SwitchChange::RemovePort { name: name.parse().unwrap(), owner: owner(device) }
}

fn foreign(bridge: &str) -> Port {
    Port {
        bridge: bridge.parse().unwrap(),
        interface_type: "internal".into(),
        tag: Some(7),
        trunks: BTreeSet::new(),
        external_ids: [("iface-id".to_owned(), "x".to_owned())].into(),
        ofport: None,
        error: None,
    }
}

async fn ports(sim: &Sim) -> SwitchState {
    sim.switch().observe().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_database_full_of_others_ports_is_as_it_was_after_ours_came_and_went() {
    let sim = rested(&[]).await;
    let other_dpu = settings("ovsbr1", "theirs");
    let other_dpu = Port {
        external_ids: PortSettings { owner: Owner { dpu: "dpu-1".into(), ..owner("theirs") }, ..other_dpu }
            .marked_external_ids(),
        ..foreign("ovsbr1")
    };
    for index in 0..50 {
        sim.put_port(&format!("veth{index}").parse().unwrap(), foreign("ovsbr1"));
    }
    sim.put_port(&"en3f0pf0sf2900".parse().unwrap(), other_dpu);
    let before = ports(&sim).await;
    let changes = [
        set("en3f0pf0sf1000", settings("ovsbr1", "web-0")),
        set("veth1", settings("ovsbr2", "web-1")),
        set("en3f0pf0sf2900", settings("ovsbr1", "web-2")),
        set("ovsbr2", settings("ovsbr1", "web-3")),
        set("en3f0pf0sf1001", settings("ovsbr9", "web-4")),
        remove("veth2", "web-5"),
        remove("en3f0pf0sf2900", "theirs"),
    ];
    let answers = sim.switch().apply(&changes).await.unwrap();
    let refusals: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().err().and_then(virtnet_model::PartError::refusal))
        .collect();
    let conflict = Some(Refusal::PortConflict);
    assert_eq!(
        refusals,
        [None, conflict, conflict, conflict, Some(Refusal::BridgeNotFound), None, None],
        "{answers:?}"
    );
    assert_eq!(sim.counters().port_changes, 1);
    assert!(ports(&sim).await.ports[&"en3f0pf0sf1000".parse().unwrap()].is_attached());
    sim.switch().apply(&[remove("en3f0pf0sf1000", "web-0")]).await.unwrap();
    assert_eq!(ports(&sim).await, before);
    assert_eq!(sim.counters().of(Effect::SwitchApply), 2);
}

#[tokio::test(start_paused = true)]
async fn a_port_is_brought_to_its_settings_and_keeps_others_keys() {
    let sim = rested(&[]).await;
    let name = "en3f0pf0sf1000".parse().unwrap();
    let mut wanted = settings("ovsbr1", "web-0");
    wanted.external_ids.insert("zone".into(), "a".into());
    sim.switch().apply(&[set("en3f0pf0sf1000", wanted.clone())]).await.unwrap();
    let first = ports(&sim).await.ports[&name].clone();
    sim.edit_port(&name, |port| {
        port.external_ids.insert("ovn-installed".into(), "true".into());
        port.tag = Some(9);
    });
    assert!(!ports(&sim).await.ports[&name].matches(&wanted));
    wanted.external_ids.clear();
    sim.switch().apply(&[set("en3f0pf0sf1000", wanted.clone())]).await.unwrap();
    let port = ports(&sim).await.ports[&name].clone();
    assert!(port.matches(&wanted));
    assert_eq!(port.external_ids["ovn-installed"], "true");
    assert!(!port.external_ids.contains_key("zone"), "dropped by its owner");
    assert_eq!(port.ofport, first.ofport, "not attached anew");
    let changes = sim.counters().port_changes;
    sim.switch().apply(&[set("en3f0pf0sf1000", wanted.clone())]).await.unwrap();
    assert_eq!(sim.counters().port_changes, changes, "nothing was left to change");
    wanted.bridge = "ovsbr2".parse().unwrap();
    sim.switch().apply(&[set("en3f0pf0sf1000", wanted)]).await.unwrap();
    assert!(ports(&sim).await.ports[&name].is_attached());
}

#[tokio::test(start_paused = true)]
async fn a_port_attaches_when_its_netdev_is_there_and_again_when_it_comes_back() {
    let sim = rested(&[]).await;
    let name = "en3f0pf0sf2000".parse().unwrap();
    let answers = sim.switch().apply(&[set("en3f0pf0sf2000", settings("ovsbr1", "web-0"))]).await.unwrap();
    assert!(answers[0].is_ok());
    let port = ports(&sim).await.ports[&name].clone();
    assert_eq!(port.ofport, Some(-1));
    assert_eq!(port.error.as_deref(), Some("could not open network device en3f0pf0sf2000 (No such device)"));
    let mut last = 0;
    for _ in 0..2 {
        let made = sim.controller().hotplug(&request(0)).await.unwrap();
        sim.wait_for_port(&name, Duration::from_secs(1)).await.unwrap();
        let ofport = ports(&sim).await.ports[&name].ofport.unwrap();
        assert!(ofport > last, "a new attachment has a new number");
        last = ofport;
        sim.controller().unplug(&made.target().unwrap()).await.unwrap();
        assert_eq!(ports(&sim).await.ports[&name].ofport, Some(-1));
    }
    let late = sim.wait_for_port(&name, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(late.message, "wait for port en3f0pf0sf2000");
}

#[tokio::test(start_paused = true)]
async fn a_representor_under_its_temporary_name_is_not_yet_the_ports() {
    let mut config = config(&[]);
    config.udev_renames = true;
    config.timing.udev = Duration::from_secs(1);
    let sim = Sim::new(config);
    rest().await;
    let made = sim.controller().hotplug(&request(0)).await.unwrap().sf.unwrap();
    sim.switch().apply(&[set("en3f0pf0sf2000", settings("ovsbr1", "web-0"))]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let links = sim.links().observe().await.unwrap();
    assert!(links[&"eth0".parse().unwrap()].represents(&made));
    let up = LinkChange { up: Some(true), mtu: None };
    assert_eq!(sim.links().set(&made, up).await.unwrap_err().refusal(), Some(Refusal::NoSuchLink));
    let temporary = SubFunction { representor: "eth0".parse().unwrap(), ..made.clone() };
    assert!(links.get(&temporary.representor).is_some_and(|link| link.represents(&temporary)));
    sim.wait_for_port(&made.representor, Duration::from_secs(2)).await.unwrap();
    sim.links().set(&made, up).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn representors_come_up_down_and_are_set_only_where_they_are_what_their_name_says() {
    let sim = rested(&[]).await;
    let made = sim.controller().hotplug(&request(0)).await.unwrap().sf.unwrap();
    rest().await;
    let link = |sim: Sim, sf: SubFunction| async move {
        sim.links().observe().await.unwrap()[&sf.representor].clone()
    };
    let fresh = link(sim.clone(), made.clone()).await;
    assert_eq!((fresh.up, fresh.mtu), (false, 1500));
    assert_eq!(fresh.phys_port_name.as_deref(), Some("pf0sf2000"));
    assert!(!sim.carrier(&made));
    let change = LinkChange { up: Some(true), mtu: Some(Mtu::MAX) };
    sim.links().set(&made, change).await.unwrap();
    let now = link(sim.clone(), made.clone()).await;
    assert_eq!((now.up, now.mtu), (true, 9978));
    assert!(sim.carrier(&made), "the function's link follows");
    let state = crate::common::state(&sim).await;
    assert_eq!(state.functions.values().last().unwrap().mtu, Mtu::DEFAULT, "its MTU is its own");
    sim.edit_link(&made.representor, |link| link.phys_port_name = Some("pf0sf2001".into()));
    let error = sim.links().set(&made, change).await.unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::NoSuchLink));
    assert!(error.message.contains("its phys_port_name is pf0sf2001"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_open_vswitch_is_felt_told_and_renumbers() {
    let sim = rested(&[]).await;
    let names = ["en3f0pf0sf1001", "en3f0pf0sf1000"];
    for name in names {
        sim.switch().apply(&[set(name, settings("ovsbr1", name))]).await.unwrap();
    }
    let number = |state: &SwitchState, name: &str| state.ports[&name.parse().unwrap()].ofport.unwrap();
    let state = ports(&sim).await;
    assert_eq!(names.map(|name| number(&state, name)), [1, 2]);
    let mut events = sim.switch().events();
    sim.restart_ovs();
    events.next().await.unwrap();
    assert_eq!(sim.switch().observe().await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(sim.switch().apply(&[]).await.unwrap_err().kind, ErrorKind::Unavailable);
    events.next().await.unwrap();
    let state = ports(&sim).await;
    assert_eq!(names.map(|name| number(&state, name)), [2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_power_cycle_leaves_ports_in_the_database_without_their_netdevs() {
    let sim = rested(&[]).await;
    sim.controller().hotplug(&request(0)).await.unwrap();
    rest().await;
    sim.switch().apply(&[set("en3f0pf0sf2000", settings("ovsbr1", "web-0"))]).await.unwrap();
    sim.power_cycle().await;
    rest().await;
    assert_eq!(ports(&sim).await.ports[&"en3f0pf0sf2000".parse().unwrap()].ofport, Some(-1));
}

#[tokio::test(start_paused = true)]
async fn bridges_come_and_go_with_their_ports() {
    let sim = rested(&[]).await;
    let bridges: Vec<_> = ports(&sim).await.bridges.into_iter().map(|bridge| bridge.to_string()).collect();
    assert_eq!(bridges, ["ovsbr1", "ovsbr2"]);
    sim.switch().apply(&[set("en3f0pf0sf1000", settings("ovsbr1", "web-0"))]).await.unwrap();
    sim.delete_bridge(&"ovsbr1".parse().unwrap());
    assert!(ports(&sim).await.ports.is_empty());
    sim.add_bridge("ovsbr3".parse().unwrap());
    let answers = sim.switch().apply(&[set("en3f0pf0sf1000", settings("ovsbr3", "web-0"))]).await.unwrap();
    assert!(answers[0].is_ok());
}
