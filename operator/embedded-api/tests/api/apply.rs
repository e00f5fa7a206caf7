//! Server-side apply and ownership, case by case: each folder of `apply/` is a sequence of requests with what is
//! expected of each.
//!
//! A step names one `write`: `apply`, `update`, `merge`, `json` or `create`, by a `manager`, on the object or a
//! `subresource`, with a `body`. `{}` in a text body stands for nothing; the kind, version and name of the one device
//! are filled in. Expected are the `code`, parts of the object (`has`), paths that must be absent (`lacks`), the
//! whole of the ownership (`owned`: manager, operation and subresource to fields), words of the `message`, the
//! `causes`, and whether the resource version is `unchanged`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::{APPLY, DEVICES, JSON, MERGE, get, open, send};
use serde::Deserialize;
use serde_json::{Value, json};
use virtnet_embedded_api::Api;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    rule: String,
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    write: String,
    manager: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    force: bool,
    body: Value,
    #[serde(default)]
    code: Option<u16>,
    #[serde(default)]
    has: Value,
    #[serde(default)]
    lacks: Vec<String>,
    #[serde(default)]
    owned: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    message: String,
    #[serde(default)]
    causes: Vec<String>,
    #[serde(default)]
    unchanged: bool,
}

#[tokio::test(start_paused = true)]
async fn every_case_holds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apply");
    let mut count = 0;
    let mut failed = Vec::new();
    for folder in std::fs::read_dir(root).unwrap() {
        let path = folder.unwrap().path().join("case.yaml");
        let case: Case = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let place = path.display().to_string();
        // Each case in its own task, so that all that fail are shown.
        let case = tokio::spawn(async move {
            let api = open().await;
            for (index, step) in case.steps.iter().enumerate() {
                let place = format!("{}, step {} ({})", path.display(), index + 1, case.rule);
                check(&api, step, &place).await;
            }
        });
        if case.await.is_err() {
            failed.push(place);
        }
        count += 1;
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(count >= 15, "only {count} cases were found");
}

async fn check(api: &Api, step: &Step, place: &str) {
    let one = format!("{DEVICES}/web-0");
    let (_, before) = get(api, &one).await;
    let mut path = match step.write.as_str() {
        "create" => DEVICES.to_owned(),
        _ => one.clone(),
    };
    if !step.subresource.is_empty() {
        path += &format!("/{}", step.subresource);
    }
    path += &format!("?fieldManager={}", step.manager);
    if step.force {
        path += "&force=true";
    }
    let (method, media_type) = match step.write.as_str() {
        "create" => ("POST", JSON),
        "update" => ("PUT", JSON),
        "apply" => ("PATCH", APPLY),
        "merge" => ("PATCH", MERGE),
        "json" => ("PATCH", "application/json-patch+json"),
        other => panic!("{place}: unknown write {other}"),
    };
    let mut body = step.body.clone();
    if matches!(step.write.as_str(), "create" | "update" | "apply") {
        body["apiVersion"] = "virtnet.dev/v1alpha1".into();
        body["kind"] = "VirtnetDevice".into();
        body["metadata"]["name"] = "web-0".into();
        if step.write == "update" {
            body["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
        }
    }
    let (code, answer) = send(api, method, &path, media_type, &body).await;
    let expected = step.code.unwrap_or(if before["code"] == 404 { 201 } else { 200 });
    assert_eq!(code, expected, "{place}: {answer}");
    assert!(
        answer["message"].as_str().unwrap_or_default().contains(&step.message),
        "{place}: {}",
        answer["message"]
    );
    let causes: Vec<&str> = answer["details"]["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|cause| cause["field"].as_str())
        .collect();
    assert_eq!(causes, step.causes, "{place}");

    let (_, now) = get(api, &one).await;
    if code < 300 {
        assert_eq!(answer, now, "{place}: the answer is not what is stored");
    }
    assert!(contains(&now, &step.has), "{place}: {} is not in\n{now:#}", step.has);
    for path in &step.lacks {
        assert_eq!(now.pointer(path), None, "{place}: {path}");
    }
    if step.unchanged || code >= 300 {
        assert_eq!(before, now, "{place}: the object changed");
    }
    if let Some(owned) = &step.owned {
        assert_eq!(&ownership(&now), owned, "{place}");
    }
}

/// Whether every part of `wanted` is in `held`; lists are compared as a whole.
fn contains(held: &Value, wanted: &Value) -> bool {
    match wanted {
        Value::Null => true,
        Value::Object(wanted) => {
            wanted.iter().all(|(key, wanted)| held.get(key).is_some_and(|held| contains(held, wanted)))
        }
        other => held == other,
    }
}

fn ownership(object: &Value) -> BTreeMap<String, Value> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .map(|entry| {
            let text = |field: &str| entry[field].as_str().unwrap_or_default();
            assert_eq!(entry["fieldsType"], json!("FieldsV1"));
            let name = format!("{} {} {}", text("manager"), text("operation"), text("subresource"));
            (name.trim().to_owned(), entry["fieldsV1"].clone())
        })
        .collect()
}
