//! The function of one device: plug it, change it, plug it anew, or say what it waits for.

use virtnet_crds::{Reason, RebindPolicy};
use virtnet_model::{
    Change, ControllerState, Function, FunctionKind, Generation, HostPower, Limits, Mtu, PfId, Target, VfId,
};

use super::allowed::{changeable, check, request};
use super::budget::{Budget, Need};
use super::device::is_registered;
use super::mac::{self, Right};
use super::{Claims, For, Input, Part, Removal, Stand, Step};
use crate::desired::{Device, Wanted, WantedFunction};

/// What was found out about the function.
pub(super) struct Outcome {
    pub(super) stand: Stand,
    pub(super) pending: Option<(Reason, String)>,
}

impl Outcome {
    fn not(reason: Reason, message: impl Into<String>) -> Self {
        Self { stand: Stand::not(reason, message), pending: None }
    }

    fn pending(reason: Reason, message: &str) -> Self {
        Self { stand: Stand::not(reason, message), pending: Some((reason, message.to_owned())) }
    }
}

/// What keeps a function from being as wanted.
#[derive(Default)]
pub(super) struct Difference {
    /// What the controller can change while no driver has the function.
    pub(super) change: Change,
    /// What only another plug can change.
    pub(super) replug: Vec<String>,
}

impl Difference {
    /// All of it, in words.
    fn what(&self) -> String {
        let change = Some(&self.change).filter(|change| !change.is_empty()).map(ToString::to_string);
        self.replug.iter().cloned().chain(change).collect::<Vec<_>>().join(", ")
    }
}

#[expect(clippy::too_many_arguments, reason = "the function depends on all that is known of device and DPU")]
pub(super) fn plan(
    input: &Input<'_>,
    claims: &Claims<'_>,
    device: &Device,
    wanted: &Wanted,
    state: &ControllerState,
    found: Option<&Function>,
    budget: &mut Budget,
    steps: &mut Vec<Step>,
) -> Outcome {
    let limits = &state.limits;
    if !limits.emulation {
        return Outcome::not(
            Reason::EmulationDisabled,
            "VIRTIO_NET_EMULATION_ENABLE is 0: set it to 1 with mlxconfig and cold boot",
        );
    }
    let key = (device.uid.clone(), Part::Function);
    let busy = input.busy.contains(&key);
    let held = input.held.get(&key);
    let right = mac::right(input, claims, device, found, state);
    let mac_conflict = match &right {
        Right::Claimed(why) => Some(Outcome::not(Reason::MacClaimed, why)),
        Right::Granted | Right::Open(..) => None,
    };
    let ready_to_act = !busy && is_registered(input, claims, device, found);
    let Some(function) = found else {
        if let Some(outcome) = mac_conflict {
            return outcome;
        }
        return match &wanted.function {
            WantedFunction::HotPlug { .. } => {
                let request = match request(wanted, limits) {
                    Ok(request) => request,
                    Err((reason, message)) => return Outcome::not(reason, message),
                };
                if busy {
                    return Outcome::not(Reason::Creating, "plugging the function");
                }
                if let Some((reason, message)) = held {
                    return Outcome::not(*reason, message);
                }
                if state.updating {
                    return Outcome::not(
                        Reason::ControllerUpdating,
                        "hot-plug waits for the controller's live update",
                    );
                }
                let need = Need::of(&wanted.function, limits);
                if let Some(Err((reason, message))) = need.map(|need| budget.draw(need, limits)) {
                    return Outcome::not(reason, message);
                }
                if let Right::Open(reason, why) = right {
                    return Outcome::not(reason, why);
                }
                // Who binds devices acts on what their objects say: it must no longer be said when the function is made.
                if input.refused.contains(&device.uid) {
                    return Outcome::not(Reason::Creating, "there is room now: the function is plugged next");
                }
                if ready_to_act {
                    steps.push(Step::Hotplug { device: For::device(device), request });
                }
                Outcome::not(Reason::Creating, "plugging the function")
            }
            WantedFunction::Static { pf, .. } => {
                let message = format!(
                    "there is no static PF {pf}: VIRTIO_NET_EMULATION_NUM_PF is {}",
                    limits.static_pfs
                );
                if pf.get() < limits.static_pfs {
                    return Outcome::not(
                        Reason::Creating,
                        format!("waiting for the controller to make static PF {pf}"),
                    );
                }
                Outcome::not(Reason::NoSuchPf, message)
            }
            WantedFunction::Vf { .. } => {
                plan_unborn(input, claims, device, wanted, state, &right, busy, held, steps)
            }
        };
    };
    if let Err((reason, message)) = check(wanted, Some(function), limits) {
        return Outcome::not(reason, message);
    }
    let mut difference = difference(wanted, function, limits);
    if let (Right::Open(reason, why), Some(_)) = (&right, difference.change.mac) {
        let reason = if *reason == Reason::Creating { Reason::Applying } else { *reason };
        return Outcome::not(reason, why);
    }
    let kept_mac = difference.change.mac.is_some() && mac_conflict.is_some();
    if kept_mac {
        difference.change.mac = None;
    }
    if let Err((reason, message)) = changeable(wanted, function, limits, &difference) {
        return Outcome::not(reason, message);
    }
    if busy {
        return Outcome::not(Reason::Applying, "a change is being made");
    }
    // Only what is still to be done waits for its retry: it may have come true without us.
    let differs = !difference.change.is_empty() || !difference.replug.is_empty();
    if let Some((reason, message)) = held.filter(|_| differs) {
        return Outcome::not(*reason, message);
    }
    if let Some(socket) = function.fixed_by().filter(|_| differs) {
        let message = format!(
            "{} waits until the machine behind {} is started anew: shut it down, and start it with the qemu_arguments that \
             `virtnet query -p {}` says then",
            difference.what(),
            socket.display(),
            function.id.pf,
        );
        return Outcome::pending(Reason::ReplugPending, &message);
    }
    let evict = function.kind == FunctionKind::HotPlug
        && wanted.rebind == RebindPolicy::Always
        && function.driver.in_use
        && !difference.change.is_empty();
    if evict || !difference.replug.is_empty() {
        return match mac_conflict.filter(|_| kept_mac) {
            // Without its present MAC and without the wanted one it could not be plugged again.
            Some(outcome) => outcome,
            None => plan_replug(device, wanted, state, function, &difference, budget, ready_to_act, steps),
        };
    }
    if !difference.change.is_empty() {
        if function.driver.in_use {
            let message = format!(
                "{} waits until the driver is gone: {}, and once this is Ready the same to bind",
                difference.change,
                unbind(function)
            );
            return Outcome::pending(Reason::RebindPending, &message);
        }
        return modify(device, function, &difference.change, ready_to_act, steps);
    }
    if let Some(outcome) = mac_conflict.filter(|_| kept_mac) {
        return outcome;
    }
    if function.sf.is_none() {
        let port = limits.static_uplink.port();
        return Outcome::not(Reason::SfExhausted, super::budget::sf_exhausted(port, limits));
    }
    in_service(input, function)
}

