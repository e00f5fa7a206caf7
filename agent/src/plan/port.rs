//! The OVS port of a device, and ports of ours that no device has any more.

use std::collections::{BTreeMap, BTreeSet};

use virtnet_crds::Reason;
use virtnet_model::{IfName, Owner, Port, PortSettings, SubFunction, SwitchState};

use super::{Claims, For, Input, Part, Plan, Removal, Stand, Step};
use crate::desired::{Device, Uid, Wanted, WantedPort};

impl For {
    pub(super) fn device(device: &Device) -> Self {
        Self { uid: device.uid.clone(), key: device.key.clone() }
    }
}

/// The marks of this device's port.
fn owner(input: &Input<'_>, device: &Device) -> Owner {
    Owner { dpu: input.dpu.to_owned(), device: device.key.to_string(), uid: device.uid.to_string() }
}

/// Ports that bear this device's marks.
pub(super) fn ports_of<'s>(
    input: &Input<'_>,
    device: &Device,
    switch: &'s SwitchState,
) -> impl Iterator<Item = (&'s IfName, &'s Port)> {
    let (dpu, uid) = (input.dpu.to_owned(), device.uid.to_string());
    switch
        .ports
        .iter()
        .filter(move |(_, port)| port.owner().is_some_and(|owner| owner.dpu == dpu && owner.uid == uid))
}

/// Takes away the device's ports but the one named `keep`. Says whether any is still there.
pub(super) fn remove_others(
    input: &Input<'_>,
    device: &Device,
    keep: Option<&IfName>,
    why: Removal,
    steps: &mut Vec<Step>,
) -> bool {
    let Ok(switch) = &input.observed.switch else { return true };
    let key = (device.uid.clone(), Part::Port);
    let waits = input.busy.contains(&key) || input.held.contains_key(&key);
    let mut any = false;
    for (name, port) in ports_of(input, device, switch).filter(|(name, _)| Some(*name) != keep) {
        any = true;
        if let (false, Some(owner)) = (waits, port.owner()) {
            steps.push(Step::RemovePort {
                device: Some(For::device(device)),
                name: name.clone(),
                owner,
                why,
            });
        }
    }
    any
}

/// Brings the device's port to what is wanted.
pub(super) fn plan(
    input: &Input<'_>,
    device: &Device,
    wanted: &WantedPort,
    sf: &SubFunction,
    steps: &mut Vec<Step>,
) -> (Stand, Option<Port>) {
    let switch = match &input.observed.switch {
        Ok(switch) => switch,
        Err(error) => return (Stand::not(Reason::SwitchUnavailable, error), None),
    };
    let name = &sf.representor;
    let found = switch.ports.get(name);
    let settings = PortSettings {
        bridge: wanted.bridge.clone(),
        interface_type: wanted.interface_type.clone(),
        tag: wanted.tag,
        trunks: wanted.trunks.clone(),
        external_ids: wanted.external_ids.clone(),
        owner: owner(input, device),
    };
    if let Some(stranger) = found.filter(|port| !may_take(input, device, port)) {
        let bridge = &stranger.bridge;
        let message = match stranger.owner() {
            Some(owner) => format!("port {name} on bridge {bridge} belongs to {owner} and is left alone"),
            None => format!(
                "port {name} on bridge {bridge} belongs to someone else{} and is left alone; where nobody needs it, \
                 ovs-vsctl del-port {name}",
                clue(stranger)
            ),
        };
        return (Stand::not(Reason::PortConflict, message), None);
    }
    let ours = found.filter(|port| port.owner().is_some_and(|owner| owner == settings.owner));
    if !switch.bridges.contains(&wanted.bridge) {
        let message = format!(
            "there is no bridge {}: make it with ovs-vsctl add-br {0}, or by spec.switch.bridges of the Dpu",
            wanted.bridge
        );
        return (Stand::not(Reason::BridgeNotFound, message), ours.cloned());
    }
    if let Some(port) = ours.filter(|port| port.matches(&settings)) {
        let stand = if is_detached(input, sf, port) {
            let message = format!("Open vSwitch has not taken hold of the netdev that is {name} now");
            Stand::not(Reason::Applying, message)
        } else if port.is_attached() {
            Stand::Ready
        } else {
            match &port.error {
                Some(error) => {
                    Stand::not(Reason::PortError, format!("Open vSwitch could not attach {name}: {error}"))
                }
                None => Stand::not(Reason::Applying, format!("waiting for Open vSwitch to attach {name}")),
            }
        };
        return (stand, Some(port.clone()));
    }
    let key = (device.uid.clone(), Part::Port);
    if let Some((reason, message)) = input.held.get(&key) {
        return (Stand::not(*reason, message), ours.cloned());
    }
    if !is_representor(input, sf) {
        let message =
            format!("waiting for the representor {name}: a port would take in whatever bears its name");
        return (Stand::not(Reason::Applying, message), ours.cloned());
    }
    if !input.busy.contains(&key) && device.finalizer {
        steps.push(Step::SetPort {
            device: For::device(device),
            name: name.clone(),
            settings,
            present: found.filter(|port| port.is_attached()).cloned().map(Box::new),
        });
    }
    let message = format!("putting {name} on bridge {}", wanted.bridge);
    (Stand::not(Reason::Applying, message), ours.cloned())
}

