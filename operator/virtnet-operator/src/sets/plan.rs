//! What to do for a set: which of its devices to make, to change and to take away now, and how it stands. Pure, a set at a
//! time: no clock, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use virtnet_crds::{Member, OnDpuLoss, Reason, SET_LABEL};

use super::standing::{Standing, Tally};
use crate::fleet::{Device, Need, Readiness, Set, Target};

/// All that a plan is made from.
pub(super) struct Input<'a> {
    pub(super) set: &'a Set,
    /// The devices that it made.
    pub(super) owned: &'a [&'a Device],
    /// The devices of its namespace by name, whoever made them.
    pub(super) named: &'a BTreeMap<&'a str, &'a Device>,
    /// All DPUs by name.
    pub(super) dpus: &'a BTreeMap<&'a str, &'a Target>,
    /// The names of the devices that are being written.
    pub(super) under_way: &'a BTreeSet<String>,
    /// The names of the devices of which a write failed lately, each with what the API said against it.
    pub(super) held: &'a BTreeMap<String, Option<(Reason, String)>>,
}

/// What to do with the devices now, and how the set stands before that.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) create: Vec<Member>,
    /// Devices that are there and are to be as the set wants them, each by name.
    pub(super) change: Vec<(String, Member)>,
    /// Devices by name that are too many, or that must be made anew.
    pub(super) delete: Vec<String>,
    /// The DPUs that this depends on.
    pub(super) hinges_on: BTreeSet<String>,
    pub(super) standing: Standing,
}

impl Plan {
    /// Whether there is something to do.
    pub(super) fn has_work(&self) -> bool {
        !(self.create.is_empty() && self.change.is_empty() && self.delete.is_empty())
    }
}

/// A device that is not as the set wants it.
struct Outdated<'a> {
    device: &'a Device,
    member: Member,
    /// It can't be changed where it is.
    replace: bool,
    /// It is out of service on a DPU that is gone or going: what is done to it is nothing to anybody.
    is_free: bool,
}

impl Outdated<'_> {
    /// First those that are out of service and lose nothing, last those of which nobody knows.
    fn class(&self) -> u8 {
        match self.device.readiness {
            Readiness::Not(_) => 0,
            Readiness::Ready => 1,
            Readiness::Unknown(_) => 2,
        }
    }
}

