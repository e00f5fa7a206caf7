//! Binding: which device goes to which DPU. Pure, over the whole fleet at once: no clock, no I/O.

use std::collections::BTreeMap;

use virtnet_crds::Reason;

use super::macs::{Macs, Verdict};
use super::room::Room;
use crate::fleet::{Device, Need, Target, none_selected};

/// How long a message may become, in bytes: a condition's is 32,768 at most.
const TOLD: usize = 16_384;

/// All that a plan is made from.
#[derive(Debug)]
pub(super) struct Input<'a> {
    /// All devices, by uid.
    pub(super) devices: &'a BTreeMap<String, Device>,
    /// All DPUs.
    pub(super) dpus: &'a BTreeMap<String, Target>,
    /// Devices by uid that are being bound, each with its DPU.
    pub(super) under_way: &'a BTreeMap<String, String>,
    /// Pairs of a device's uid and a DPU's name that were tried and refused, with what was said.
    pub(super) barred: &'a BTreeMap<(String, String), String>,
}

/// What to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Devices by uid, each with the DPU that it is to be bound to.
    pub(super) bind: BTreeMap<String, String>,
    /// Devices that nothing can be found for, and why.
    pub(super) waiting: BTreeMap<String, (Reason, String)>,
    /// Devices that still bear the binder's conditions and need them no longer.
    pub(super) clear: Vec<String>,
}

/// Makes the plan. Senior devices choose first, each the DPU that has most room left.
pub(super) fn plan(input: &Input<'_>) -> Plan {
    let mut rooms: BTreeMap<&str, (&Target, Room)> =
        input.dpus.values().map(|target| (target.name(), (target, Room::of(target)))).collect();
    let mut seekers = Vec::new();
    let mut plan = Plan::default();
    for (uid, device) in input.devices {
        if let Some(dpu) = input.under_way.get(uid) {
            if let Some((_, room)) = rooms.get_mut(dpu.as_str()) {
                room.take(device);
            }
            continue;
        }
        match device.dpu() {
            Some(dpu) => {
                if device.told.is_some() {
                    plan.clear.push(uid.clone());
                }
                if may_move(device) {
                    seekers.push(device);
                }
                if !is_queueing(device)
                    && let Some((_, room)) = rooms.get_mut(dpu)
                {
                    room.take(device);
                }
            }
            None if device.is_deleting() => {}
            None => seekers.push(device),
        }
    }
    seekers.sort_by_key(|device| device.seniority());
    // Most fleets name no MACs, and need no index of them.
    let named = seekers.iter().any(|device| device.dpu().is_none() && device.wanted_mac.is_some());
    let macs = if named { Macs::of(input.devices, input.dpus) } else { Macs::default() };
    for device in seekers {
        let uid = device.uid().to_owned();
        // Who else has an SF's number, no object tells: that it seems free there is no cause to wait for it.
        let is_told = device.refusal.as_ref().is_none_or(|(reason, _)| *reason != Reason::SfNumberInUse);
        if is_queueing(device)
            && is_told
            && let Some((_, room)) = device.dpu().and_then(|dpu| rooms.get_mut(dpu))
            && room.fit(device).is_ok()
        {
            // There is room again, and its agent is about to make the function.
            room.take(device);
            continue;
        }
        let may_go = |dpu: &str| rooms.get(dpu).is_some_and(|(target, _)| is_selected(target, device));
        let verdict = if device.dpu().is_some() { Verdict::Free } else { macs.verdict(device, may_go) };
        let chosen = match verdict {
            Verdict::Free => choose(device, &rooms, input.barred),
            Verdict::Only(dpu) => adopt(device, dpu, &rooms, input.barred),
            Verdict::Claimed(why) => Err((Reason::MacClaimed, why)),
        };
        match chosen {
            Ok(dpu) => {
                if let Some((_, room)) = rooms.get_mut(dpu.as_str()) {
                    room.take(&Device { has_function: false, representor: None, ..device.clone() });
                }
                plan.bind.insert(uid, dpu);
            }
            Err(why) => match device.dpu() {
                None => {
                    plan.waiting.insert(uid, why);
                }
                // The agent of the DPU that it is bound to tells why it waits.
                Some(dpu) => {
                    if is_queueing(device)
                        && let Some((_, room)) = rooms.get_mut(dpu)
                    {
                        room.take(device);
                    }
                }
            },
        }
    }
    plan
}

