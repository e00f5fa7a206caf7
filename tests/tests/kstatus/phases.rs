//! Every phase: that it comes about as its file has it, that a person has said what to make of it, and that no reason is
//! forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Deserialize;
use serde_json::Value;
use virtnet_crds::{Reason, yaml};

use crate::recording::{files, path, text};
use crate::scenario::{Recorded, Scenario};

const KINDS: [&str; 3] = ["VirtnetDevice", "Dpu", "VirtnetDeviceSet"];

/// Reasons that no fleet comes to give, and why.
const NEVER_RECORDED: [(Reason, &str); 1] = [(Reason::Unsupported, "nothing gives it")];

/// What is committed, by kind and phase.
fn committed() -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    for kind in KINDS {
        for file in files(&format!("testdata/{kind}")) {
            let phase = file.file_stem().unwrap().to_str().unwrap().to_owned();
            found.insert((kind.to_owned(), phase), fs::read_to_string(file).unwrap());
        }
    }
    found
}

/// What a person says of a phase.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Verdict {
    verdict: String,
    why: String,
}

#[tokio::test(start_paused = true)]
async fn every_phase_comes_about_as_it_is_recorded() {
    let mut recorded = Recorded::new();
    let scenarios = files("scenarios");
    assert!(!scenarios.is_empty());
    let mut failed = Vec::new();
    for file in scenarios {
        let name = file.display().to_string();
        let count = recorded.len();
        // What fails in one is told, and the others are played all the same.
        let Ok(played) = tokio::spawn(async move { Scenario::read(&file).play().await }).await else {
            failed.push(name);
            continue;
        };
        let expected = count + played.len();
        recorded.extend(played);
        assert_eq!(recorded.len(), expected, "{name} records a phase that another one has");
    }
    assert!(failed.is_empty(), "{failed:#?}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        for kind in KINDS {
            fs::remove_dir_all(path("testdata").join(kind)).ok();
            fs::create_dir_all(path("testdata").join(kind)).unwrap();
        }
        for ((kind, phase), object) in &recorded {
            fs::write(path("testdata").join(kind).join(format!("{phase}.yaml")), text(object)).unwrap();
        }
    }
    let committed = committed();
    let differing: Vec<_> = recorded
        .iter()
        .filter(|(phase, object)| committed.get(*phase).is_none_or(|committed| *committed != text(object)))
        .map(|((kind, phase), object)| format!("{kind}/{phase} is now\n{}", text(object)))
        .collect();
    assert!(differing.is_empty(), "run with UPDATE_GOLDEN=1 and review the change\n{}", differing.join("\n"));
    let gone: Vec<_> = committed.keys().filter(|phase| !recorded.contains_key(*phase)).collect();
    assert!(gone.is_empty(), "no scenario records {gone:?}");
}

#[test]
fn a_person_has_judged_every_phase_and_no_other() {
    let text = fs::read_to_string(path("verdicts.yaml")).unwrap();
    let table = yaml::documents(&text).remove(0).unwrap().value;
    let table: BTreeMap<String, BTreeMap<String, Verdict>> = serde_json::from_value(table).unwrap();
    let judged: BTreeSet<_> = table
        .iter()
        .flat_map(|(kind, phases)| phases.keys().map(move |phase| (kind.clone(), phase.clone())))
        .collect();
    assert_eq!(judged, committed().into_keys().collect());
    for (phase, Verdict { verdict, why }) in table.values().flatten() {
        assert!(
            ["Current", "InProgress", "Failed", "Terminating"].contains(&verdict.as_str()),
            "{phase}: {verdict}"
        );
        assert!(!why.is_empty(), "{phase}");
    }
}

#[test]
fn every_reason_is_recorded_or_known_not_to_be_given() {
    let mut given: BTreeSet<String> = BTreeSet::new();
    for text in committed().values() {
        let object = yaml::documents(text).remove(0).unwrap().value;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        given.extend(conditions.iter().map(|condition| condition["reason"].as_str().unwrap().to_owned()));
    }
    for reason in Reason::ALL {
        let never = NEVER_RECORDED.iter().find(|(never, _)| never == reason);
        assert_eq!(given.contains(reason.as_str()), never.is_none(), "{reason} {never:?}");
    }
}

/// A device or a set says one or the other while it is not Ready, and neither while it is; a Dpu may be Ready and yet have
/// something of its spec to come.
#[test]
fn no_status_is_both_reconciling_and_stalled() {
    for ((kind, phase), text) in committed() {
        let object = yaml::documents(&text).remove(0).unwrap().value;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let has = |type_: &str| conditions.iter().any(|condition| condition["type"] == type_);
        let is =
            |condition: &&Value, status: &str| condition["type"] == "Ready" && condition["status"] == status;
        assert!(!(has("Reconciling") && has("Stalled")), "{kind}/{phase}");
        if conditions.iter().any(|condition| is(&condition, "False")) {
            assert!(has("Reconciling") || has("Stalled"), "{kind}/{phase}");
        }
        if kind != "Dpu" && conditions.iter().any(|condition| is(&condition, "True")) {
            assert!(!has("Reconciling") && !has("Stalled"), "{kind}/{phase}");
        }
    }
}
