//! One device: registration, then function, representor and port; or their removal where it is being deleted.

use virtnet_crds::Reason;
use virtnet_model::{ControllerState, Function, FunctionKind};

use super::budget::{Budget, sf_exhausted};
use super::{Assessment, Claims, For, Input, Part, Removal, Stand, Step, function, mac, port, representor};
use crate::desired::{Device, Wanted};

/// Plans what one device needs now.
pub(super) fn plan(
    input: &Input<'_>,
    claims: &Claims<'_>,
    device: &Device,
    budget: &mut Budget,
    steps: &mut Vec<Step>,
) -> Assessment {
    let state = match &input.observed.controller {
        Ok(state) => state,
        Err(error) => return Assessment::all(Reason::ControllerUnavailable, error, wants_port(device)),
    };
    let found = claims.function(device, state);
    let mut assessment = if device.deleting {
        plan_removal(input, claims, device, state, found, steps)
    } else {
        match &device.wanted {
            Err(error) => Assessment::all(Reason::Undecodable, &error.to_string(), false),
            Ok(wanted) => plan_presence(input, claims, device, wanted, state, found, budget, steps),
        }
    };
    assessment.found = found.cloned();
    assessment.sf = found.and_then(|function| function.sf.clone());
    assessment
}

fn wants_port(device: &Device) -> bool {
    device.wanted.as_ref().is_ok_and(|wanted| wanted.port.is_some())
}

#[expect(clippy::too_many_arguments, reason = "the one place where everything about a device meets")]
fn plan_presence(
    input: &Input<'_>,
    claims: &Claims<'_>,
    device: &Device,
    wanted: &Wanted,
    state: &ControllerState,
    found: Option<&Function>,
    budget: &mut Budget,
    steps: &mut Vec<Step>,
) -> Assessment {
    if let Some(holder) = claims.function_claimed_by(device) {
        port::remove_others(input, device, None, Removal::NotWanted, steps);
        let message = format!("{holder} declares the same function and holds it; delete one of the two");
        return Assessment::all(Reason::FunctionClaimed, &message, wanted.port.is_some());
    }
    register(input, claims, device, found, state, steps);
    mac::look(input, claims, device, found, state, steps);
    let mut outcome = function::plan(input, claims, device, wanted, state, found, budget, steps);
    // What is not noted on the object is not done: it waits for what keeps it from being noted.
    if let Stand::Not(reason, _) = &outcome.stand
        && reason.is_working()
        && let Some((reason, message)) = input.held.get(&(device.uid.clone(), Part::Object))
        && !is_registered(input, claims, device, found)
    {
        outcome.stand = Stand::not(*reason, message);
    }
    let (representor, port, found_port) = match found {
        None => {
            port::remove_others(input, device, None, Removal::Moved, steps);
            let stand = Stand::not(Reason::FunctionAbsent, "there is no function yet");
            (stand.clone(), wanted.port.is_some().then_some(stand), None)
        }
        Some(Function { sf: None, .. }) => {
            port::remove_others(input, device, None, Removal::Moved, steps);
            let message = sf_exhausted(state.limits.static_uplink.port(), &state.limits);
            let stand = Stand::not(Reason::SfExhausted, message);
            (stand.clone(), wanted.port.is_some().then_some(stand), None)
        }
        Some(function @ Function { sf: Some(sf), .. }) => {
            let representor = representor::plan(input, device, wanted, function, sf, steps);
            match &wanted.port {
                None => {
                    port::remove_others(input, device, None, Removal::NotWanted, steps);
                    (representor, None, None)
                }
                Some(wanted_port) => {
                    port::remove_others(input, device, Some(&sf.representor), Removal::Moved, steps);
                    let (stand, found_port) = port::plan(input, device, wanted_port, sf, steps);
                    (representor, Some(stand), found_port)
                }
            }
        }
    };
    Assessment {
        function: outcome.stand,
        representor,
        port,
        pending: outcome.pending,
        found: None,
        sf: None,
        found_port,
    }
}

/// Whether everything is noted that must be before a function is made or changed.
pub(super) fn is_registered(
    input: &Input<'_>,
    claims: &Claims<'_>,
    device: &Device,
    found: Option<&Function>,
) -> bool {
    device.finalizer && device.macs.is_superset(&mac::to_note(input, claims, device, found))
}

