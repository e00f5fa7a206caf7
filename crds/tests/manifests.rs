//! The committed manifests: the generated definitions, what they must keep to, and the samples.

#![allow(clippy::unwrap_used, reason = "what fails in a helper of a test fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use virtnet_crds::validate::validate_yaml;
use virtnet_crds::{API_VERSION, CATEGORY, GROUP, VERSION, crd};

fn manifests(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(folder)
}

fn definitions() -> Vec<Value> {
    crd::all().iter().map(|crd| crd::to_json(crd).unwrap()).collect()
}

/// Calls `look` with the path and the keywords of each place in the schema.
fn walk(path: &str, schema: &Value, look: &mut dyn FnMut(&str, &Value)) {
    look(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, look);
    }
    for keyword in ["items", "additionalProperties"] {
        if schema[keyword].is_object() {
            walk(&format!("{path}[]"), &schema[keyword], look);
        }
    }
}

fn walk_all(mut look: impl FnMut(&str, &Value)) {
    for crd in definitions() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        walk(&kind, &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut look);
    }
}

#[test]
fn the_committed_definitions_are_those_of_the_types() {
    let command = "cargo run -p virtnet-crds --bin crdgen";
    let folder = manifests("crds");
    let files = crd::files().unwrap();
    for file in &files {
        let committed = fs::read_to_string(folder.join(&file.name)).unwrap_or_default();
        assert!(committed == file.text, "manifests/crds/{} is out of date; run: {command}", file.name);
    }
    let mut names: BTreeSet<String> = files.into_iter().map(|file| file.name).collect();
    names.insert("kustomization.yaml".into());
    let present: BTreeSet<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(present, names, "manifests/crds/ has other files than {command} writes, and a kustomization");
}

#[test]
fn every_string_list_and_map_is_bounded() {
    walk_all(|path, schema| {
        let has = |keyword: &str| schema.get(keyword).is_some();
        match schema["type"].as_str() {
            Some("string") => {
                assert!(has("maxLength") || has("enum") || has("format"), "{path} has no maxLength");
            }
            Some("array") => assert!(has("maxItems"), "{path} has no maxItems"),
            Some("object") if has("additionalProperties") => {
                assert!(has("maxProperties"), "{path} has no maxProperties");
            }
            Some("integer") => assert!(has("minimum"), "{path} has no minimum"),
            None => assert_eq!(schema["x-kubernetes-int-or-string"], true, "{path} has no type"),
            _ => {}
        }
    });
}

#[test]
fn every_place_is_described() {
    walk_all(|path, schema| {
        if !path.ends_with("[]") {
            assert!(schema["description"].as_str().is_some_and(|text| !text.is_empty()), "{path}");
        }
    });
}

#[test]
fn every_rule_has_a_message_and_root_rules_name_their_field() {
    let mut rules = 0;
    walk_all(|path, schema| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            rules += 1;
            assert!(rule["message"].as_str().is_some_and(|text| !text.is_empty()), "{path}: {rule}");
            assert!(!rule["message"].as_str().unwrap().contains('\n'), "{path}: {rule}");
            // A server takes no path into metadata, which a definition does not describe.
            if !path.contains('.') && !rule["rule"].as_str().unwrap().contains("self.metadata.") {
                assert!(rule["fieldPath"].is_string(), "{path}: {rule}");
            }
            // What only the server, or only the offline evaluation, knows.
            for avoided in ["math.", ".?", "`", "optional"] {
                assert!(!rule["rule"].as_str().unwrap().contains(avoided), "{path}: {rule}");
            }
        }
    });
    assert!(rules > 20, "{rules} rules were found");
}

#[test]
fn nothing_is_nullable_and_numbers_have_no_format() {
    walk_all(|path, schema| {
        assert!(schema.get("nullable").is_none(), "{path}");
        assert!(schema.get("format").is_none_or(|format| format == "date-time"), "{path}");
        for bound in ["minimum", "maximum"] {
            assert!(schema.get(bound).is_none_or(Value::is_i64), "{path}: {bound} is written as a fraction");
        }
    });
}

#[test]
fn status_begins_as_never_observed() {
    for crd in definitions() {
        let status = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        assert_eq!(status["default"], serde_json::json!({ "observedGeneration": -1 }));
    }
}

#[test]
fn names_scopes_and_columns_are_those_of_the_design() {
    let summary = |crd: &Value| {
        let version = &crd["spec"]["versions"][0];
        assert_eq!(crd["spec"]["group"], GROUP);
        assert_eq!(version["name"], VERSION);
        assert_eq!(API_VERSION, format!("{GROUP}/{VERSION}"));
        assert_eq!(crd["spec"]["names"]["categories"][0], CATEGORY);
        let columns: Vec<String> = version["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| {
                let wide = if column["priority"] == 1 { "+" } else { "" };
                format!("{wide}{}", column["name"].as_str().unwrap())
            })
            .collect();
        let short = crd["spec"]["names"]["shortNames"][0].as_str().unwrap_or("-").to_owned();
        format!(
            "{} {} {short}: {}",
            crd["spec"]["names"]["plural"].as_str().unwrap(),
            crd["spec"]["scope"].as_str().unwrap(),
            columns.join(" ")
        )
    };
    assert_eq!(
        definitions().iter().map(summary).collect::<Vec<_>>(),
        [
            "dpus Cluster -: READY REASON SLOTS USED REBOOT CONTROLLER AGE +AGENT +FIRMWARE +GENERATION",
            "virtnetdevices Namespaced vnd: DPU TYPE PF VF BDF MAC REP BRIDGE READY REASON AGE \
             +VUID +MTU +QUEUES +DRIVER",
            "virtnetdevicesets Namespaced vnds: DEVICES BOUND UPDATED READY REASON AGE",
        ]
    );
}

#[test]
fn devices_are_selectable_by_dpu_and_sets_can_be_scaled() {
    let [_, device, set] = <[Value; 3]>::try_from(definitions()).unwrap();
    assert_eq!(device["spec"]["versions"][0]["selectableFields"][0]["jsonPath"], ".spec.dpu");
    let scale = &set["spec"]["versions"][0]["subresources"]["scale"];
    assert_eq!(scale["specReplicasPath"], ".spec.replicas");
    assert_eq!(scale["statusReplicasPath"], ".status.replicas");
    assert_eq!(scale["labelSelectorPath"], ".status.selector");
    // A server answers a read of scale with an error where the field has no value.
    let spec = &set["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    assert_eq!(spec["properties"]["replicas"]["default"], 0);
}

#[test]
fn samples_are_valid_and_commented() {
    let mut samples = 0;
    for entry in fs::read_dir(manifests("samples")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let found = validate_yaml(&path.display().to_string(), &text);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
        assert!(text.starts_with("# "), "{} begins with what it is for", path.display());
        samples += 1;
    }
    assert!(samples >= 7, "{samples} samples were found");
}
