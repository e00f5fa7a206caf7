//! What firmware, controller and device allow: of a spec before anything is made, and of a change to what is there.

use virtnet_crds::Reason;
use virtnet_model::{Feature, Function, FunctionKind, Generation, HotplugRequest, Limits, Mtu, QueueSize};

use super::budget::Need;
use super::function::Difference;
use crate::desired::{Wanted, WantedFunction};

/// Virtqueues of a hot-plugged function whose spec names no number: one pair and the control queue.
const DEFAULT_QUEUES: u16 = 3;
/// One pair.
const LEAST_QUEUES: u16 = 2;

/// Whether the wanted changes can ever be made to this function.
pub(super) fn changeable(
    wanted: &Wanted,
    function: &Function,
    limits: &Limits,
    difference: &Difference,
) -> Result<(), (Reason, String)> {
    if let (FunctionKind::Static, Some(mtu)) = (function.kind, difference.change.mtu) {
        let message = format!("mtu {mtu}: the MTU of a static PF is fixed at {}", function.mtu);
        return Err((Reason::MtuFixed, message));
    }
    if let (FunctionKind::Static, Generation::Later, Some(msix)) =
        (function.kind, limits.generation, difference.change.num_msix)
    {
        let message = format!("msix {msix}: the MSI-X vectors of a PF are fixed at {}", function.num_msix);
        return Err((Reason::MsixFixed, message));
    }
    // Queues of what was not hot-plugged follow its vectors, so they come with the change of those where they can be changed.
    let follow = function.kind == FunctionKind::Vf || limits.generation == Generation::Guide;
    if function.kind != FunctionKind::HotPlug
        && !(follow && difference.change.num_msix.is_some())
        && let Some(queues) = wanted.max_queues.filter(|queues| *queues > function.max_queues)
    {
        let why = if follow {
            format!("as its {} MSI-X vectors allow: set msix to at least {}", function.num_msix, queues + 1)
        } else {
            "as VIRTIO_NET_EMULATION_NUM_MSIX and max_virtq allow".to_owned()
        };
        let message = format!("queues.max {queues}: this function has {}, {why}", function.max_queues);
        return Err((Reason::QueuesAboveLimit, message));
    }
    if let (FunctionKind::Vf, WantedFunction::Vf { transitional: true, .. }) =
        (function.kind, &wanted.function)
        && !function.transitional
    {
        return Err((Reason::TransitionalUnsupported, transitional_vf()));
    }
    Ok(())
}

fn transitional_vf() -> String {
    "this VF can not be transitional: that takes VIRTIO_NET_EMULATION_VF_PCI_LAYOUT=1 in firmware and a controller of \
     24.10 or later"
        .to_owned()
}

/// What firmware and controller allow at all, before capacity. What the function has already was allowed when it was made.
pub(super) fn check(
    wanted: &Wanted,
    found: Option<&Function>,
    limits: &Limits,
) -> Result<(), (Reason, String)> {
    let is_vf = matches!(wanted.function, WantedFunction::Vf { .. });
    let (most_msix, setting) = if is_vf {
        (limits.vf_msix, "VIRTIO_NET_EMULATION_NUM_VF_MSIX or NUM_MSIX")
    } else {
        (limits.pf_msix, "VIRTIO_NET_EMULATION_NUM_MSIX")
    };
    let has_msix = found.is_some_and(|found| wanted.num_msix == Some(found.num_msix));
    if let Some(msix) = wanted.num_msix.filter(|msix| *msix > most_msix && !has_msix) {
        let message = format!("msix {msix} is above {setting}, which is {most_msix}");
        return Err((Reason::MsixAboveLimit, message));
    }
    let most_queues = most_queues(wanted, limits, most_msix);
    if most_queues < LEAST_QUEUES && !has_msix {
        let message = format!(
            "{} MSI-X vectors leave {most_queues} virtqueues, and a function needs {LEAST_QUEUES} to receive and to \
             transmit: set msix to at least {}",
            wanted.num_msix.unwrap_or(most_msix),
            LEAST_QUEUES + 1
        );
        return Err((Reason::QueuesAboveLimit, message));
    }
    let has_queues = found.is_some_and(|found| wanted.max_queues == Some(found.max_queues));
    if let Some(queues) = wanted.max_queues.filter(|queues| *queues > most_queues && !has_queues) {
        let message = format!(
            "queues.max {queues} is above {most_queues}: one less than the MSI-X vectors ({}), and at most max_virtq ({})",
            wanted.num_msix.unwrap_or(most_msix),
            limits.max_virtq
        );
        return Err((Reason::QueuesAboveLimit, message));
    }
    let has_size = found.is_some_and(|found| wanted.queue_size == Some(found.max_queue_size));
    if let Some(size) = wanted.queue_size.filter(|size| *size > limits.max_queue_size && !has_size) {
        let message =
            format!("queues.size {size} is above {}, the most this device takes", limits.max_queue_size);
        return Err((Reason::QueuesAboveLimit, message));
    }
    let had = found.map(|found| &found.features);
    if let Some(features) = wanted.features.as_ref()
        && !features.is_subset(&limits.features)
        && had != Some(features)
    {
        let missing: Vec<_> = features.missing_from(&limits.features).map(Feature::name).collect();
        let message = format!("features {} are not offered by this DPU", missing.join(", "));
        return Err((Reason::FeatureUnsupported, message));
    }
    if let WantedFunction::Vf { transitional: true, .. } = wanted.function
        && !limits.transitional.vf
    {
        return Err((Reason::TransitionalUnsupported, transitional_vf()));
    }
    Ok(())
}

fn most_queues(wanted: &Wanted, limits: &Limits, most_msix: u16) -> u16 {
    wanted.num_msix.unwrap_or(most_msix).saturating_sub(1).min(limits.max_virtq)
}

/// The hot-plug that makes the function as wanted, or why none can.
pub(super) fn request(wanted: &Wanted, limits: &Limits) -> Result<HotplugRequest, (Reason, String)> {
    let WantedFunction::HotPlug { mac, transitional, sf_number, host, .. } = &wanted.function else {
        return Err((Reason::StepFailed, "not a hot-plugged function".into()));
    };
    check(wanted, None, limits)?;
    let Some(need) = Need::of(&wanted.function, limits) else {
        return Err((Reason::StepFailed, "not a hot-plugged function".into()));
    };
    if !limits.uplinks.contains(&need.uplink) {
        let uplinks: Vec<_> = limits.uplinks.iter().map(ToString::to_string).collect();
        let message = format!("uplink {} is not there: this DPU has {}", need.uplink, uplinks.join(" and "));
        return Err((Reason::UplinkAbsent, message));
    }
    let most = most_queues(wanted, limits, limits.pf_msix);
    Ok(HotplugRequest {
        uplink: need.uplink,
        mac: *mac,
        mtu: wanted.mtu.unwrap_or(Mtu::DEFAULT),
        max_queues: wanted.max_queues.unwrap_or(DEFAULT_QUEUES.min(most)),
        queue_size: wanted.queue_size.unwrap_or(QueueSize::DEFAULT.min(limits.max_queue_size)),
        num_msix: wanted.num_msix,
        features: wanted.features.clone(),
        transitional: *transitional,
        sf_number: *sf_number,
        host: host.clone(),
    })
}