/// The function is as wanted; whether the host has it is read back.
fn in_service(input: &Input<'_>, function: &Function) -> Outcome {
    let reached = match function.socket {
        Some(_) => function.driver.in_use,
        None => function.bdf.is_some(),
    };
    if reached {
        return Outcome { stand: Stand::Ready, pending: None };
    }
    match (&function.socket, input.observed.host.as_ref().map(|host| host.power)) {
        (Some(socket), _) => {
            Outcome::not(Reason::WaitingForHost, format!("no driver is up behind {}", socket.display()))
        }
        (None, Ok(HostPower::Off)) => Outcome::not(Reason::HostOff, "the host is off"),
        (None, Ok(HostPower::Booting)) => Outcome::not(Reason::WaitingForHost, "the host is booting"),
        (None, Ok(HostPower::Running | HostPower::Unknown) | Err(_)) => {
            Outcome::not(Reason::WaitingForHost, "the host has given it no PCI address yet")
        }
    }
}

/// A VF that the host has not made: its settings are handed over before it does.
#[expect(clippy::too_many_arguments, reason = "it depends on all that a function depends on")]
fn plan_unborn(
    input: &Input<'_>,
    claims: &Claims<'_>,
    device: &Device,
    wanted: &Wanted,
    state: &ControllerState,
    right: &Right,
    busy: bool,
    held: Option<&(Reason, String)>,
    steps: &mut Vec<Step>,
) -> Outcome {
    let WantedFunction::Vf { pf, vf, .. } = &wanted.function else {
        return Outcome::not(Reason::VfAbsent, "not a VF");
    };
    let limits = &state.limits;
    if pf.get() >= limits.static_pfs {
        let message = format!(
            "there is no static PF {pf} to have VFs: VIRTIO_NET_EMULATION_NUM_PF is {}",
            limits.static_pfs
        );
        return Outcome::not(Reason::NoSuchPf, message);
    }
    if vf.get() >= limits.vfs_per_pf {
        let message =
            format!("there is no VF {vf} of PF {pf}: VIRTIO_NET_EMULATION_NUM_VF is {}", limits.vfs_per_pf);
        return Outcome::not(Reason::VfOutOfRange, message);
    }
    if let Err((reason, message)) = check(wanted, None, limits) {
        return Outcome::not(reason, message);
    }
    let prepared = state.prepared.get(&(*pf, *vf)).cloned().unwrap_or_default();
    let change = settings_of_unborn(wanted);
    if change != prepared {
        if busy {
            return Outcome::not(Reason::Applying, "handing its settings to the controller");
        }
        if let Some((reason, message)) = held {
            return Outcome::not(*reason, message);
        }
        if let Right::Open(reason, why) = right {
            return Outcome::not(*reason, why);
        }
        if is_registered(input, claims, device, None) {
            steps.push(Step::Modify { device: For::device(device), target: Target::Vf(*pf, *vf), change });
        }
    }
    let numvfs = u32::from(vf.get()) + 1;
    match input.observed.host.as_ref().map(|host| host.power) {
        Ok(HostPower::Off) => Outcome::not(Reason::HostOff, "the host is off"),
        Ok(HostPower::Booting) => Outcome::not(Reason::WaitingForHost, "the host is booting"),
        // The agent itself has the host make it.
        Ok(HostPower::Running) if wants_vf(input, *pf, *vf) => {
            Outcome::not(Reason::Creating, format!("the host is making VF {vf} of PF {pf}"))
        }
        Ok(HostPower::Running | HostPower::Unknown) | Err(_) => Outcome::not(
            Reason::VfAbsent,
            format!(
                "waiting for the host to make VF {vf} of PF {pf}: set its sriov_numvfs to at least {numvfs} on the host, or \
                 by spec.host.sriov of the Dpu"
            ),
        ),
    }
}

