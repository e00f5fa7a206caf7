//! Whether a device may use the MAC that it declares: nobody else of the fleet may have it.
//!
//! What this DPU has, [`Claims`] decide. Of the rest of the fleet an agent knows nothing, so it notes the MAC on the object
//! and then looks who else has it: of two agents that do so for one MAC, the one that looks later sees the other's note. Who
//! sees a senior gives its note up, and only who sees nobody makes a function. A MAC that is derived of a uid is nobody
//! else's by chance, and what names it looks itself.

use std::collections::BTreeSet;
use std::fmt;

use virtnet_crds::Reason;
use virtnet_model::{ControllerState, Function, Mac};

use super::claims::place;
use super::{Claims, For, Input, Part, Step};
use crate::desired::Device;

/// Nobody else of the fleet had this MAC when an agent looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// The MAC.
    pub mac: Mac,
    /// The object noted it before, so that nobody can have taken it since.
    pub noted: bool,
}

/// Whether a device may use the MAC that it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// It may.
    Granted,
    /// It may not, and why.
    Claimed(String),
    /// That is not known yet, and why.
    Open(Reason, String),
}

/// Finds out whether the device may use the MAC that it wants.
pub(super) fn right(
    input: &Input<'_>,
    claims: &Claims<'_>,
    device: &Device,
    found: Option<&Function>,
    state: &ControllerState,
) -> Right {
    let Some(mac) = device.wanted_mac() else { return Right::Granted };
    if let Some(holder) = claims.mac_claimed_by(device) {
        return Right::Claimed(claimed(mac, &holder));
    }
    if !device.declares_mac() || has(device, found, state, mac) {
        return Right::Granted;
    }
    if input.free.get(&device.uid) == Some(&Free { mac, noted: true }) && device.macs.contains(&mac) {
        return Right::Granted;
    }
    match input.held.get(&(device.uid.clone(), Part::Mac)) {
        Some((Reason::MacClaimed, why)) => Right::Claimed(why.clone()),
        Some((reason, why)) => Right::Open(*reason, why.clone()),
        None => Right::Open(Reason::Creating, format!("looking whether MAC {mac} is free")),
    }
}

/// Says who has the MAC.
pub(crate) fn claimed(mac: Mac, holder: &dyn fmt::Display) -> String {
    format!("MAC {mac} is that of {holder}; choose another, or delete that one")
}

/// Looks who else has the MAC, once it is noted; and before that where it was another's when last looked.
pub(super) fn look(
    input: &Input<'_>,
    claims: &Claims<'_>,
    device: &Device,
    found: Option<&Function>,
    state: &ControllerState,
    steps: &mut Vec<Step>,
) {
    let (Some(mac), Right::Open(..)) = (device.wanted_mac(), right(input, claims, device, found, state))
    else {
        return;
    };
    let key = (device.uid.clone(), Part::Mac);
    let noted = device.finalizer && device.macs.contains(&mac);
    if (noted || !may_note(input, device, mac))
        && !input.busy.contains(&key)
        && !input.held.contains_key(&key)
    {
        let bore = device.known.as_ref().is_some_and(|known| known.mac == Some(mac));
        steps.push(Step::ClaimMac { device: For::device(device), mac, noted, bore, created: device.created });
    }
}

/// The MACs that the object must note: what the function bears, and what it shall bear unless that is another's. A MAC
/// that only one device notes is what makes the note worth anything after a crash.
pub(super) fn to_note(
    input: &Input<'_>,
    claims: &Claims<'_>,
    device: &Device,
    found: Option<&Function>,
) -> BTreeSet<Mac> {
    // Of the others the place is the identity.
    let borne =
        found.filter(|_| place(device).is_none() && device.wanted.is_ok()).map(|function| function.mac);
    let wanted = device.wanted_mac().filter(|mac| {
        claims.mac_claimed_by(device).is_none() && (!device.declares_mac() || may_note(input, device, *mac))
    });
    borne.into_iter().chain(wanted).collect()
}

/// Whether it is anything but a disturbance to note the MAC: not while it is another's. What was lost is not noted before it
/// was looked for again; that it was lost an agent newly started knows by the status.
fn may_note(input: &Input<'_>, device: &Device, mac: Mac) -> bool {
    !is_lost(input, device)
        && (!(device.mac_refused || input.lost.contains(&device.uid))
            || device.macs.contains(&mac)
            || input.free.get(&device.uid).is_some_and(|free| free.mac == mac))
}

/// Whether another of the fleet has the MAC, as far as was seen.
pub(super) fn is_lost(input: &Input<'_>, device: &Device) -> bool {
    let held = input.held.get(&(device.uid.clone(), Part::Mac));
    held.is_some_and(|(reason, _)| *reason == Reason::MacClaimed)
}

/// Whether there is no telling when it may use its MAC: it is another's, or nobody can be asked.
pub(super) fn is_refused(input: &Input<'_>, device: &Device) -> bool {
    let held = input.held.get(&(device.uid.clone(), Part::Mac));
    held.is_some_and(|(reason, _)| *reason != Reason::Creating)
}

/// Whether its function has the MAC already, or will be made with it whatever is decided now.
pub(super) fn has(device: &Device, found: Option<&Function>, state: &ControllerState, mac: Mac) -> bool {
    found.is_some_and(|function| function.mac == mac) || kept(device, state) == Some(mac)
}

/// The MAC that the controller keeps for its VF to come.
pub(super) fn kept(device: &Device, state: &ControllerState) -> Option<Mac> {
    place(device).and_then(|id| state.prepared.get(&(id.pf, id.vf?)))?.mac
}
