//! What silence means: which devices and DPUs to call unknown, and what to let go. Pure: no clock, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use virtnet_crds::{BOUND_FINALIZER, FUNCTION_FINALIZER, Reason};

use crate::fleet::{Device, Readiness, Target};

/// What to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Devices by uid of which nothing is known any more, and why.
    pub(super) mark: BTreeMap<String, (Reason, String)>,
    /// DPUs by uid of which nothing is known any more.
    pub(super) mark_dpus: BTreeMap<String, (Reason, String)>,
    /// Devices by uid that are being deleted and whose DPU is gone.
    pub(super) release: BTreeSet<String>,
    /// Devices by uid that are being deleted and bound to nothing.
    pub(super) release_unbound: BTreeSet<String>,
    /// DPUs by uid that are being deleted and whose agent will not let them go.
    pub(super) release_dpus: BTreeSet<String>,
}

/// Makes the plan. `silent` are the names of DPUs whose agents' Leases have expired.
pub(super) fn plan(
    devices: &BTreeMap<String, Device>,
    dpus: &BTreeMap<String, Target>,
    silent: &BTreeSet<String>,
) -> Plan {
    let mut plan = Plan::default();
    let there: BTreeSet<&str> = dpus.values().map(Target::name).collect();
    for (uid, target) in dpus.iter().filter(|(_, target)| silent.contains(target.name())) {
        if target.metadata.deletion_timestamp.is_some() {
            if holds(target.metadata.finalizers.as_deref(), BOUND_FINALIZER) {
                plan.release_dpus.insert(uid.clone());
            }
        } else if !target.is_unknown {
            plan.mark_dpus.insert(uid.clone(), unreachable(target.name()));
        }
    }
    for (uid, device) in devices {
        let held = device.is_deleting() && holds(device.metadata.finalizers.as_deref(), FUNCTION_FINALIZER);
        let Some(dpu) = device.dpu() else {
            if held && !device.has_function {
                plan.release_unbound.insert(uid.clone());
            }
            continue;
        };
        if !silent.contains(dpu) {
            continue;
        }
        let is_gone = !there.contains(dpu);
        if held && is_gone {
            plan.release.insert(uid.clone());
            continue;
        }
        let (reason, message) = if is_gone { gone(dpu) } else { unreachable(dpu) };
        let says = Readiness::Unknown(format!("{reason}: {message}"));
        if device.readiness != says {
            plan.mark.insert(uid.clone(), (reason, message));
        }
    }
    plan
}

fn holds(finalizers: Option<&[String]>, finalizer: &str) -> bool {
    finalizers.into_iter().flatten().any(|held| held == finalizer)
}

fn unreachable(dpu: &str) -> (Reason, String) {
    (Reason::DpuUnreachable, format!("the agent of {dpu} is silent: its Lease has expired"))
}

fn gone(dpu: &str) -> (Reason, String) {
    (Reason::DpuGone, format!("there is no Dpu {dpu}, and no agent of it lives"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fleet::Kept;

    fn device(name: &str, dpu: Option<&str>, deleting: bool, finalizer: bool, function: bool) -> Device {
        let mut object = json!({
            "metadata": {"namespace": "shop", "name": name, "uid": name, "generation": 1},
            "spec": {"dpu": dpu, "dpuSelector": {}, "function": {"hotplug": {}}},
            "status": {"observedGeneration": 1, "conditions": [{
                "type": "Ready", "status": "True", "reason": "Ready", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        });
        if deleting {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        if finalizer {
            object["metadata"]["finalizers"] = json!(["other/one", FUNCTION_FINALIZER]);
        }
        if function {
            object["status"]["function"] = json!({"vuid": "V", "type": "HotPlug"});
        }
        Device::keep(serde_json::from_value(object).unwrap()).unwrap()
    }

    fn dpu(name: &str, deleting: bool) -> Target {
        let deleted: Value = if deleting { json!("2026-01-01T00:00:00Z") } else { Value::Null };
        let object = json!({
            "metadata": {
                "name": name, "uid": name, "deletionTimestamp": deleted, "finalizers": [BOUND_FINALIZER],
            },
            "spec": {},
        });
        Target::keep(serde_json::from_value(object).unwrap()).unwrap()
    }

    fn planned(devices: &[Device], dpus: &[Target], silent: &[&str]) -> Plan {
        plan(
            &devices.iter().map(|device| (device.uid().to_owned(), device.clone())).collect(),
            &dpus.iter().map(|target| (target.name().to_owned(), target.clone())).collect(),
            &silent.iter().map(|name| (*name).to_owned()).collect(),
        )
    }

    #[test]
    fn silence_makes_unknown_and_lets_nothing_go_while_the_dpu_is_declared() {
        let devices = [
            device("web", Some("a"), false, true, true),
            device("going", Some("a"), true, true, true),
            device("other", Some("b"), false, true, true),
        ];
        let plan = planned(&devices, &[dpu("a", false), dpu("b", false)], &["a"]);
        assert_eq!(plan.mark.keys().collect::<Vec<_>>(), ["going", "web"]);
        assert_eq!(plan.mark["web"].0, Reason::DpuUnreachable);
        assert_eq!(plan.mark_dpus.keys().collect::<Vec<_>>(), ["a"]);
        assert!(plan.release.is_empty() && plan.release_dpus.is_empty());
        let mut told = devices.clone();
        for device in &mut told {
            let (reason, message) = unreachable("a");
            device.readiness = Readiness::Unknown(format!("{reason}: {message}"));
        }
        assert!(planned(&told, &[dpu("a", false)], &["a"]).mark.is_empty());
    }

    #[test]
    fn a_dpu_that_is_deleted_goes_once_its_agent_is_silent_and_then_what_is_deleted_of_it() {
        let devices =
            [device("web", Some("a"), false, true, true), device("going", Some("a"), true, true, true)];
        assert_eq!(planned(&devices, &[dpu("a", true)], &[]), Plan::default(), "its agent sees to it");
        let plan = planned(&devices, &[dpu("a", true)], &["a"]);
        assert_eq!(plan.release_dpus, ["a".to_owned()].into());
        assert!(plan.release.is_empty() && plan.mark_dpus.is_empty());
        let plan = planned(&devices, &[], &["a"]);
        assert_eq!(
            (plan.release.clone(), plan.mark["web"].0),
            (["going".to_owned()].into(), Reason::DpuGone)
        );
        assert_eq!(planned(&devices, &[], &[]), Plan::default(), "an agent lives that has no Dpu any more");
    }

    #[test]
    fn what_is_bound_to_nothing_and_deleted_goes() {
        let devices = [
            device("unbound", None, true, true, false),
            device("kept", None, false, true, false),
            device("free", None, true, false, false),
        ];
        assert_eq!(planned(&devices, &[], &[]).release_unbound, ["unbound".to_owned()].into());
    }
}