/// Makes the plan.
///
/// What is missing is made and what is too many goes at once. Devices that are there are changed only while fewer than
/// `maxUnavailable` are out of service, and only while fewer than that have the new template and are not Ready: so a template
/// that doesn't work stops there. One that is out of service already may be changed whatever the others are.
pub(super) fn plan(input: &Input<'_>) -> Plan {
    let Input { set, owned, named, dpus, under_way, held } = input;
    let is_leaving = |target: &Target| target.metadata.deletion_timestamp.is_some();
    let is_selected = |target: &Target| target.is_selected(Some(&set.spec.dpu_selector));
    let selected = dpus.values().filter(|target| is_selected(target) && !is_leaving(target));
    let members = match set.spec.members(selected.map(|target| target.name())) {
        Ok(members) => members,
        Err(error) => return nothing(Standing::of_error(owned, &error.to_string())),
    };
    let mut wanted: Vec<(String, Member)> =
        members.into_iter().map(|member| (member.name(set.name()), member)).collect();
    // A DPU that is gone or going may come back.
    let is_lost = |dpu: &str| dpus.get(dpu).is_none_or(|target| is_leaving(target) && is_selected(target));
    let keeps = set.spec.on_dpu_loss == OnDpuLoss::Keep;
    // The Dpu of one that came back was made anew by its agent, and nobody has labelled it yet.
    let is_newborn = |device: &Device| {
        let target = device.dpu().and_then(|dpu| dpus.get(dpu));
        target.is_some_and(|target| {
            target.metadata.labels.as_ref().is_none_or(BTreeMap::is_empty)
                && target.metadata.creation_timestamp > device.metadata.creation_timestamp
        })
    };
    let stays = |device: &Device| keeps && (device.dpu().is_some_and(is_lost) || is_newborn(device));
    let kept = owned.iter().filter(|device| stays(device)).filter_map(|device| kept(set, device));
    let kept: Vec<_> = kept.map(|member| (member.name(set.name()), member)).collect();
    let selected: BTreeSet<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
    wanted.extend(kept.into_iter().filter(|(name, _)| !selected.contains(name)));

    let mut plan = nothing(Standing::default());
    let mut tally = Tally::of(set, owned);
    let mut outdated = Vec::new();
    // Out of service; and of those, the ones that have or will have the new template.
    let (mut unavailable, mut unproven) = (0, 0);
    for (name, member) in &wanted {
        if under_way.contains(name) {
            (unavailable, unproven) = (unavailable + 1, unproven + 1);
            tally.working += 1;
            continue;
        }
        // What became of a write that got no answer is not known: the device may be changed.
        let is_in_doubt = held.get(name).is_some_and(Option::is_none);
        tally.failed.extend(is_in_doubt.then(|| name.clone()));
        let Some(device) = named.get(name.as_str()) else {
            (unavailable, unproven) = (unavailable + 1, unproven + 1);
            if !held.contains_key(name) {
                plan.create.push(member.clone());
                plan.hinges_on.extend(member.dpu().map(str::to_owned));
            }
            continue;
        };
        let is_ready = device.readiness == Readiness::Ready;
        let same_function = device.spec.function == set.spec.device_function(member);
        if device.set_uid() != Some(set.uid()) {
            let labels = device.metadata.labels.as_ref();
            let is_orphan = device.set_uid().is_none()
                && labels.and_then(|labels| labels.get(SET_LABEL)).is_some_and(|label| label == set.name());
            if !is_orphan || !same_function {
                unavailable += 1;
                tally.conflicts.push(format!("{name} is there and not of this set"));
                continue;
            }
        }
        if device.is_deleting() {
            (unavailable, unproven) = (unavailable + 1, unproven + 1);
            tally.leaving += 1;
            continue;
        }
        // What is kept on a lost DPU serves nobody, and nobody waits for it.
        let is_away = stays(device) && matches!(device.readiness, Readiness::Unknown(_));
        unavailable += usize::from((!is_ready || is_in_doubt) && !is_away);
        if device.set_uid().is_none() && device.revision() == Some(set.revision.as_str()) {
            // Nothing of it changes but whose it is.
            if !held.contains_key(name) {
                plan.change.push((name.clone(), member.clone()));
            }
            continue;
        }
        let at_lost = device.dpu().is_some_and(is_lost);
        let is_misplaced = member.dpu().is_none()
            && match device.dpu().and_then(|dpu| dpus.get(dpu)) {
                _ if stays(device) => false,
                _ if at_lost => true,
                Some(target) => !is_selected(target),
                None => false,
            };
        let is_current = device.revision() == Some(set.revision.as_str());
        if is_misplaced || !is_current {
            unproven += usize::from(is_in_doubt);
            // One that is not its own yet is taken up first.
            let replace = device.set_uid().is_some() && (is_misplaced || !same_function);
            let is_free = is_away || is_misplaced && at_lost && !is_ready;
            outdated.push(Outdated { device, member: member.clone(), replace, is_free });
            continue;
        }
        unproven += usize::from(!is_ready && !is_away);
        tally.look_at(device, &set.spec.overridden(member, &device.spec));
    }
    let wanted: BTreeSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    for device in owned.iter().filter(|device| !wanted.contains(device.name())) {
        tally.leaving += 1;
        if !device.is_deleting() && !under_way.contains(device.name()) && !held.contains_key(device.name()) {
            plan.delete.push(device.name().to_owned());
            plan.hinges_on.extend(device.dpu().map(str::to_owned));
        }
    }
    let most = usize::try_from(set.spec.max_unavailable).unwrap_or(usize::MAX);
    outdated.sort_by_key(Outdated::class);
    for Outdated { device, member, replace, is_free } in &outdated {
        let is_ready = device.readiness == Readiness::Ready;
        if held.contains_key(device.name()) {
            tally.waiting += 1;
            continue;
        }
        if !is_free && (unproven >= most || is_ready && unavailable >= most) {
            tally.waiting += 1;
            continue;
        }
        if !is_free {
            (unproven, unavailable) = (unproven + 1, unavailable + usize::from(is_ready));
        }
        if *replace {
            plan.delete.push(device.name().to_owned());
            plan.hinges_on.extend(device.dpu().map(str::to_owned));
        } else {
            plan.change.push((device.name().to_owned(), member.clone()));
        }
    }
    tally.working += plan.create.len() + plan.change.len() + plan.delete.len();
    // What the API said against a device that is no longer wanted is nothing to anybody.
    let concerns = |name: &str| {
        wanted.contains(name) || named.get(name).is_some_and(|device| device.set_uid() == Some(set.uid()))
    };
    let refused = held.iter().filter_map(|(name, said)| Some((name.as_str(), said.as_ref()?)));
    let refused = refused.filter(|(name, _)| concerns(name)).collect();
    plan.standing = tally.standing(set, wanted.len(), &refused);
    plan
}

fn nothing(standing: Standing) -> Plan {
    Plan { create: Vec::new(), change: Vec::new(), delete: Vec::new(), hinges_on: BTreeSet::new(), standing }
}

/// The member that the device is, where it is one of a VF that the set still wants.
fn kept(set: &Set, device: &Device) -> Option<Member> {
    let range = set.spec.per_vf.as_ref()?;
    let (Some(dpu), Need::Vf { vf, .. }) = (device.dpu(), &device.need) else { return None };
    let member = Member::Vf { dpu: dpu.to_owned(), vf: *vf };
    ((range.from..=range.to).contains(vf) && member.name(set.name()) == device.name()).then_some(member)
}

#[cfg(test)]
mod tests;
