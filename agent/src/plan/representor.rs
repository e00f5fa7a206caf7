//! The representor of a device's SF: admin state and MTU, only where name and `phys_port_name` agree.

use virtnet_crds::Reason;
use virtnet_model::{Function, LinkChange, SubFunction};

use super::{For, Input, Part, Stand, Step};
use crate::desired::{Device, Wanted};

pub(super) fn plan(
    input: &Input<'_>,
    device: &Device,
    wanted: &Wanted,
    function: &Function,
    sf: &SubFunction,
    steps: &mut Vec<Step>,
) -> Stand {
    let links = match &input.observed.links {
        Ok(links) => links,
        Err(error) => return Stand::not(Reason::LinksUnavailable, error),
    };
    let Some(link) = links.get(&sf.representor) else {
        let message = format!("waiting for the representor {} to appear", sf.representor);
        return Stand::not(Reason::RepresentorAbsent, message);
    };
    if !link.represents(sf) {
        let message = format!("{} is left alone: {}", sf.representor, link.mismatch(sf));
        return Stand::not(Reason::RepresentorMismatch, message);
    }
    let change = LinkChange {
        up: (link.up != wanted.up).then_some(wanted.up),
        // While the function keeps another MTU a smaller one here would drop its traffic, and a larger one gains nothing.
        mtu: wanted.mtu.filter(|mtu| *mtu == function.mtu && link.mtu != u32::from(*mtu)),
    };
    if change == LinkChange::default() {
        return Stand::Ready;
    }
    let key = (device.uid.clone(), Part::Representor);
    if let Some((reason, message)) = input.held.get(&key) {
        return Stand::not(*reason, message);
    }
    if !input.busy.contains(&key) && device.finalizer {
        steps.push(Step::SetLink { device: For::device(device), sf: sf.clone(), change });
    }
    let reason = if change.up == Some(true) { Reason::RepresentorDown } else { Reason::Applying };
    Stand::not(reason, format!("setting {} to {change}", sf.representor))
}
