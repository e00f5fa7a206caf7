//! The simulated Open vSwitch, and the trait [`Switch`] over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use virtnet_model::{
    BridgeName, Events, IfName, Owner, PartError, Port, PortSettings, Refusal, Switch, SwitchChange,
    SwitchState, VlanId,
};

use crate::effect::{Effect, Part};
use crate::shared::Shared;
use crate::world::{Action, World};

/// The database, which is on disk, and the numbers that vswitchd gave.
#[derive(Debug)]
pub(crate) struct SwitchWorld {
    running: bool,
    pub(crate) bridges: BTreeSet<BridgeName>,
    pub(crate) ports: BTreeMap<IfName, Port>,
    last_ofport: BTreeMap<BridgeName, i32>,
}

impl SwitchWorld {
    pub(crate) fn new(bridges: BTreeSet<BridgeName>) -> Self {
        Self { running: true, bridges, ports: BTreeMap::new(), last_ofport: BTreeMap::new() }
    }
}

impl World {
    /// vswitchd looks again whether a port's netdev is there.
    pub(crate) fn reattach(&mut self, name: &IfName) {
        if !self.switch.running {
            return;
        }
        let there = self.links.contains_key(name);
        let Some(port) = self.switch.ports.get_mut(name) else { return };
        let why = match port.interface_type.as_str() {
            "internal" => None,
            "" | "system" | "dpdk" => (!there).then_some("No such device"),
            _ => Some("Address family not supported by protocol"),
        };
        let before = (port.ofport, port.error.clone());
        match why {
            Some(why) => {
                port.ofport = Some(-1);
                port.error = Some(format!("could not open network device {name} ({why})"));
            }
            None if port.is_attached() => {}
            None => {
                let last = self.switch.last_ofport.entry(port.bridge.clone()).or_default();
                *last += 1;
                port.ofport = Some(*last);
                port.error = None;
            }
        }
        if before != (port.ofport, port.error.clone()) {
            self.touch(Part::Switch);
        }
    }

    /// vswitchd stops; its database stays.
    pub(crate) fn switch_off(&mut self) {
        self.switch.running = false;
        self.touch(Part::Switch);
    }

    /// A stop and, a while later, a start.
    pub(crate) fn restart_ovs(&mut self) {
        if self.switch.running {
            self.switch_off();
            self.schedule(self.config.timing.ovs_start, Action::OvsStarted);
        }
    }

    /// vswitchd starts and numbers all ports anew.
    pub(crate) fn ovs_started(&mut self) {
        if !self.dpu_up {
            return;
        }
        self.switch.running = true;
        self.switch.last_ofport.clear();
        let names: Vec<_> = self.switch.ports.keys().cloned().collect();
        for name in names {
            if let Some(port) = self.switch.ports.get_mut(&name) {
                port.ofport = None;
                port.error = None;
            }
            self.reattach(&name);
        }
        self.touch(Part::Switch);
    }

    fn switch_answers(&self, doing: &str) -> Result<(), PartError> {
        if self.switch.running {
            return Ok(());
        }
        Err(PartError::unavailable(format!("{doing}: connect to ovsdb-server: Connection refused")))
    }

    fn apply(&mut self, changes: &[SwitchChange]) -> Result<Vec<Result<(), PartError>>, PartError> {
        self.reachable("change ports")?;
        self.switch_answers("change ports")?;
        let results = changes
            .iter()
            .map(|change| match change {
                SwitchChange::AddBridge { name, datapath_type: _ } => self.add_bridge(name),
                SwitchChange::RemovePort { name, owner } => {
                    self.remove_port(name, owner);
                    Ok(())
                }
                SwitchChange::SetPort { name, settings } => self.set_port(name, settings),
            })
            .collect();
        Ok(results)
    }

    fn add_bridge(&mut self, name: &BridgeName) -> Result<(), PartError> {
        if self.switch.ports.keys().any(|port| port.as_str() == name.as_str()) {
            let message = format!("add bridge {name}: a port has this name");
            return Err(PartError::refused(Refusal::PortConflict, message));
        }
        if self.switch.bridges.insert(name.clone()) {
            self.touch(Part::Switch);
        }
        Ok(())
    }