/// Whether the VF has settings to be handed over before the host makes it, and nothing stands in the way of that.
pub(super) fn hands_over(input: &Input<'_>, claims: &Claims<'_>, device: &Device, limits: &Limits) -> bool {
    let Ok(wanted) = &device.wanted else { return false };
    !device.deleting
        && !input.held.contains_key(&(device.uid.clone(), Part::Function))
        && claims.function_claimed_by(device).is_none()
        && claims.mac_claimed_by(device).is_none()
        && !mac::is_refused(input, device)
        && check(wanted, None, limits).is_ok()
        && !settings_of_unborn(wanted).is_empty()
}

/// Whether what was handed over for the VF is what it is to be made with.
pub(super) fn is_handed_over(device: &Device, state: &ControllerState) -> bool {
    let Ok(wanted) = &device.wanted else { return true };
    let WantedFunction::Vf { pf, vf, .. } = wanted.function else { return true };
    state.prepared.get(&(pf, vf)) == Some(&settings_of_unborn(wanted))
}

/// Whether the Dpu's spec has the host make this VF, and nothing is in its way.
fn wants_vf(input: &Input<'_>, pf: PfId, vf: VfId) -> bool {
    let present = input.observed.host.as_ref().ok().and_then(|host| host.num_vfs.get(&pf)).copied();
    let mut sriov = input.dpu_spec.host.iter().flat_map(|host| &host.sriov);
    sriov.any(|sriov| {
        let free = present == Some(0) || present == Some(sriov.num_vfs);
        sriov.pf == pf.get() && vf.get() < sriov.num_vfs && free
    })
}

/// What a VF is to be made with. The controller's own MTU is the guide's 1500, so that needs no handing over.
fn settings_of_unborn(wanted: &Wanted) -> Change {
    Change {
        mac: wanted.function.mac(),
        mtu: wanted.mtu.filter(|mtu| *mtu != Mtu::DEFAULT),
        features: wanted.features.clone(),
        num_msix: wanted.num_msix,
        queue_size: wanted.queue_size,
    }
}

/// Changes an idle function.
fn modify(
    device: &Device,
    function: &Function,
    change: &Change,
    ready_to_act: bool,
    steps: &mut Vec<Step>,
) -> Outcome {
    if ready_to_act && let Some(target) = function.target() {
        steps.push(Step::Modify { device: For::device(device), target, change: change.clone() });
    }
    Outcome::not(Reason::Applying, format!("setting {change}"))
}

