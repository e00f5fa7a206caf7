//! Open vSwitch behind its database, while its daemons come and go and others write too.

use std::time::Duration;

use futures::StreamExt;
use virtnet_local_switch::{DATABASE, OpenVSwitch, SWITCH};
use virtnet_model::{ErrorKind, Netdevs, Port, Switch, SwitchState};
use virtnet_netlink::Taps;
use virtnet_ovsdb::OvsSwitch;
use virtnet_tests::open_vswitch;
use virtnet_tests::ovsdb_wire::{Wire, transactions};

use crate::contract::{THERE, remove, set, settings};

const LIMIT: Duration = Duration::from_secs(60);

struct Rig {
    ovs: OpenVSwitch,
    taps: Taps,
    switch: OvsSwitch,
}

impl Rig {
    fn new() -> Self {
        let ovs = open_vswitch::start().unwrap();
        let taps = Taps::new(Some(ovs.namespace()));
        let switch = OvsSwitch::connect(ovs.address());
        Self { ovs, taps, switch }
    }

    /// Waits by events alone.
    async fn until(&self, holds: impl Fn(&SwitchState) -> bool) -> SwitchState {
        let mut events = self.switch.events();
        let wait = async {
            loop {
                if let Ok(state) = self.switch.observe().await
                    && holds(&state)
                {
                    return state;
                }
                events.next().await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap()
    }
}

fn port<'s>(state: &'s SwitchState, name: &str) -> Option<&'s Port> {
    state.ports.get(&name.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_is_away_is_unavailable_and_then_back() {
    let mut rig = Rig::new();
    rig.taps.appear(&THERE.parse().unwrap()).unwrap();
    rig.until(|state| state.bridges.len() == 2).await;
    let web = settings("ovsbr1", "web-0");
    rig.switch.apply(&[set(THERE, &web)]).await.unwrap();
    let before = rig.until(|state| port(state, THERE).is_some_and(Port::is_attached)).await;

    let mut events = rig.switch.events();
    rig.ovs.kill(DATABASE).unwrap();
    events.next().await.unwrap();
    for error in [rig.switch.observe().await.err(), rig.switch.apply(&[]).await.err()] {
        let error = error.unwrap();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        let socket = rig.ovs.address().to_string();
        assert!(error.to_string().contains(&socket), "{error}");
    }
    rig.ovs.start_database().unwrap();
    let after = rig.until(|state| port(state, THERE).is_some_and(Port::is_attached)).await;
    assert_eq!(before, after);

    // A database without anything in it, and then with a bridge again.
    rig.ovs.kill(DATABASE).unwrap();
    rig.ovs.make_database().unwrap();
    rig.ovs.start_database().unwrap();
    rig.until(|state| state.bridges.is_empty()).await;
    rig.ovs.vsctl(&["add-br", "ovsbr1", "--", "set", "bridge", "ovsbr1", "datapath_type=netdev"]).unwrap();
    rig.until(|state| !state.bridges.is_empty()).await;
    assert!(rig.switch.apply(&[set(THERE, &web)]).await.unwrap()[0].is_ok());
    rig.until(|state| port(state, THERE).is_some_and(Port::is_attached)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_waits_for_the_switch_to_act_on_it() {
    let mut rig = Rig::new();
    rig.taps.appear(&THERE.parse().unwrap()).unwrap();
    rig.until(|state| state.bridges.len() == 2).await;
    rig.ovs.kill(SWITCH).unwrap();
    let web = settings("ovsbr1", "web-0");
    let changes = [set(THERE, &web)];
    let mut apply = rig.switch.apply(&changes);
    let early = tokio::time::timeout(Duration::from_secs(1), &mut apply).await;
    assert!(early.is_err(), "nobody has acted on it");
    rig.ovs.start_switch().unwrap();
    assert!(tokio::time::timeout(LIMIT, apply).await.unwrap().unwrap()[0].is_ok());
    assert!(port(&rig.switch.observe().await.unwrap(), THERE).unwrap().is_attached());
}

/// The server would end the connection over it, and with it what was to be done for everybody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_server_could_not_read_stops_no_other() {
    let rig = Rig::new();
    rig.taps.appear(&THERE.parse().unwrap()).unwrap();
    rig.until(|state| state.bridges.len() == 2).await;
    let web = settings("ovsbr1", "web-0");
    let mut nul = settings("ovsbr1", "web-1");
    nul.external_ids.insert("iface-id".into(), "a\0".into());
    let results = rig.switch.apply(&[set("en3f0pf0sf2000", &nul), set(THERE, &web)]).await.unwrap();
    let error = results[0].as_ref().unwrap_err().to_string();
    assert_eq!(error, "set port en3f0pf0sf2000: \"a\\0\" has a NUL, which OVSDB has no place for");
    assert!(results[1].is_ok());
    let state = rig.until(|state| port(state, THERE).is_some_and(Port::is_attached)).await;
    assert_eq!(port(&state, "en3f0pf0sf2000"), None);
}

/// Others write to the database all the while, to the very rows that are changed: nobody's key is lost, and no transaction
/// fails for it.
#[tokio::test(flavor = "multi_thread")]
async fn others_write_at_the_same_time() {
    let rig = Rig::new();
    rig.until(|state| state.bridges.len() == 2).await;
    let names: Vec<_> = (0..20).map(|number| format!("en3f0pf0sf{}", 3000 + number)).collect();
    for name in &names {
        rig.taps.appear(&name.parse().unwrap()).unwrap();
    }
    for round in 0u16..10 {
        let mut web = settings(if round % 2 == 0 { "ovsbr1" } else { "ovsbr2" }, "web-0");
        web.external_ids.insert("round".into(), round.to_string());
        let changes: Vec<_> = names.iter().map(|name| set(name, &web)).collect();
        let others = async {
            for name in names.iter().take(5) {
                let key = format!("external_ids:other{round}={round}");
                let veth = format!("veth{round}-{}", &name[name.len() - 2..]);
                let _ = rig.ovs.vsctl(&["--if-exists", "set", "interface", name, &key]);
                rig.ovs
                    .vsctl(&["add-port", "ovsbr1", &veth, "--", "set", "interface", &veth, "type=internal"])
                    .unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (results, ()) = tokio::join!(rig.switch.apply(&changes), others);
        assert!(results.unwrap().iter().all(Result::is_ok));
        let state = rig
            .until(|state| names.iter().all(|name| port(state, name).is_some_and(|port| port.matches(&web))))
            .await;
        assert!(names.iter().all(|name| port(&state, name).is_some_and(Port::is_attached)));
    }
    let state = rig.switch.observe().await.unwrap();
    let keys =
        port(&state, &names[0]).unwrap().external_ids.keys().filter(|key| key.starts_with("other")).count();
    assert!(keys >= 9, "{keys} of nine keys of others are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_ports_are_one_transaction() {
    let rig = Rig::new();
    let wire = Wire::listen(&rig.ovs.folder().join("wire.sock"), &rig.ovs.socket()).unwrap();
    let switch = OvsSwitch::connect(wire.address());
    let mut events = switch.events();
    while switch.observe().await.is_err() {
        events.next().await.unwrap();
    }
    let names: Vec<_> = (0..500).map(|number| format!("en3f0pf0sf{}", 3000 + number)).collect();
    for name in &names {
        rig.taps.appear(&name.parse().unwrap()).unwrap();
    }
    let before = rig.ovs.configuration().unwrap();
    wire.take();
    let web = settings("ovsbr1", "web-0");
    let changes: Vec<_> = names.iter().map(|name| set(name, &web)).collect();
    assert!(switch.apply(&changes).await.unwrap().iter().all(Result::is_ok));
    let state = switch.observe().await.unwrap();
    assert!(names.iter().all(|name| port(&state, name).is_some_and(Port::is_attached)));
    let changes: Vec<_> = names.iter().map(|name| remove(name, &web)).collect();
    assert!(switch.apply(&changes).await.unwrap().iter().all(Result::is_ok));
    assert_eq!(transactions(&wire.take()).count, 2);
    assert_eq!(rig.ovs.configuration().unwrap(), before);
}