    /// A port that is no longer this owner's is as good as removed.
    fn remove_port(&mut self, name: &IfName, owner: &Owner) {
        if self.switch.ports.get(name).and_then(Port::owner).as_ref() == Some(owner) {
            self.switch.ports.remove(name);
            self.port_changed();
        }
    }

    fn set_port(&mut self, name: &IfName, settings: &PortSettings) -> Result<(), PartError> {
        let doing = format!("set port {name}");
        if !self.switch.bridges.contains(&settings.bridge) {
            return Err(PartError::refused(
                Refusal::BridgeNotFound,
                format!("{doing}: no bridge named {}", settings.bridge),
            ));
        }
        let conflict =
            |why: String| Err(PartError::refused(Refusal::PortConflict, format!("{doing}: {why}")));
        if self.switch.bridges.iter().any(|bridge| bridge.as_str() == name.as_str()) {
            return conflict("it is the local port of a bridge".to_owned());
        }
        let present = self.switch.ports.get(name);
        if let Some(present) = present {
            match present.owner() {
                Some(owner) if owner.dpu == settings.owner.dpu => {}
                Some(owner) => {
                    return conflict(format!("a port of this name on {} is {owner}'s", present.bridge));
                }
                None => return conflict(format!("a port of this name on {} is not ours", present.bridge)),
            }
            if present.matches(settings) {
                return Ok(());
            }
        }
        let foreign_keys = present.map(|port| {
            let ours = port.our_keys();
            let foreign = port.external_ids.iter().filter(|(key, _)| !ours.contains(key.as_str()));
            foreign.map(|(key, value)| (key.clone(), value.clone())).collect::<BTreeMap<_, _>>()
        });
        // On another bridge, or of another type, it is a new port to vswitchd.
        let kept = present
            .filter(|port| port.bridge == settings.bridge && port.interface_type == settings.interface_type);
        let PortSettings { bridge, interface_type, tag, trunks, external_ids: _, owner: _ } = settings;
        let port = Port {
            bridge: bridge.clone(),
            interface_type: interface_type.clone(),
            tag: tag.map(VlanId::get),
            trunks: trunks.iter().map(|trunk| trunk.get()).collect(),
            external_ids: {
                let mut ids = foreign_keys.unwrap_or_default();
                ids.extend(settings.marked_external_ids());
                ids
            },
            ofport: kept.and_then(|port| port.ofport),
            error: kept.and_then(|port| port.error.clone()),
        };
        self.switch.ports.insert(name.clone(), port);
        self.port_changed();
        self.reattach(name);
        Ok(())
    }

    fn port_changed(&mut self) {
        self.counters.port_changes += 1;
        self.touch(Part::Switch);
    }

    /// Makes or replaces a port behind everybody's back.
    pub(crate) fn put_port(&mut self, name: &IfName, port: Port) {
        self.switch.ports.insert(name.clone(), port);
        self.touch(Part::Switch);
        self.reattach(name);
    }

    /// Takes a port away behind everybody's back.
    pub(crate) fn delete_port(&mut self, name: &IfName) -> bool {
        let there = self.switch.ports.remove(name).is_some();
        self.touch(Part::Switch);
        there
    }

    /// Takes a bridge away with its ports.
    pub(crate) fn delete_bridge(&mut self, bridge: &BridgeName) {
        self.switch.bridges.remove(bridge);
        self.switch.ports.retain(|_, port| port.bridge != *bridge);
        self.touch(Part::Switch);
    }
}

/// Open vSwitch of the simulated DPU.
#[derive(Debug)]
pub(crate) struct SimSwitch(pub(crate) Arc<Shared>);

#[async_trait]
impl Switch for SimSwitch {
    async fn observe(&self) -> Result<SwitchState, PartError> {
        self.0.observe(Part::Switch, |world| {
            world.switch_answers("observe ports")?;
            Ok(SwitchState { bridges: world.switch.bridges.clone(), ports: world.switch.ports.clone() })
        })
    }

    async fn apply(&self, changes: &[SwitchChange]) -> Result<Vec<Result<(), PartError>>, PartError> {
        self.0.perform(Effect::SwitchApply, |world| world.apply(changes)).await
    }

    fn events(&self) -> Events {
        self.0.events(Part::Switch)
    }
}
