//! The same changes put to the simulated switch and to the real one: both answer the same and end in the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use virtnet_local_switch::OpenVSwitch;
use virtnet_model::{
    Netdevs, Owner, PartError, Port, PortSettings, Switch, SwitchChange, SwitchState, VlanId,
};
use virtnet_netlink::Taps;
use virtnet_ovsdb::OvsSwitch;
use virtnet_sim::{FirmwareConfig, Sim, SimConfig};
use virtnet_tests::open_vswitch;

/// The representor of a netdev that is there.
pub(crate) const THERE: &str = "en3f0pf0sf1000";
/// The name of one that is not.
const ABSENT: &str = "en3f0pf0sf2000";

pub(crate) fn settings(bridge: &str, device: &str) -> PortSettings {
    PortSettings {
        bridge: bridge.parse().unwrap(),
        interface_type: String::new(),
        tag: None,
        trunks: BTreeSet::new(),
        external_ids: BTreeMap::new(),
        owner: Owner {
            dpu: "dpu-0".into(),
            device: format!("default/{device}"),
            uid: format!("uid-of-{device}"),
        },
    }
}

pub(crate) fn set(name: &str, settings: &PortSettings) -> SwitchChange {
    SwitchChange::SetPort { name: name.parse().unwrap(), settings: settings.clone() }
}

pub(crate) fn remove(name: &str, settings: &PortSettings) -> SwitchChange {
    SwitchChange::RemovePort { name: name.parse().unwrap(), owner: settings.owner.clone() }
}

/// What others do to a switch.
trait Levers {
    fn add_foreign(&self, bridge: &str, name: &str, key: &str, value: &str);
    fn set_tag(&self, name: &str, tag: u16);
    fn set_key(&self, name: &str, key: &str, value: &str);
    fn delete(&self, name: &str);
}

impl Levers for Sim {
    fn add_foreign(&self, bridge: &str, name: &str, key: &str, value: &str) {
        let port = Port {
            bridge: bridge.parse().unwrap(),
            interface_type: "internal".into(),
            tag: None,
            trunks: BTreeSet::new(),
            external_ids: [(key.to_owned(), value.to_owned())].into(),
            ofport: None,
            error: None,
        };
        self.put_port(&name.parse().unwrap(), port);
    }

    fn set_tag(&self, name: &str, tag: u16) {
        self.edit_port(&name.parse().unwrap(), |port| port.tag = Some(tag));
    }

    fn set_key(&self, name: &str, key: &str, value: &str) {
        self.edit_port(&name.parse().unwrap(), |port| {
            port.external_ids.insert(key.into(), value.into());
        });
    }

    fn delete(&self, name: &str) {
        self.delete_port(&name.parse().unwrap());
    }
}

impl Levers for OpenVSwitch {
    fn add_foreign(&self, bridge: &str, name: &str, key: &str, value: &str) {
        let ids = format!("external_ids:{key}={value}");
        self.vsctl(&["add-port", bridge, name, "--", "set", "interface", name, "type=internal", &ids])
            .unwrap();
    }

    fn set_tag(&self, name: &str, tag: u16) {
        self.vsctl(&["set", "port", name, &format!("tag={tag}")]).unwrap();
    }

    fn set_key(&self, name: &str, key: &str, value: &str) {
        self.vsctl(&["set", "interface", name, &format!("external_ids:{key}={value}")]).unwrap();
    }

    fn delete(&self, name: &str) {
        self.vsctl(&["del-port", name]).unwrap();
    }
}

/// What can be compared: numbers are the switch's own, and a bridge's local port is no port to the simulation.
fn comparable(state: &SwitchState) -> Vec<String> {
    let locals: BTreeSet<_> = state.bridges.iter().map(|bridge| bridge.as_str().to_owned()).collect();
    let ports = state.ports.iter().filter(|(name, _)| !locals.contains(name.as_str()));
    ports
        .map(|(name, port)| {
            let attached = port.is_attached();
            format!("{name}: {:?}, attached {attached}", Port { ofport: None, ..port.clone() })
        })
        .collect()
}

fn said(results: Result<Vec<Result<(), PartError>>, PartError>) -> Vec<String> {
    results
        .unwrap()
        .into_iter()
        .map(|result| format!("{:?}", result.map_err(|error| error.to_string())))
        .collect()
}

