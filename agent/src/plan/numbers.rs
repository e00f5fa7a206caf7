//! Numbers of SFs: who asks for one comes before who takes what the controller chooses.

use std::collections::BTreeSet;

use virtnet_model::EswitchPort;

use super::budget::Need;
use super::{Input, Part, Plan, Removal, Step};
use crate::desired::Uid;

/// Leaves hot-plugs whose number is the controller's to choose for a later plan, while others on the same port that ask for
/// one are planned or under way. Calls run side by side, so their order in the plan would not keep the controller from
/// giving away what another asks for. One that waits for its retry holds up nobody.
pub(super) fn leave_for_later(input: &Input<'_>, plan: &mut Plan) {
    let Ok(state) = &input.observed.controller else { return };
    let asked_on = |uid: &Uid| {
        let device = input.devices.get(uid).filter(|device| !device.deleting)?;
        let need = Need::of(&device.wanted.as_ref().ok()?.function, &state.limits)?;
        need.sf_number.map(|_| need.uplink.port())
    };
    let planned = plan.steps.iter().filter(|step| {
        // What is unplugged to be plugged anew gives up its number only to have it again.
        matches!(step, Step::Hotplug { .. } | Step::Unplug { why: Removal::Replug, .. })
    });
    let planned = planned.filter_map(Step::device).map(|device| &device.uid);
    let under_way = input.busy.iter().filter(|(_, part)| *part == Part::Function).map(|(uid, _)| uid);
    let ports: BTreeSet<EswitchPort> = planned.chain(under_way).filter_map(asked_on).collect();
    plan.steps.retain(|step| {
        let Step::Hotplug { request, .. } = step else { return true };
        request.sf_number.is_some() || !ports.contains(&request.uplink.port())
    });
}