/// Unplugs so that the next plan plugs it with the new values, where the policy allows it.
#[expect(clippy::too_many_arguments, reason = "it depends on all that plugging depends on")]
fn plan_replug(
    device: &Device,
    wanted: &Wanted,
    state: &ControllerState,
    function: &Function,
    difference: &Difference,
    budget: &mut Budget,
    ready_to_act: bool,
    steps: &mut Vec<Step>,
) -> Outcome {
    let what = difference.what();
    let allowed = match wanted.rebind {
        RebindPolicy::Always => true,
        RebindPolicy::IfIdle => !function.driver.in_use,
        RebindPolicy::Never => false,
    };
    if function.kind != FunctionKind::HotPlug || !allowed {
        if !difference.change.is_empty() && !function.driver.in_use {
            return modify(device, function, &difference.change, ready_to_act, steps);
        }
        let message = match wanted.rebind {
            RebindPolicy::Never => format!(
                "{what} needs the function plugged anew: set rebindPolicy to IfIdle or Always, or delete the device and \
                 apply it again"
            ),
            RebindPolicy::IfIdle | RebindPolicy::Always => {
                format!(
                    "{what} needs the function plugged anew once its driver is gone: {}",
                    unbind(function)
                )
            }
        };
        return Outcome::pending(Reason::ReplugPending, &message);
    }
    // Unplugging what could not be plugged again would take a working function away for nothing.
    if let Err((reason, message)) = request(wanted, &state.limits) {
        return Outcome::not(reason, message);
    }
    let need = Need::of(&wanted.function, &state.limits);
    if let Some(Err((reason, message))) = need.map(|need| budget.swap(function, need, &state.limits)) {
        return Outcome::not(reason, message);
    }
    if state.updating {
        return Outcome::not(Reason::ControllerUpdating, "hot-plug waits for the controller's live update");
    }
    if ready_to_act {
        steps.extend(unplug(device, function, Removal::Replug));
    }
    Outcome::not(Reason::Applying, format!("plugging the function anew with {what}"))
}

/// The step that unplugs the device's function; none where its identity is incomplete.
pub(super) fn unplug(device: &Device, function: &Function, why: Removal) -> Option<Step> {
    let target = function.target()?;
    Some(Step::Unplug { device: For::device(device), target, why, in_use: function.driver.in_use })
}

/// Whether it stays when its device is deleted.
pub(super) fn stays(function: &Function) -> bool {
    function.kind != FunctionKind::HotPlug || function.target().is_none()
}

/// Clears settings that were handed over for a VF that is not there.
pub(super) fn take_back_prepared(device: &Device, state: &ControllerState) -> Option<Step> {
    let Ok(Wanted { function: WantedFunction::Vf { pf, vf, .. }, .. }) = &device.wanted else { return None };
    let kept = state.prepared.get(&(*pf, *vf)).is_some_and(|change| !change.is_empty());
    kept.then(|| Step::Modify {
        device: For::device(device),
        target: Target::Vf(*pf, *vf),
        change: Change::default(),
    })
}

/// The command that frees a function of its driver, for the person at the host.
fn unbind(function: &Function) -> String {
    let bdf = function.bdf.map_or_else(|| "BDF".to_owned(), |bdf| bdf.to_string());
    format!("on the host, echo 0000:{bdf} > /sys/bus/pci/drivers/virtio-pci/unbind")
}

fn difference(wanted: &Wanted, function: &Function, limits: &Limits) -> Difference {
    let mut change = Change {
        mac: wanted.function.mac().filter(|mac| *mac != function.mac),
        mtu: wanted.mtu.filter(|mtu| *mtu != function.mtu),
        features: wanted.features.clone().filter(|features| *features != function.features),
        num_msix: wanted.num_msix.filter(|msix| *msix != function.num_msix),
        queue_size: wanted.queue_size.filter(|size| *size != function.max_queue_size),
    };
    let mut replug = Vec::new();
    if let WantedFunction::HotPlug { transitional, uplink, .. } = &wanted.function {
        if let Some(queues) = wanted.max_queues.filter(|queues| *queues != function.max_queues) {
            replug.push(format!("queues.max {queues}"));
        }
        if *transitional != function.transitional {
            replug.push(format!("transitional {transitional}"));
        }
        let port = function.sf.as_ref().map(|sf| sf.port);
        if let Some(uplink) = uplink.filter(|uplink| port.is_some_and(|port| uplink.port() != port)) {
            replug.push(format!("uplink {uplink}"));
        }
        if let (Generation::Later, Some(msix)) = (limits.generation, change.num_msix) {
            change.num_msix = None;
            replug.push(format!("msix {msix}"));
        }
    }
    Difference { change, replug }
}
