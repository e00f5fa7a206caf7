//! What the seeded simulation holds the agent to, reckoned without its planner: from what people asked for and what the
//! simulated DPU has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kube::ResourceExt;
use tokio::time::Instant;
use virtnet_agent::{Uid, derived_mac};
use virtnet_crds::VirtnetDevice;
use virtnet_model::{ControllerState, Function, FunctionKind, IfName, Mac, SwitchState};

use crate::world::{DPU, World, reason};

/// How long the API may say Ready of what is not: a second that it has to last, and the time to see and to write it.
const GRACE: Duration = Duration::from_secs(3);

/// How often the API is read.
const LOOK: Duration = Duration::from_secs(2);

/// What is remembered of the devices.
#[derive(Debug, Default)]
pub struct Oracle {
    /// The MACs that each device ever wanted.
    wanted: BTreeMap<String, BTreeSet<Mac>>,
    /// Devices whose spec was ever changed in what a driver in use, or a rebind policy, may keep from being made so.
    edited: BTreeSet<String>,
    /// Devices that were robbed of finalizer and labels: what was known of them by those may be lost.
    robbed: BTreeSet<String>,
    /// Devices that were ever another DPU's.
    moved: BTreeSet<String>,
    /// Since when the API has said Ready of what is not.
    untrue: BTreeMap<String, Instant>,
    /// When the API is looked at again: reading it costs more than all else together.
    look_at: Option<Instant>,
}

/// What the DPU has room for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Hot-plug slots.
    pub slots: usize,
    /// SFs of p0.
    pub sfs: usize,
    /// VFs that the host may make.
    pub vfs: usize,
}

fn uid(device: &VirtnetDevice) -> String {
    device.uid().unwrap_or_default()
}

/// Whether the device is bound to the one DPU that there is.
pub fn is_here(device: &VirtnetDevice) -> bool {
    device.spec.dpu.as_deref() == Some(DPU)
}

/// The MAC that a hot-plugged function of this device is to have.
fn wanted_mac(device: &VirtnetDevice) -> Option<Mac> {
    match &device.spec.mac {
        Some(mac) => mac.parse().ok(),
        None => Some(derived_mac(&Uid::from(uid(device).as_str()))),
    }
}

impl Oracle {
    /// A device was made or changed.
    pub fn saw(&mut self, device: &VirtnetDevice) {
        self.wanted.entry(uid(device)).or_default().extend(wanted_mac(device));
        if !is_here(device) {
            self.moved.insert(uid(device));
        }
    }

    /// The settings of the function changed.
    pub fn edited(&mut self, device: &VirtnetDevice) {
        self.edited.insert(uid(device));
    }

    /// Someone took finalizer and labels off.
    pub fn robbed(&mut self, device: &VirtnetDevice) {
        self.robbed.insert(uid(device));
    }

    /// Whether a function that stayed behind is nobody's fault: its device was robbed; or it became another DPU's and the
    /// only agent that knew of the function died.
    pub fn may_stay(&self, function: &Function, an_agent_died: bool) -> bool {
        self.wanted.iter().any(|(uid, macs)| {
            macs.contains(&function.mac)
                && (self.robbed.contains(uid) || an_agent_died && self.moved.contains(uid))
        })
    }

    /// No device has two hot-plugged functions: each function can be given to a device of its own that ever wanted its MAC.
    pub fn check_plugged_once(&self, state: &ControllerState, foreign: Option<Mac>) -> anyhow::Result<()> {
        let functions: Vec<&Function> = state
            .functions
            .values()
            .filter(|function| function.kind == FunctionKind::HotPlug && Some(function.mac) != foreign)
            .filter(|function| !self.may_stay(function, true))
            .collect();
        let mut owners: BTreeMap<&str, usize> = BTreeMap::new();
        for index in 0..functions.len() {
            if !self.give(index, &functions, &mut owners, &mut BTreeSet::new()) {
                let macs: Vec<_> = functions.iter().map(|function| function.mac.to_string()).collect();
                bail!("a device has two hot-plugged functions, or one has no device: {macs:?}");
            }
        }
        Ok(())
    }