/// Waits until the switch has taken in what was done behind its back, and tells its state.
async fn state(switch: &dyn Switch, holds: impl Fn(&SwitchState) -> bool) -> Vec<String> {
    for _ in 0..600 {
        let state = switch.observe().await.unwrap();
        if holds(&state) {
            return comparable(&state);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{:#?}", comparable(&switch.observe().await.unwrap()))
}

fn port<'s>(state: &'s SwitchState, name: &str) -> Option<&'s Port> {
    state.ports.get(&name.parse().unwrap())
}

async fn scenario(switch: &dyn Switch, levers: &(impl Levers + Sync)) -> Vec<Vec<String>> {
    let mut story = Vec::new();
    let web = settings("ovsbr1", "web-0");
    levers.add_foreign("ovsbr1", "foreign0", "iface-id", "x");
    levers.add_foreign("ovsbr2", "foreign1", "virtnet-dpu", "another");
    story.push(state(switch, |state| port(state, "foreign1").is_some()).await);
    // One that can't be made stops none of the others.
    let changes = [
        set(THERE, &web),
        set(ABSENT, &settings("ovsbr2", "web-1")),
        set("foreign0", &settings("ovsbr2", "web-2")),
        set("foreign1", &settings("ovsbr2", "web-2")),
        set("ovsbr2", &settings("ovsbr1", "web-3")),
        set("en3f0pf0sf1001", &settings("ovsbr9", "web-4")),
        remove("foreign0", &settings("ovsbr1", "web-5")),
    ];
    story.push(said(switch.apply(&changes).await));
    story.push(state(switch, |state| port(state, ABSENT).is_some_and(|port| port.error.is_some())).await);
    // Again: nothing to do.
    story.push(said(switch.apply(&changes[..2]).await));
    // Other VLANs and keys, and foreign keys that stay.
    let mut wanted = web.clone();
    wanted.tag = VlanId::try_from(100).ok();
    wanted.external_ids =
        [("iface-id", "a"), ("zone", "b")].map(|(key, value)| (key.into(), value.into())).into();
    story.push(said(switch.apply(&[set(THERE, &wanted)]).await));
    levers.set_key(THERE, "ovn-installed", "true");
    levers.set_tag(THERE, 0);
    story.push(state(switch, |state| port(state, THERE).is_some_and(|port| port.tag == Some(0))).await);
    wanted.tag = None;
    wanted.trunks = [10, 20].into_iter().filter_map(|vlan| VlanId::try_from(vlan).ok()).collect();
    wanted.external_ids.remove("zone");
    wanted.external_ids.insert("iface-id".into(), "c".into());
    story.push(said(switch.apply(&[set(THERE, &wanted)]).await));
    story.push(state(switch, |state| port(state, THERE).is_some_and(|port| port.trunks.len() == 2)).await);
    // A foreign key that the user now sets is taken on.
    wanted.external_ids.insert("ovn-installed".into(), "false".into());
    story.push(said(switch.apply(&[set(THERE, &wanted)]).await));
    // To another bridge, in one transaction with the end of another port.
    wanted.bridge = "ovsbr2".parse().unwrap();
    let changes = [remove(ABSENT, &settings("ovsbr2", "web-1")), set(THERE, &wanted)];
    story.push(said(switch.apply(&changes).await));
    story.push(state(switch, |state| port(state, THERE).is_some_and(Port::is_attached)).await);
    // Another device takes the name over while it goes.
    let changes = [remove(THERE, &wanted), set(THERE, &settings("ovsbr1", "web-9"))];
    story.push(said(switch.apply(&changes).await));
    story.push(state(switch, |state| port(state, THERE).is_some_and(Port::is_attached)).await);
    // A bridge that is there stays as it is, one that is not is made, and has ports from then on.
    let add =
        |name: &str| SwitchChange::AddBridge { name: name.parse().unwrap(), datapath_type: "netdev".into() };
    story.push(said(switch.apply(&[add("ovsbr1"), add("ovsbr7"), add("foreign0")]).await));
    let moved = settings("ovsbr7", "web-9");
    story.push(said(switch.apply(&[set(THERE, &moved)]).await));
    story.push(
        state(switch, |state| {
            port(state, THERE).is_some_and(|port| port.bridge.as_str() == "ovsbr7" && port.is_attached())
        })
        .await,
    );
    levers.delete(THERE);
    story.push(state(switch, |state| port(state, THERE).is_none()).await);
    // As good as removed.
    story.push(said(switch.apply(&[remove(THERE, &settings("ovsbr1", "web-9"))]).await));
    story
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_switch_and_the_simulated_one_answer_the_same() {
    let firmware = FirmwareConfig::guide_with("VIRTIO_NET_EMULATION_NUM_PF=1").unwrap();
    let sim = Sim::new(SimConfig { firmware, ..SimConfig::default() });
    // The representor is there once the controller has given its static PF an SF.
    let links = sim.links();
    let mut events = links.events();
    while !links.observe().await.unwrap().contains_key(&THERE.parse().unwrap()) {
        events.next().await.unwrap();
    }
    let simulated = scenario(&*sim.switch(), &sim).await;

    let ovs = open_vswitch::start().unwrap();
    let taps = Taps::new(Some(ovs.namespace()));
    taps.appear(&THERE.parse().unwrap()).unwrap();
    let switch = OvsSwitch::connect(ovs.address());
    let mut events = switch.events();
    while switch.observe().await.is_err() {
        events.next().await.unwrap();
    }
    let real = scenario(&switch, &ovs).await;
    assert_eq!(real.len(), simulated.len());
    for (step, (real, simulated)) in real.iter().zip(&simulated).enumerate() {
        assert_eq!(real, simulated, "step {step}");
    }
}
