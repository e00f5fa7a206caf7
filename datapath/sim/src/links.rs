//! The simulated DPU's netdevs, and the trait [`Links`] over them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tracing::error;
use virtnet_controller::SfKey;
use virtnet_model::{
    EswitchPort, Events, IfName, Link, LinkChange, Links, Mtu, PartError, Refusal, SubFunction, Uplink,
};

use crate::effect::{Effect, Part};
use crate::shared::Shared;
use crate::world::{Action, World};

/// A name that is known to be short enough.
fn name(text: &str) -> IfName {
    text.parse().unwrap_or_else(|_| unreachable!("1 to 15 letters and digits: {text}"))
}

/// The netdev of a physical port, or of the bond.
pub(crate) fn uplink_netdev(uplink: Uplink) -> IfName {
    name(match uplink {
        Uplink::P0 => "p0",
        Uplink::P1 => "p1",
        Uplink::Bond => "bond0",
    })
}

impl World {
    /// `phys_switch_id`: that of the whole embedded switch, made of the device's own address.
    fn switch_id(&self) -> String {
        self.config.base_mac.to_string().replace(':', "")
    }

    /// The physical ports, and the bond over them. They are not representors.
    pub(crate) fn add_uplink_netdevs(&mut self) {
        let mtus = self.device.uplink_mtus.clone();
        for (uplink, mtu) in mtus {
            let netdev = uplink_netdev(uplink);
            let phys_port_name = (uplink != Uplink::Bond).then(|| netdev.to_string());
            let phys_switch_id = phys_port_name.as_ref().map(|_| self.switch_id());
            let link = Link { phys_port_name, phys_switch_id, up: true, mtu, ..Link::default() };
            self.links.insert(netdev, link);
        }
    }

    /// The representor of an SF appears, down and with the default MTU.
    pub(crate) fn netdev_appears(&mut self, key: SfKey) {
        let Some(lasting) = self.device.sfs.get(&key).map(|sf| sf.representor.clone()) else { return };
        if self.netdevs.contains_key(&key) {
            return;
        }
        let first = if self.config.udev_renames { self.temporary_name() } else { lasting };
        if let Some(real) = &self.real_netdevs
            && let Err(error) = real.appear(&first)
        {
            error!(netdev = %first, %error, "the representor could not be made");
            return;
        }
        let SfKey { port, number } = key;
        let link = Link {
            phys_port_name: Some(format!("pf{}sf{number}", port.index())),
            phys_switch_id: Some(self.switch_id()),
            up: false,
            mtu: u32::from(Mtu::DEFAULT.get()),
            ..Link::default()
        };
        self.links.insert(first.clone(), link);
        self.netdevs.insert(key, first.clone());
        if self.config.udev_renames {
            self.schedule(self.config.timing.udev, Action::NetdevRenamed(key));
        }
        self.reattach(&first);
        self.touch(Part::Links);
    }

    fn temporary_name(&self) -> IfName {
        (0u32..)
            .map(|index| name(&format!("eth{index}")))
            .find(|name| !self.links.contains_key(name))
            .unwrap_or_else(|| unreachable!("fewer netdevs than numbers"))
    }

    pub(crate) fn netdev_renamed(&mut self, key: SfKey) {
        let Some(lasting) = self.device.sfs.get(&key).map(|sf| sf.representor.clone()) else { return };
        let Some(present) = self.netdevs.get(&key).cloned() else { return };
        // udev leaves an interface alone that is up.
        let movable = self.links.get(&present).is_some_and(|link| !link.up);
        if present == lasting || !movable {
            return;
        }
        if let Some(link) = self.links.remove(&present) {
            self.links.insert(lasting.clone(), link);
            self.netdevs.insert(key, lasting.clone());
        }
        self.reattach(&present);
        self.reattach(&lasting);
        self.touch(Part::Links);
    }

    pub(crate) fn netdev_vanishes(&mut self, key: SfKey) {
        if let Some(present) = self.netdevs.remove(&key) {
            self.links.remove(&present);
            if let Some(real) = &self.real_netdevs {
                real.vanish(&present);
            }
            self.reattach(&present);
            self.touch(Part::Links);
        }
    }

    /// Changes a netdev behind everybody's back.
    pub(crate) fn edit_link(&mut self, name: &IfName, edit: impl FnOnce(&mut Link)) -> bool {
        let Some(link) = self.links.get_mut(name) else { return false };
        edit(link);
        self.touch(Part::Links);
        true
    }

    fn set_link(&mut self, representor: &SubFunction, change: LinkChange) -> Result<(), PartError> {
        let SubFunction { representor: name, .. } = representor;
        let doing = format!("set {change} on {name}");
        self.reachable(&doing)?;
        let refused = |why: String| PartError::refused(Refusal::NoSuchLink, format!("{doing}: {why}"));
        let Some(link) = self.links.get_mut(name) else {
            return Err(refused("No such device".to_owned()));
        };
        if !link.represents(representor) {
            return Err(refused(link.mismatch(representor)));
        }
        let LinkChange { up, mtu } = change;
        let before = link.clone();
        link.up = up.unwrap_or(link.up);
        link.mtu = mtu.map_or(link.mtu, |mtu| u32::from(mtu.get()));
        if *link != before {
            self.touch(Part::Links);
        }
        Ok(())
    }

    /// Whether a function's link is up as its driver sees it: the controller mirrors its representor's admin state.
    pub(crate) fn carrier(&self, port: EswitchPort, sf: &SubFunction) -> bool {
        let key = SfKey { port, number: sf.number };
        let link = self.netdevs.get(&key).and_then(|name| self.links.get(name));
        link.is_some_and(|link| link.up)
    }
}

/// rtnetlink of the simulated DPU.
#[derive(Debug)]
pub(crate) struct SimLinks(pub(crate) Arc<Shared>);

#[async_trait]
impl Links for SimLinks {
    async fn observe(&self) -> Result<BTreeMap<IfName, Link>, PartError> {
        self.0.observe(Part::Links, |world| Ok(world.links.clone()))
    }

    async fn set(&self, representor: &SubFunction, change: LinkChange) -> Result<(), PartError> {
        self.0.perform(Effect::LinkSet, |world| world.set_link(representor, change)).await
    }

    fn events(&self) -> Events {
        self.0.events(Part::Links)
    }
}