/// A device that was bound here and that its agent refuses, for what that DPU is or has, before there is a function.
fn may_move(device: &Device) -> bool {
    device.bound_by_us && !device.has_function && !device.is_deleting() && device.refusal.is_some()
}

/// A device that may move and that the DPU refused for want of room: it has none there before it is its turn.
fn is_queueing(device: &Device) -> bool {
    let wants_room = [Reason::NoFreeSlot, Reason::SfExhausted, Reason::SfNumberInUse];
    let refused = device.refusal.as_ref().is_some_and(|(reason, _)| wants_room.contains(reason));
    refused && may_move(device) && matches!(device.need, Need::HotPlug { .. })
}

fn is_selected(target: &Target, device: &Device) -> bool {
    target.is_selected(device.spec.dpu_selector.as_ref())
}

/// The DPU that has the function already: what that takes it has.
fn adopt(
    device: &Device,
    dpu: &str,
    rooms: &BTreeMap<&str, (&Target, Room)>,
    barred: &BTreeMap<(String, String), String>,
) -> Result<String, (Reason, String)> {
    let bar = barred.get(&(device.uid().to_owned(), dpu.to_owned())).map(String::as_str);
    match bar.or_else(|| rooms.get(dpu).and_then(|(_, room)| room.closed())) {
        None => Ok(dpu.to_owned()),
        Some(why) => {
            let mac = device.wanted_mac.as_deref().unwrap_or_default();
            Err((Reason::NoDpuFits, format!("{dpu}, which has a function with MAC {mac}: {why}")))
        }
    }
}

/// The DPU for a device, or why there is none.
fn choose(
    device: &Device,
    rooms: &BTreeMap<&str, (&Target, Room)>,
    barred: &BTreeMap<(String, String), String>,
) -> Result<String, (Reason, String)> {
    let mut best = None;
    let mut obstacles = Vec::new();
    let selected = rooms.iter().filter(|(_, (target, _))| is_selected(target, device));
    for (name, (_, room)) in selected.filter(|(name, _)| Some(**name) != device.dpu()) {
        let bar = barred.get(&(device.uid().to_owned(), (*name).to_owned()));
        match bar.map_or_else(|| room.fit(device), |said| Err(said.clone())) {
            // The first by name of those that are alike.
            Ok(fit) if best.as_ref().is_none_or(|(best, _)| fit > *best) => best = Some((fit, *name)),
            Ok(_) => {}
            Err(why) => obstacles.push(format!("{name}: {why}")),
        }
    }
    if let Some((_, name)) = best {
        return Ok(name.to_owned());
    }
    if obstacles.is_empty() {
        return Err((Reason::NoDpuSelected, none_selected(device.spec.dpu_selector.as_ref())));
    }
    let mut room = TOLD;
    let told = obstacles.iter().take_while(|obstacle| {
        let fits = obstacle.len() <= room;
        room = room.saturating_sub(obstacle.len() + 2);
        fits
    });
    let told = told.count();
    let more = obstacles.len() - told;
    obstacles.truncate(told);
    if more > 0 {
        obstacles.push(format!("and {more} more DPUs"));
    }
    Err((Reason::NoDpuFits, obstacles.join("; ")))
}

#[cfg(test)]
mod tests {
    use std::borrow::Borrow;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::fleet::Kept;

