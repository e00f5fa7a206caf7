//! The types beside their schemas: choices of one, names and numbers, reasons.

use std::collections::{BTreeMap, BTreeSet};

use virtnet_crds::conditions::{
    BOUND, FIRMWARE_CONFIGURED, FUNCTION_READY, PORT_READY, READY, REBOOT_REQUIRED, RECONCILING,
    REPRESENTOR_READY, RESTART_REQUIRED, STALLED, UPDATING,
};
use virtnet_crds::{
    BOUND_FINALIZER, DpuSelector, DpuStatus, FUNCTION_FINALIZER, Feature, Function, FunctionSpec,
    FunctionType, HotplugFunction, PerVf, Reason, Sizing, StaticFunction, VfFunction, VirtnetDeviceSetSpec,
    VirtnetDeviceSetStatus, VirtnetDeviceSpec, VirtnetDeviceStatus, external_id, metadata,
};

#[test]
fn a_function_is_exactly_one_of_three() {
    let choices = [
        (Function::Hotplug(HotplugFunction::default()), FunctionType::HotPlug, r#"{"hotplug":{}}"#),
        (Function::Static(StaticFunction { pf: 2 }), FunctionType::Static, r#"{"static":{"pf":2}}"#),
        (
            Function::Vf(VfFunction { pf: 1, vf: 3, transitional: true }),
            FunctionType::Vf,
            r#"{"vf":{"pf":1,"vf":3,"transitional":true}}"#,
        ),
    ];
    for (function, function_type, json) in choices {
        assert_eq!(function.function_type(), function_type);
        let spec = FunctionSpec::from(function.clone());
        assert_eq!(serde_json::to_string(&spec).unwrap(), json);
        assert_eq!(spec.choice().unwrap(), function);
    }
    assert_eq!(FunctionSpec::default().choice().unwrap_err().found, 0);
    let two = FunctionSpec {
        static_: Some(StaticFunction { pf: 0 }),
        ..Function::Hotplug(HotplugFunction::default()).into()
    };
    let error = two.choice().unwrap_err().to_string();
    assert_eq!(error, "function must have exactly one of hotplug, static and vf; it has 2");
}

#[test]
fn a_set_has_replicas_or_a_range_of_vfs() {
    let set = |replicas, per_vf| VirtnetDeviceSetSpec {
        replicas,
        per_vf,
        dpu_selector: DpuSelector::default(),
        template: virtnet_crds::DeviceTemplate::default(),
        max_unavailable: 1,
        on_dpu_loss: virtnet_crds::OnDpuLoss::Keep,
    };
    let range = PerVf { pf: 0, from: 0, to: 124 };
    assert_eq!(set(3, None).sizing(), Ok(Sizing::Replicas(3)));
    assert_eq!(set(0, None).sizing(), Ok(Sizing::Replicas(0)));
    assert_eq!(set(0, Some(range.clone())).sizing(), Ok(Sizing::PerVf(range.clone())));
    assert_eq!(set(3, Some(range)).sizing().unwrap_err().replicas, 3);
}

#[test]
fn a_selector_wants_all_its_labels_and_an_empty_one_takes_all() {
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let selector = DpuSelector { match_labels: labels(&[("rack", "r1"), ("role", "edge")]) };
    assert!(selector.matches(&labels(&[("rack", "r1"), ("role", "edge"), ("x", "y")])));
    assert!(!selector.matches(&labels(&[("rack", "r1")])));
    assert!(!selector.matches(&labels(&[("rack", "r2"), ("role", "edge")])));
    assert!(DpuSelector::default().matches(&labels(&[])));
}

#[test]
fn an_absent_status_is_never_observed() {
    assert_eq!(VirtnetDeviceStatus::default().observed_generation, -1);
    assert_eq!(DpuStatus::default().observed_generation, -1);
    assert_eq!(VirtnetDeviceSetStatus::default().observed_generation, -1);
    let status: VirtnetDeviceStatus = serde_json::from_str("{}").unwrap();
    assert_eq!(status, VirtnetDeviceStatus::default());
}

#[test]
fn a_spec_with_nothing_set_writes_only_what_has_a_default() {
    let spec = serde_json::to_value(VirtnetDeviceSpec::default()).unwrap();
    assert_eq!(spec, serde_json::json!({ "function": {}, "linkState": "Up", "rebindPolicy": "Never" }));
}

#[test]
fn features_have_the_specifications_names_and_bits() {
    let bits: Vec<u8> = Feature::ALL.iter().map(|feature| feature.bit()).collect();
    assert!(bits.is_sorted_by(|one, next| one < next), "each bit once, in order");
    assert!(bits.iter().all(|bit| *bit < 64));
    for feature in Feature::ALL {
        assert_eq!(feature.name().parse(), Ok(*feature));
        assert_eq!(serde_json::to_string(feature).unwrap(), format!("{:?}", feature.to_string()));
    }
    let known = [
        ("CSUM", 0),
        ("MTU", 3),
        ("MAC", 5),
        ("MRG_RXBUF", 15),
        ("MQ", 22),
        ("VERSION_1", 32),
        ("SR_IOV", 37),
    ];
    for (name, bit) in known {
        assert_eq!(name.parse::<Feature>().unwrap().bit(), bit, "{name}");
    }
    assert!("csum".parse::<Feature>().unwrap_err().to_string().starts_with("\"csum\" is not the name"));
}

#[test]
fn our_keys_and_finalizers_are_what_the_rules_reserve_and_servers_take() {
    for key in [external_id::DPU, external_id::DEVICE, external_id::UID] {
        assert!(key.starts_with(external_id::RESERVED_PREFIX), "{key}");
    }
    let object = serde_json::json!({ "name": "a", "finalizers": [FUNCTION_FINALIZER, BOUND_FINALIZER] });
    assert_eq!(metadata::validate(Some(&object), metadata::Scope::Cluster, metadata::Names::Subdomains), []);
}

#[test]
fn each_reason_has_its_place_and_can_stand_in_a_condition() {
    let types = BTreeSet::from([
        BOUND,
        FIRMWARE_CONFIGURED,
        FUNCTION_READY,
        PORT_READY,
        READY,
        REBOOT_REQUIRED,
        RECONCILING,
        REPRESENTOR_READY,
        RESTART_REQUIRED,
        STALLED,
        UPDATING,
    ]);
    let mut names = BTreeSet::new();
    for reason in Reason::ALL {
        let name = reason.as_str();
        assert!(names.insert(name), "{name} stands in the table twice");
        assert!(name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
        assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
        assert!(reason.meaning().ends_with('.') && !reason.meaning().contains('\n'), "{name}");
        let conditions: BTreeSet<&str> = reason.conditions().iter().copied().collect();
        assert_eq!(conditions.len(), reason.conditions().len(), "{name} names a condition twice");
        assert!(!conditions.is_empty() && conditions.is_subset(&types), "{name}: {conditions:?}");
        // Which of them holds is said by the outlook of the overall reason alone.
        assert!(!conditions.contains(RECONCILING) && !conditions.contains(STALLED), "{name}");
    }
}