/// Puts finalizer and MACs on the object where they are missing, and takes off MACs that are no longer the function's.
fn register(
    input: &Input<'_>,
    claims: &Claims<'_>,
    device: &Device,
    found: Option<&Function>,
    state: &ControllerState,
    steps: &mut Vec<Step>,
) {
    let key = |part| (device.uid.clone(), part);
    if input.busy.contains(&key(Part::Object)) || input.held.contains_key(&key(Part::Object)) {
        return;
    }
    let mut macs = mac::to_note(input, claims, device, found);
    // Until the function is seen with the wanted MAC, and no change of it is under way, it may come to bear an older one.
    let changes = input.busy.contains(&key(Part::Function));
    match device.wanted_mac() {
        Some(wanted) if changes || found.is_none_or(|function| function.mac != wanted) => {
            macs.extend(&device.macs);
            // One that another of the fleet has is given up, so that the other may use it.
            if mac::is_lost(input, device) && !changes && !mac::has(device, found, state, wanted) {
                macs.remove(&wanted);
            }
        }
        Some(_) => {}
        // The same where the spec names none any more.
        None if changes || mac::kept(device, state).is_some() => macs.extend(&device.macs),
        // A label tells of what the function bears until the status does.
        None => {
            let told = device.known.as_ref().and_then(|known| known.mac);
            let borne = found.map(|function| function.mac);
            macs.extend(borne.filter(|mac| device.macs.contains(mac) && told != Some(*mac)));
        }
    }
    if !device.finalizer || device.macs != macs {
        steps.push(Step::Register { device: For::device(device), macs });
    }
}

/// Removes port, then function, then our finalizer.
fn plan_removal(
    input: &Input<'_>,
    claims: &Claims<'_>,
    device: &Device,
    state: &ControllerState,
    found: Option<&Function>,
    steps: &mut Vec<Step>,
) -> Assessment {
    let assess = |reason, message: &str| Assessment::all(reason, message, wants_port(device));
    if let Err(error) = &input.observed.switch {
        return assess(Reason::SwitchUnavailable, error);
    }
    if port::remove_others(input, device, None, Removal::Deleted, steps) {
        let held = input.held.get(&(device.uid.clone(), Part::Port));
        return assess(Reason::Deleting, held.map_or("removing its port", |(_, message)| message));
    }
    for part in [Part::Function, Part::Port, Part::Object] {
        let key = (device.uid.clone(), part);
        if input.busy.contains(&key) {
            return assess(Reason::Deleting, "being removed");
        }
        if let Some((_, message)) = input.held.get(&key) {
            return assess(Reason::Deleting, message);
        }
    }
    if let Some(hotplugged) = found.filter(|function| function.kind == FunctionKind::HotPlug) {
        if state.updating {
            return assess(Reason::ControllerUpdating, "unplug waits for the controller's live update");
        }
        // One that can't be named so that no other is meant stays behind, undeclared: deletion always ends.
        if let Some(step) = function::unplug(device, hotplugged, Removal::Deleted) {
            steps.push(step);
            return assess(Reason::Deleting, &format!("unplugging {}", hotplugged.vuid));
        }
    }
    let is_its_own = found.is_none() && !device.is_released() && claims.function_claimed_by(device).is_none();
    if let Some(step) = function::take_back_prepared(device, state).filter(|_| is_its_own) {
        steps.push(step);
        return assess(Reason::Deleting, "taking back the settings kept for its VF");
    }
    // Between the end of the object and the report that nobody declares the function its MAC would seem free.
    if let (Some(reported), Some(function)) = (input.reported, found)
        && device.finalizer
        && !reported.contains(&(function.id, function.mac))
    {
        return assess(Reason::Deleting, "reporting that its function is undeclared");
    }
    if device.finalizer {
        steps.push(Step::Release { device: For::device(device) });
    }
    match found.filter(|function| function.kind == FunctionKind::HotPlug) {
        Some(left) => {
            assess(Reason::Deleting, &format!("{} has no SF to be named by and stays, undeclared", left.vuid))
        }
        None => assess(Reason::Deleting, "nothing of it is left on the DPU"),
    }
}
