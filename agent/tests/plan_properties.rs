//! What holds of every plan, whatever the devices and whatever is observed: tried on worlds made from seeds.

#[cfg(test)]
#[path = "support/fixture.rs"]
mod fixture;
#[cfg(test)]
#[path = "support/worlds.rs"]
mod worlds;

#[cfg(test)]
mod properties {
    use std::collections::{BTreeMap, BTreeSet};

    use jiff::Timestamp;
    use virtnet_agent::{Free, Part, Plan, Stand, Step, Uid, WantedFunction, device_status, plan};
    use virtnet_crds::Reason;
    use virtnet_crds::conditions::{RECONCILING, STALLED};
    use virtnet_model::{FunctionId, FunctionKind, IfName, Owner, Port, SfNumber, Target};

    use super::fixture::{DPU, World};
    use super::worlds::{parts, world};

    const SEEDS: u64 = 1_000;

    /// What `check` finds wrong, with the seed that shows it again.
    fn for_every_world(check: impl Fn(&World, &Plan)) {
        for seed in 0..SEEDS {
            let world = world(seed);
            let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                check(&world, &plan(&world.input()));
            }));
            assert!(shown.is_ok(), "seed {seed}: {world:#?}");
        }
    }

    #[test]
    fn the_same_world_gives_the_same_plan_in_whatever_order_objects_came() {
        for seed in 0..SEEDS {
            let (fixture, spec, mut objects) = parts(seed);
            let first = plan(&World::new(&fixture, spec.clone(), objects.clone()).input());
            objects.reverse();
            let again = plan(&World::new(&fixture, spec, objects).input());
            assert_eq!(first.steps, again.steps, "seed {seed}");
            assert_eq!(first.devices, again.devices, "seed {seed}");
        }
    }

    #[test]
    fn the_worlds_are_varied_enough_for_every_kind_of_step() {
        let steps: BTreeSet<_> = (0..SEEDS)
            .flat_map(|seed| plan(&world(seed).input()).steps)
            .map(|step| step.event_reason())
            .collect();
        let expected = [
            "MacClaimed",
            "Modified",
            "Plugged",
            "PortRemoved",
            "PortSet",
            "Registered",
            "Released",
            "RepresentorSet",
            "Unplugged",
            "VfsSet",
        ];
        assert!(steps.iter().eq(&expected), "{steps:?}");
    }

    #[test]
    fn every_condition_gives_a_reason_that_the_table_has_for_it() {
        for_every_world(|world, plan| {
            for (uid, assessment) in &plan.devices {
                let object = world.objects.get(uid);
                let before = object.and_then(|object| object.status.clone()).unwrap_or_default();
                let status = device_status(1, assessment, &before, Timestamp::UNIX_EPOCH);
                for condition in status.conditions {
                    let reason = Reason::ALL.iter().find(|reason| reason.as_str() == condition.reason);
                    let allowed = reason.map_or(&[][..], |reason| reason.conditions());
                    let kstatus = [RECONCILING, STALLED].contains(&&*condition.type_);
                    assert!(kstatus || allowed.contains(&&*condition.type_), "{uid}: {condition:?}");
                }
            }
        });
    }

    #[test]
    fn a_device_that_is_not_ready_says_why() {
        for_every_world(|world, plan| {
            assert_eq!(plan.devices.len(), world.devices.len());
            for (uid, assessment) in &plan.devices {
                let stands =
                    [Some(&assessment.function), Some(&assessment.representor), assessment.port.as_ref()];
                for stand in stands.into_iter().flatten() {
                    if let Stand::Not(reason, message) = stand {
                        assert!(!message.trim().is_empty(), "{uid}: {reason} without a message");
                        assert_ne!(*reason, Reason::Ready, "{uid}");
                    }
                }
                if world.devices[uid].deleting {
                    assert!(!assessment.overall().is_ready(), "{uid} is being deleted");
                }
            }
        });
    }

    #[test]
    fn a_part_gets_one_step_and_none_while_it_is_busy_or_held() {
        for_every_world(|world, plan| {
            let mut seen = BTreeSet::new();
            for step in &plan.steps {
                let Some(device) = step.device() else { continue };
                let key = (device.uid.clone(), step.part());
                assert!(!world.busy.contains(&key), "{step} while {key:?} is busy");
                assert!(!world.held.contains_key(&key), "{step} while {key:?} is held");
                // Several ports of one device change in one transaction, each once.
                let port = port_name(step).cloned();
                assert!(seen.insert((key, port)), "{step} is the second");
            }
        });
    }

    #[test]
    fn a_device_never_gets_a_second_function_nor_two_one_mac() {
        for_every_world(|world, plan| {
            let mut macs = BTreeSet::new();
            let state = world.observed.controller.as_ref().ok();
            for step in &plan.steps {
                let Step::Hotplug { device, request } = step else { continue };
                let state = state.expect("nothing is plugged without the controller");
                assert!(macs.insert(request.mac), "{step}: the MAC is given twice");
                let bearer = state.functions.values().find(|function| function.mac == request.mac);
                assert!(bearer.is_none(), "{step}: {bearer:?} has the MAC");
                let object = &world.devices[&device.uid];
                assert!(object.finalizer && object.macs.contains(&request.mac), "{step} is not registered");
                let looked_for = world.free.get(&device.uid);
                assert!(
                    !object.declares_mac() || looked_for == Some(&Free { mac: request.mac, noted: true }),
                    "{step}: nobody looked whether another of the fleet has the MAC"
                );
                assert!(!object.deleting, "{step}: it is being deleted");
                let own = state.functions.values().find(|function| {
                    function.kind == FunctionKind::HotPlug
                        && Some(function.mac) == object.known.as_ref().and_then(|known| known.hotplug_mac)
                        && !belongs_to_another(plan, &device.uid, function.id)
                });
                let sf = state_sf_wanted(world, &device.uid);
                assert!(
                    own.is_none() || sf.is_some(),
                    "{step}: its status tells of {own:?}, which nobody else has"
                );
            }
        });
    }

    #[test]
    fn no_function_is_two_devices() {
        for_every_world(|world, plan| {
            let mut held = BTreeMap::new();
            for (uid, assessment) in &plan.devices {
                let (Some(function), device) = (&assessment.found, &world.devices[uid]) else { continue };
                let other = held.insert(function.id, uid);
                assert!(other.is_none(), "{} is {uid}'s and {other:?}'s", function.id);
                // One of the two tells the fleet of its MAC at any time: its object, or the report.
                let known = device.known.as_ref().and_then(|known| known.mac) == Some(function.mac);
                let told = known || device.macs.contains(&function.mac);
                let reported = plan.dpu.undeclared.contains(&function.id);
                assert!(told || reported, "nothing tells of {}", function.id);
                assert!(device.deleting || !(told && reported), "{} is declared", function.id);
            }
        });
    }

    #[test]
    fn only_a_devices_own_hot_plugged_function_is_unplugged_and_only_its_own_is_changed() {
        for_every_world(|world, plan| {
            for step in &plan.steps {
                let (device, target) = match step {
                    Step::Unplug { device, target, .. } => {
                        assert!(matches!(target, Target::HotPlug { .. }), "{step}");
                        (device, target)
                    }
                    Step::Modify { device, target, .. } => (device, target),
                    _ => continue,
                };
                let state =
                    world.observed.controller.as_ref().expect("nothing is changed without the controller");
                let found = &plan.devices[&device.uid].found;
                match (found, state.find(target)) {
                    (Some(own), Some(function)) => assert_eq!(own.id, function.id, "{step}"),
                    (None, None) => assert!(matches!(target, Target::Vf(..)), "{step}: there is no function"),
                    (own, function) => panic!("{step}: {own:?} is not {function:?}"),
                }
                if let (Step::Unplug { .. }, Some(own)) = (step, found) {
                    let object = &world.devices[&device.uid];
                    let reported = object.known.as_ref().and_then(|known| known.hotplug_mac);
                    assert!(
                        object.macs.contains(&own.mac) || reported == Some(own.mac),
                        "{step}: it never noted nor reported the MAC"
                    );
                }
            }
        });
    }

    #[test]
    fn only_ports_with_our_marks_for_this_dpu_are_touched() {
        for_every_world(|world, plan| {
            for step in &plan.steps {
                let Some(name) = port_name(step) else { continue };
                let switch = world.observed.switch.as_ref().expect("no port is touched without the switch");
                let owner = switch.ports.get(name).map(Port::owner);
                match (step, owner) {
                    (Step::SetPort { .. }, None) => {}
                    (Step::SetPort { device, .. }, Some(Some(owner))) => {
                        assert_eq!(owner.dpu, DPU, "{step}");
                        let living = world.devices.contains_key(&Uid::from(owner.uid.as_str()));
                        assert!(owner.uid == device.uid.as_str() || !living, "{step}: it is {owner}'s");
                    }
                    (Step::RemovePort { device, owner: marks, .. }, Some(Some(owner))) => {
                        assert_eq!((&owner, owner.dpu.as_str()), (marks, DPU), "{step}");
                        match device {
                            Some(device) => assert_eq!(owner.uid, device.uid.as_str(), "{step}"),
                            None => assert!(is_ripe_orphan(world, name, &owner), "{step}"),
                        }
                    }
                    (_, owner) => panic!("{step}: the port is {owner:?}'s"),
                }
            }
        });
    }

    #[test]
    fn a_representor_is_touched_only_where_its_names_agree() {
        for_every_world(|world, plan| {
            for step in &plan.steps {
                let name = match step {
                    Step::SetLink { sf, .. } => &sf.representor,
                    Step::SetPort { name, .. } => name,
                    _ => continue,
                };
                let device = step.device().expect("it is a device's");
                let own = plan.devices[&device.uid].sf.as_ref().expect("it has an SF");
                assert_eq!(own.representor, *name, "{step}");
                let links = world.observed.links.as_ref().expect("none is touched without links");
                assert!(links[name].represents(own), "{step}");
            }
        });
    }

    #[test]
    fn removals_come_before_additions_and_nothing_is_made_before_it_is_registered() {
        for_every_world(|world, plan| {
            let additions = plan.steps.iter().position(|step| {
                matches!(step, Step::Hotplug { .. } | Step::SetPort { .. } | Step::SetNumVfs { .. })
            });
            let removals = plan
                .steps
                .iter()
                .rposition(|step| matches!(step, Step::RemovePort { .. } | Step::Unplug { .. }));
            if let (Some(addition), Some(removal)) = (additions, removals) {
                assert!(removal < addition, "{:?}", plan.steps);
            }
            for step in &plan.steps {
                let made = matches!(step.part(), Part::Function | Part::Representor)
                    || matches!(step, Step::SetPort { .. });
                if let (true, Some(device)) = (made, step.device()) {
                    assert!(world.devices[&device.uid].finalizer, "{step}");
                }
            }
        });
    }

    #[test]
    fn capacity_is_never_overdrawn() {
        for_every_world(|world, plan| {
            let Ok(state) = &world.observed.controller else { return };
            let hotplugs = plan.steps.iter().filter(|step| matches!(step, Step::Hotplug { .. })).count();
            let present =
                state.functions.values().filter(|function| function.kind == FunctionKind::HotPlug).count();
            assert!(
                hotplugs == 0 || hotplugs + present <= usize::from(state.limits.hotplug_slots),
                "{hotplugs} are plugged beside {present}"
            );
            for (port, sfs) in &state.limits.sfs {
                let drawn = plan.steps.iter().filter(
                    |step| matches!(step, Step::Hotplug { request, .. } if request.uplink.port() == *port),
                );
                assert!(drawn.count() <= usize::try_from(sfs.free()).unwrap(), "SFs of {port}");
            }
        });
    }

    #[test]
    fn a_released_object_gets_no_step_but_the_removal_of_its_port() {
        for_every_world(|world, plan| {
            for step in plan.steps.iter().filter(|step| !matches!(step, Step::RemovePort { .. })) {
                let Some(device) = step.device() else { continue };
                assert!(!world.devices[&device.uid].is_released(), "{step}");
            }
        });
    }

    fn port_name(step: &Step) -> Option<&IfName> {
        match step {
            Step::SetPort { name, .. } | Step::RemovePort { name, .. } => Some(name),
            _ => None,
        }
    }

    fn belongs_to_another(plan: &Plan, uid: &Uid, function: FunctionId) -> bool {
        plan.devices.iter().any(|(other, assessment)| {
            other != uid && assessment.found.as_ref().is_some_and(|own| own.id == function)
        })
    }

    fn state_sf_wanted(world: &World, uid: &Uid) -> Option<SfNumber> {
        match &world.devices[uid].wanted.as_ref().ok()?.function {
            WantedFunction::HotPlug { sf_number, .. } => *sf_number,
            _ => None,
        }
    }

    fn is_ripe_orphan(world: &World, name: &IfName, owner: &Owner) -> bool {
        !world.devices.contains_key(&Uid::from(owner.uid.as_str()))
            && world.suspects.contains(&(name.clone(), owner.clone()))
    }
}