/// What a port's keys tell of whose it is. Their values may be nobody else's to know, and this is read in objects and Events.
fn clue(stranger: &Port) -> String {
    const AT_MOST: usize = 4;
    let ids = &stranger.external_ids;
    let mut told: Vec<_> = ids.keys().take(AT_MOST).map(String::as_str).collect();
    match ids.len() {
        0 => return String::new(),
        count if count > AT_MOST => told.push("…"),
        _ => {}
    }
    format!(" (external_ids: {})", told.join(", "))
}

/// Whether the switch reports a port as attached and holds a netdev that is gone: one that was made again under the same
/// name is not promiscuous, as every system netdev is that a switch has as its port. Right after it was attached, netdevs may
/// have been read before. And a switch that is stopped lets go of all its netdevs, while its database tells what was, so
/// there must be another on the bridge that it holds.
fn is_detached(input: &Input<'_>, sf: &SubFunction, port: &Port) -> bool {
    let (Ok(links), Ok(switch)) = (&input.observed.links, &input.observed.switch) else { return false };
    let promiscuity = |name| links.get(name).and_then(|link| link.promiscuity);
    let beside = switch.ports.iter().filter(|(_, other)| other.bridge == port.bridge);
    port.is_attached()
        && port.interface_type.is_empty()
        && promiscuity(&sf.representor) == Some(0)
        && beside.map(|(name, _)| promiscuity(name)).any(|count| count > Some(0))
}

/// Whether the netdev of the representor's name is there and is the SF's.
fn is_representor(input: &Input<'_>, sf: &SubFunction) -> bool {
    let links = input.observed.links.as_ref();
    links.is_ok_and(|links| links.get(&sf.representor).is_some_and(|link| link.represents(sf)))
}

/// Whether the port on this device's representor is this device's to set: it is marked as its own, as that of an
/// earlier object on this DPU (the representor is ours now, so the mark is stale), never someone else's.
fn may_take(input: &Input<'_>, device: &Device, port: &Port) -> bool {
    port.owner().is_some_and(|owner| {
        owner.dpu == input.dpu
            && (owner.uid == device.uid.as_str()
                || !input.devices.contains_key(&Uid::from(owner.uid.as_str())))
    })
}

/// Whether a port is wanted, on a bridge that is there.
fn has_bridge(wanted: &Wanted, switch: &SwitchState) -> bool {
    wanted.port.as_ref().is_some_and(|port| switch.bridges.contains(&port.bridge))
}

/// Ports of devices on netdevs that are gone: suspects when seen first, removed when seen again. Then they are made anew.
pub(super) fn plan_detached(input: &Input<'_>, plan: &mut Plan) {
    for (uid, assessment) in &plan.devices {
        let (Some(device), Some(sf), Some(port)) =
            (input.devices.get(uid), &assessment.sf, &assessment.found_port)
        else {
            continue;
        };
        let Some(owner) = port.owner().filter(|_| is_detached(input, sf, port)) else { continue };
        let (name, key) = (sf.representor.clone(), (uid.clone(), Part::Port));
        let seen = (name.clone(), owner.clone());
        if input.suspects.contains(&seen) && !input.busy.contains(&key) && !input.held.contains_key(&key) {
            let (device, why) = (Some(For::device(device)), Removal::Detached);
            plan.steps.push(Step::RemovePort { device, name, owner, why });
        }
        plan.suspects.insert(seen);
    }
}

/// Ports of ours whose device is gone: suspects when seen first, removed when seen again.
pub(super) fn plan_orphans(input: &Input<'_>, claims: &Claims<'_>, plan: &mut Plan) {
    let (Ok(switch), Ok(state)) = (&input.observed.switch, &input.observed.controller) else { return };
    // A port on the representor of a device that can have one there is no orphan: that device takes it on.
    let live: BTreeSet<&IfName> = claims
        .order
        .iter()
        .filter(|device| device.wanted.as_ref().map_or(true, |wanted| has_bridge(wanted, switch)))
        .filter_map(|device| claims.function(device, state))
        .filter_map(|function| function.sf.as_ref())
        .map(|sf| &sf.representor)
        .collect();
    let orphans: BTreeMap<&IfName, Owner> = switch
        .ports
        .iter()
        .filter(|(name, _)| !live.contains(name))
        .filter_map(|(name, port)| Some((name, port.owner()?)))
        .filter(|(_, owner)| {
            owner.dpu == input.dpu && !input.devices.contains_key(&Uid::from(owner.uid.as_str()))
        })
        .collect();
    for (name, owner) in orphans {
        let seen = (name.clone(), owner.clone());
        if input.suspects.contains(&seen) {
            plan.steps.push(Step::RemovePort {
                device: None,
                name: name.clone(),
                owner,
                why: Removal::Orphan,
            });
        }
        plan.suspects.insert(seen);
    }
}