    /// A DPU of this name with this many slots and SFs of p0, `used` of them in use by functions that nobody declares.
    fn dpu(name: &str, slots: u32, sfs: u32, used: u32) -> Target {
        let undeclared: Vec<_> = (0..used)
            .map(|index| json!({
                "vuid": format!("VNETS{index}"), "type": "HotPlug", "representor": format!("en3f0pf0sf{}", 2000 + index),
            }))
            .collect();
        let object = json!({
            "metadata": {"name": name, "uid": name, "labels": {"rack": &name[..1]}},
            "spec": {},
            "status": {
                "capacity": {
                    "hotplugSlots": slots, "msix": 64,
                    "sfs": [{"port": "p0", "count": sfs}, {"port": "p1", "count": 0}], "vfs": [{"pf": 0, "count": 4}],
                },
                "allocated": {"hotplugSlots": used, "sfs": [{"port": "p0", "count": used}], "vfs": [{"pf": 0, "count": 2}]},
                "undeclared": undeclared,
            },
        });
        Target::keep(serde_json::from_value(object).unwrap()).unwrap()
    }

    /// A device of this uid, which is older than those of higher ones, that may go to any DPU.
    fn device(uid: u32, spec: impl Borrow<Value>, status: impl Borrow<Value>) -> Device {
        let (spec, status): (&Value, &Value) = (spec.borrow(), status.borrow());
        let mut merged = json!({"dpuSelector": {}, "function": {"hotplug": {}}});
        for (key, value) in spec.as_object().unwrap() {
            merged[key] = value.clone();
        }
        let owner = json!([{
            "manager": "virtnet-binder", "operation": "Apply", "apiVersion": "virtnet.dev/v1alpha1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:dpu": {}}},
        }]);
        let object = json!({
            "metadata": {
                "namespace": "shop", "name": format!("web-{uid}"), "uid": format!("{uid:04}"), "generation": 1,
                "managedFields": owner,
            },
            "spec": merged, "status": status,
        });
        Device::keep(serde_json::from_value(object).unwrap()).unwrap()
    }

    fn refused(reason: &str) -> Value {
        json!({
            "observedGeneration": 1,
            "conditions": [{
                "type": "FunctionReady", "status": "False", "reason": reason, "message": "refused",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        })
    }

    fn planned(devices: &[Device], dpus: &[Target], barred: &[(&str, &str)]) -> Plan {
        let devices = devices.iter().map(|device| (device.uid().to_owned(), device.clone())).collect();
        let dpus = dpus.iter().map(|target| (target.name().to_owned(), target.clone())).collect();
        let barred =
            barred.iter().map(|(uid, dpu)| (((*uid).to_owned(), (*dpu).to_owned()), "no".to_owned()));
        plan(&Input {
            devices: &devices,
            dpus: &dpus,
            under_way: &BTreeMap::new(),
            barred: &barred.collect(),
        })
    }

    fn bound(plan: &Plan) -> Vec<(&str, &str)> {
        plan.bind.iter().map(|(uid, dpu)| (uid.as_str(), dpu.as_str())).collect()
    }

    fn message(plan: &Plan, uid: &str) -> String {
        let (reason, message) = &plan.waiting[uid];
        format!("{reason}: {message}")
    }

    #[test]
    fn devices_are_spread_by_what_is_free_and_the_older_choose_first() {
        let devices: Vec<_> = (0..5).map(|uid| device(uid, json!({}), Value::Null)).collect();
        let plan = planned(&devices, &[dpu("a", 2, 9, 0), dpu("b", 3, 9, 1)], &[]);
        assert_eq!(bound(&plan), [("0000", "a"), ("0001", "b"), ("0002", "a"), ("0003", "b")]);
        assert_eq!(message(&plan, "0004"), "NoDpuFits: a: 0 of 2 slots free; b: 0 of 3 slots free");
    }

    #[test]
    fn what_stands_in_the_way_is_told_of_each_candidate() {
        let dpus = [dpu("a", 0, 9, 0), dpu("b", 4, 2, 2), dpu("c", 4, 9, 1)];
        for (spec, why) in [
            (
                json!({"function": {"hotplug": {"uplink": "p1"}}}),
                "NoDpuFits: a: 0 of 0 slots free; b: PF_TOTAL_SF of p1 is spent; c: PF_TOTAL_SF of p1 is spent",
            ),
            (
                json!({"function": {"hotplug": {"sfNumber": 2000}}}),
                "NoDpuFits: a: 0 of 0 slots free; b: PF_TOTAL_SF of p0 is spent; c: SF 2000 of p0 is in use",
            ),
            (
                json!({"function": {"static": {"pf": 1}}}),
                "NoDpuFits: a: it has no static PF 1; b: it has no static PF 1; c: it has no static PF 1",
            ),
            (
                json!({"function": {"vf": {"pf": 0, "vf": 4}}}),
                "NoDpuFits: a: PF 0 has 4 VFs at most; b: PF 0 has 4 VFs at most; c: PF 0 has 4 VFs at most",
            ),
            (
                json!({"msix": 65, "dpuSelector": {"matchLabels": {"rack": "a"}}}),
                "NoDpuFits: a: a function has 64 MSI-X vectors at most, not 65",
            ),
            (
                json!({"dpuSelector": {"matchLabels": {"rack": "x"}}}),
                "NoDpuSelected: no Dpu has the labels rack=x",
            ),
        ] {
            let plan = planned(&[device(0, spec.clone(), Value::Null)], &dpus, &[]);
            assert_eq!(message(&plan, "0000"), why, "{spec}");
        }
    }

    #[test]
    fn a_vf_goes_where_its_index_is_free() {
        let vf = json!({"function": {"vf": {"pf": 0, "vf": 1}}});
        let mut there = vf.clone();
        there["dpu"] = json!("a");
        let devices =
            [device(0, there, Value::Null), device(1, vf.clone(), Value::Null), device(2, vf, Value::Null)];
        let plan = planned(&devices, &[dpu("a", 0, 9, 0), dpu("b", 0, 9, 0)], &[]);
        assert_eq!(bound(&plan), [("0001", "b")]);
        assert_eq!(
            message(&plan, "0002"),
            "NoDpuFits: a: shop/web-0 declares VF 1 of PF 0; b: shop/web-1 declares VF 1 of PF 0"
        );
    }

    #[test]
    fn a_dpu_that_is_going_or_silent_or_unknown_gets_nothing() {
        let (mut going, mut silent, mut unknown) = (dpu("a", 4, 9, 0), dpu("b", 4, 9, 0), dpu("c", 4, 9, 0));
        going.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        silent.trouble = Some("its agent is silent");
        unknown.reported = None;
        let plan = planned(&[device(0, json!({}), Value::Null)], &[going, silent, unknown], &[]);
        assert_eq!(
            message(&plan, "0000"),
            "NoDpuFits: a: it is being deleted; b: its agent is silent; c: its agent has not reported what it has"
        );
    }

    #[test]
    fn what_an_agent_refuses_before_there_is_a_function_goes_elsewhere_and_nothing_else_moves() {
        let dpus = [dpu("a", 4, 9, 4), dpu("b", 4, 9, 0)];
        let on_a = json!({"dpu": "a"});
        assert_eq!(
            bound(&planned(&[device(0, on_a.clone(), refused("NoFreeSlot"))], &dpus, &[])),
            [("0000", "b")]
        );
        let barred = planned(&[device(0, on_a.clone(), refused("NoFreeSlot"))], &dpus, &[("0000", "b")]);
        assert_eq!(barred, Plan::default(), "it was refused there too");
        let mut made = refused("NoFreeSlot");
        made["function"] = json!({"vuid": "V", "type": "HotPlug"});
        let mut elder = refused("NoFreeSlot");
        elder["observedGeneration"] = json!(0);
        for status in [Value::Null, refused("HostOff"), refused("Creating"), made, elder] {
            assert_eq!(
                planned(&[device(0, on_a.clone(), status.clone())], &dpus, &[]),
                Plan::default(),
                "{status}"
            );
        }
        let room_again = [dpu("a", 4, 9, 3), dpu("b", 4, 9, 0)];
        let refusals = [device(0, &on_a, refused("NoFreeSlot")), device(1, &on_a, refused("NoFreeSlot"))];
        assert_eq!(
            bound(&planned(&refusals, &room_again, &[])),
            [("0001", "b")],
            "the older one gets the slot"
        );
        let numbered = json!({"dpu": "a", "function": {"hotplug": {"sfNumber": 2005}}});
        let numbered = device(0, numbered, refused("SfNumberInUse"));
        assert_eq!(
            bound(&planned(&[numbered], &room_again, &[])),
            [("0000", "b")],
            "another program's number"
        );
        let mut theirs = device(0, on_a, refused("NoFreeSlot"));
        theirs.bound_by_us = false;
        assert_eq!(planned(&[theirs], &dpus, &[]), Plan::default(), "a person bound it");
    }

    #[test]
    fn a_mac_is_one_devices_and_the_others_wait_for_that() {
        let mac =
            |uid: u32, dpu: Value| device(uid, json!({"mac": "0C:c4:7a:00:00:01", "dpu": dpu}), Value::Null);
        let dpus = [dpu("a", 4, 9, 0), dpu("b", 4, 9, 0)];
        let claimed = |by: &str| {
            format!("MacClaimed: MAC 0c:c4:7a:00:00:01 is that of {by}; choose another, or delete that one")
        };
        // The older is bound, whichever it is; what is bound is first.
        let plan = planned(&[mac(1, Value::Null), mac(0, Value::Null)], &dpus, &[]);
        assert_eq!(bound(&plan), [("0000", "a")]);
        assert_eq!(message(&plan, "0001"), claimed("shop/web-0"));
        let plan = planned(&[mac(0, Value::Null), mac(1, json!("b"))], &dpus, &[]);
        assert_eq!(message(&plan, "0000"), claimed("shop/web-1 on b"));
        // One that notes it may have it, and one that is seen with it has it, whatever they want and wherever they are.
        let mut notes = device(1, json!({}), Value::Null);
        notes.macs.push("0c:c4:7a:00:00:01".to_owned());
        notes.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        let plan = planned(&[mac(0, Value::Null), notes], &dpus, &[]);
        assert_eq!(message(&plan, "0000"), claimed("shop/web-1"));
        let plan = planned(&[mac(0, Value::Null), device(1, json!({}), Value::Null)], &dpus, &[]);
        assert_eq!(bound(&plan).len(), 2);
    }

    #[test]
    fn a_device_goes_where_its_function_is_already() {
        let of = |selector: Value| {
            device(0, json!({"mac": "0c:c4:7a:00:00:01", "dpuSelector": selector}), Value::Null)
        };
        // The slots are all taken, one of them by that function.
        let (a, mut b) = (dpu("a", 4, 9, 0), dpu("b", 2, 9, 2));
        b.reported.as_mut().unwrap().undeclared[1].mac = Some("0c:c4:7a:00:00:01".to_owned());
        let dpus = [a, b.clone()];
        assert_eq!(bound(&planned(&[of(json!({}))], &dpus, &[])), [("0000", "b")]);
        let plan = planned(&[of(json!({"matchLabels": {"rack": "a"}}))], &dpus, &[]);
        assert_eq!(
            message(&plan, "0000"),
            "MacClaimed: MAC 0c:c4:7a:00:00:01 is that of VNETS1 of b, which no object declares; choose another, or delete \
             that one"
        );
        // A function of another kind is none that it could take.
        let fixed = json!({"mac": "0c:c4:7a:00:00:01", "function": {"static": {"pf": 0}}});
        let plan = planned(&[device(0, fixed, Value::Null)], &dpus, &[]);
        assert!(message(&plan, "0000").starts_with("MacClaimed: "), "{plan:?}");
        b.trouble = Some("its agent is silent");
        assert_eq!(
            message(&planned(&[of(json!({}))], &[dpu("a", 4, 9, 0), b], &[]), "0000"),
            "NoDpuFits: b, which has a function with MAC 0c:c4:7a:00:00:01: its agent is silent"
        );
    }

    #[test]
    fn what_the_api_refused_is_told() {
        let plan = planned(&[device(0, json!({}), Value::Null)], &[dpu("a", 4, 9, 0)], &[("0000", "a")]);
        assert_eq!(message(&plan, "0000"), "NoDpuFits: a: no");
    }

    #[test]
    fn conditions_of_the_binder_are_taken_back_once_there_is_a_dpu() {
        let mut device = device(0, json!({"dpu": "a"}), Value::Null);
        device.told = Some(Vec::new());
        assert_eq!(planned(&[device], &[dpu("a", 4, 9, 0)], &[]).clear, ["0000"]);
    }

    prop_compose! {
        fn fleet()(
            dpus in prop::collection::vec((0u32..4, 0u32..6, 0u32..3), 0..5),
            devices in prop::collection::vec((0u8..4, prop::option::of(0usize..5), any::<bool>()), 0..16),
        ) -> (Vec<Device>, Vec<Target>) {
            let names = ["a", "b", "c", "d", "e"];
            let targets = dpus.iter().zip(names).map(|((slots, sfs, used), name)| dpu(name, *slots, *sfs, *used.min(slots)));
            let devices = devices.iter().enumerate().map(|(uid, (kind, on, refusal))| {
                let function = match kind {
                    0 | 1 => json!({"hotplug": {}}),
                    2 => json!({"static": {"pf": 0}}),
                    _ => json!({"vf": {"pf": 0, "vf": uid % 3}}),
                };
                let mut spec = json!({"function": function});
                if let Some(on) = on {
                    spec["dpu"] = json!(names[*on]);
                }
                let status = if *refusal { refused("NoFreeSlot") } else { Value::Null };
                device(u32::try_from(uid).unwrap(), spec, status)
            });
            (devices.collect(), targets.collect())
        }
    }

    proptest! {
        /// Carried out again and again it comes to rest: each time a device gets its first DPU, or leaves one that refused it.
        #[test]
        fn plans_that_are_carried_out_come_to_rest((mut devices, dpus) in fleet()) {
            for _ in 0..=devices.len() {
                let plan = planned(&devices, &dpus, &[]);
                if plan.bind.is_empty() {
                    return Ok(());
                }
                for device in &mut devices {
                    if let Some(dpu) = plan.bind.get(device.uid()) {
                        (device.spec.dpu, device.refusal) = (Some(dpu.clone()), None);
                    }
                }
            }
            prop_assert!(false, "it goes on for ever");
        }

        /// No DPU gets more hot-plugged devices than it has slots and SFs, nor two of one index.
        #[test]
        fn nothing_is_overcommitted((devices, dpus) in fleet()) {
            let plan = planned(&devices, &dpus, &[]);
            for target in &dpus {
                let new: Vec<_> = devices.iter().filter(|device| plan.bind.get(device.uid()).map(String::as_str) == Some(target.name())).collect();
                let stays = |device: &&Device| device.dpu() == Some(target.name()) && !is_queueing(device);
                let hot = |device: &&&Device| matches!(device.need, Need::HotPlug { .. });
                let reported = target.reported.as_ref().unwrap();
                let before = devices.iter().filter(stays).filter(|device| hot(&device)).count() + reported.undeclared.len();
                let hot_plugged = new.iter().filter(hot).count();
                if hot_plugged > 0 {
                    let most = reported.capacity.hotplug_slots.min(reported.capacity.sfs[0].count);
                    prop_assert!(u32::try_from(before + hot_plugged).unwrap() <= most);
                }
                for (index, device) in new.iter().enumerate().filter(|(_, device)| !hot(device)) {
                    let others = new[index + 1..].iter().copied().chain(devices.iter().filter(stays));
                    prop_assert!(others.into_iter().all(|other| other.need != device.need));
                }
            }
        }

        /// What waits says why, and everything without a DPU is bound or waits.
        #[test]
        fn nobody_is_forgotten((devices, dpus) in fleet()) {
            let plan = planned(&devices, &dpus, &[]);
            for device in devices.iter().filter(|device| device.dpu().is_none()) {
                let (binds, waits) = (plan.bind.contains_key(device.uid()), plan.waiting.get(device.uid()));
                prop_assert!(binds != waits.is_some_and(|(_, message)| !message.is_empty()));
            }
        }
    }
}