    /// Gives a function to a device, moving others to make room (an augmenting path).
    fn give<'a>(
        &'a self,
        index: usize,
        functions: &[&Function],
        owners: &mut BTreeMap<&'a str, usize>,
        tried: &mut BTreeSet<&'a str>,
    ) -> bool {
        for (uid, macs) in &self.wanted {
            if !macs.contains(&functions[index].mac) || !tried.insert(uid) {
                continue;
            }
            let free = match owners.get(uid.as_str()).copied() {
                None => true,
                Some(other) => self.give(other, functions, owners, tried),
            };
            if free {
                owners.insert(uid, index);
                return true;
            }
        }
        false
    }

    /// Whether it is time to see what the API says.
    pub fn looks_at_the_api(&mut self) -> bool {
        let now = Instant::now();
        let is_time = self.look_at.is_none_or(|at| at <= now);
        if is_time {
            self.look_at = Some(now + LOOK);
        }
        is_time
    }

    /// Ready is said only of what is so, but for a moment.
    pub async fn check_ready_is_true(
        &mut self,
        world: &World,
        devices: &[VirtnetDevice],
        state: &ControllerState,
        switch: &SwitchState,
    ) -> anyhow::Result<()> {
        let disturbed = world.faults.is_disturbed();
        let now = Instant::now();
        let mut untrue = BTreeMap::new();
        for device in devices.iter().filter(|device| is_here(device) && reason(device).is_none()) {
            let Err(error) = check_ready(world, device, state, switch).await else { continue };
            let since = self.untrue.get(&uid(device)).copied().filter(|_| !disturbed).unwrap_or(now);
            untrue.insert(uid(device), since);
            if now - since > GRACE {
                return Err(error.context(format!("{} is Ready", device.name_any())));
            }
        }
        self.untrue = untrue;
        Ok(())
    }

    /// Whether this device must be Ready when all is at rest: what it wants is there to be had, and nobody disputes it.
    pub fn must_be_ready(
        &self,
        device: &VirtnetDevice,
        devices: &[VirtnetDevice],
        state: &ControllerState,
        strange_ports: &BTreeSet<&IfName>,
        room: Room,
    ) -> bool {
        let is_hotplug = |device: &VirtnetDevice| device.spec.function.hotplug.is_some();
        let plugged =
            state.functions.values().filter(|function| function.kind == FunctionKind::HotPlug).count();
        let here: Vec<_> = devices.iter().filter(|device| is_here(device)).collect();
        let hotplugs = here.iter().filter(|device| is_hotplug(device)).count().max(plugged) + 1;
        let statics = 2;
        let is_untouched = !self.edited.contains(&uid(device)) && !self.robbed.contains(&uid(device));
        let spec = &device.spec;
        let others: Vec<_> = here.iter().filter(|other| uid(other) != uid(device)).collect();
        let rivals = others.iter().filter(|other| other.spec.function == spec.function).count();
        let is_plain = spec.mtu.is_none_or(|mtu| mtu <= 1500) && spec.queues.is_none();
        let bridge = spec.port.as_ref().map(|port| port.bridge.as_str());
        let representor = device.status.iter().find_map(|status| status.representor.as_ref());
        let stands_on_a_strange_port = bridge.is_some()
            && representor.is_some_and(|sf| strange_ports.iter().any(|name| name.as_str() == sf.name));
        if !is_untouched || !is_plain || bridge == Some("ovsbr9") || stands_on_a_strange_port {
            return false;
        }
        if hotplugs + statics + room.vfs > room.sfs {
            return false;
        }
        if let Some(hotplug) = &spec.function.hotplug {
            let is_disputed = wanted_mac(device).is_none_or(|mac| {
                let of_another =
                    |(of, macs): (&String, &BTreeSet<Mac>)| *of != uid(device) && macs.contains(&mac);
                self.wanted.iter().any(of_another)
            });
            return hotplug.sf_number.is_none()
                && hotplug.uplink.is_none()
                && hotplugs <= room.slots
                && !is_disputed;
        }
        let is_default = spec.mac.is_none() && spec.mtu.is_none();
        let is_there = state.functions.values().any(|function| {
            let place = (function.id.pf.get(), function.id.vf.map(virtnet_model::VfId::get));
            let wanted = match (&spec.function.static_, &spec.function.vf) {
                (Some(wanted), None) => Some((wanted.pf, None)),
                (None, Some(wanted)) => Some((wanted.pf, Some(wanted.vf))),
                _ => None,
            };
            function.kind != FunctionKind::HotPlug && function.bdf.is_some() && wanted == Some(place)
        });
        is_default && is_there && rivals == 0
    }
}

/// Reads back what a device that says Ready claims.
pub async fn check_ready(
    world: &World,
    device: &VirtnetDevice,
    state: &ControllerState,
    switch: &SwitchState,
) -> anyhow::Result<()> {
    let status = device.status.as_ref().and_then(|status| status.function.as_ref()).context("no function")?;
    let function = state
        .functions
        .values()
        .find(|function| {
            function.vuid.as_str() == status.vuid && status.mac == Some(function.mac.to_string())
        })
        .context("there is no such function")?;
    ensure!(function.bdf.is_some(), "without an address");
    if let Some(mac) = &device.spec.mac {
        ensure!(*mac == function.mac.to_string(), "MAC {} and not {mac}", function.mac);
    }
    if let Some(mtu) = device.spec.mtu {
        ensure!(mtu == function.mtu.get(), "MTU {} and not {mtu}", function.mtu);
    }
    let sf = function.sf.as_ref().context("without an SF")?;
    let links = world.sim.links().observe().await?;
    let link = links.get(&sf.representor).context("without a representor")?;
    ensure!(link.up == (device.spec.link_state == virtnet_crds::LinkState::Up), "link up: {}", link.up);
    if let Some(wanted) = &device.spec.port {
        let port = switch.ports.get(&sf.representor).context("without a port")?;
        let owner = port.owner().context("with someone else's port")?;
        ensure!(owner.uid == device.uid().unwrap_or_default(), "with the port of {}", owner.device);
        ensure!(port.bridge.as_str() == wanted.bridge && port.is_attached(), "{port:?}");
        ensure!(port.tag == wanted.tag, "tag {:?}", port.tag);
    }
    Ok(())
}
