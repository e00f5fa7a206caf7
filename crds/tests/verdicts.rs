//! Verdicts on manifests, a file each: `verdicts/refused/` with the exact messages, and `verdicts/accepted/`.
//!
//! A refused file begins with its messages, in order: `# refused: MESSAGE`, then `# line: LINE` for the line that is
//! blamed. A file with two documents about one object is an update, of the first to the second, and has no lines.

#![allow(clippy::unwrap_used, reason = "what fails in a helper of a test fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use virtnet_crds::schema::Schema;
use virtnet_crds::validate::{Diagnostic, validate_yaml};
use virtnet_crds::{crd, yaml};

fn cases(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verdicts").join(folder);
    let mut cases: Vec<(PathBuf, String)> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
        .collect();
    cases.sort();
    assert!(cases.len() > 20, "cases in {}", folder.display());
    cases
}

fn schema_of(kind: &Value) -> Schema {
    let crd = crd::all().into_iter().find(|crd| *kind == *crd.spec.names.kind).unwrap();
    let json = crd::to_json(&crd).unwrap();
    Schema::compile(&json["spec"]["versions"][0]["schema"]["openAPIV3Schema"]).unwrap()
}

/// The old and the new object, where the file is an update.
fn update(text: &str) -> Option<(Value, Value)> {
    let documents: Vec<_> = yaml::documents(text).into_iter().collect::<Result<_, _>>().ok()?;
    let [old, new] = documents.as_slice() else { return None };
    (old.value["metadata"] == new.value["metadata"]).then(|| (old.value.clone(), new.value.clone()))
}

/// What a server says, in the form of a refused file's first lines.
fn verdict(text: &str) -> Vec<String> {
    let Some((mut old, mut new)) = update(text) else {
        let lines =
            |found: Diagnostic| [format!("# refused: {}", found.message), format!("# line: {}", found.line)];
        return validate_yaml("case.yaml", text).into_iter().flat_map(lines).collect();
    };
    let schema = schema_of(&new["kind"]);
    schema.apply_defaults(&mut old);
    // An update of the object leaves its status alone.
    new["status"] = old["status"].clone();
    schema.apply_defaults(&mut new);
    schema.validate(&new, Some(&old)).iter().map(|error| format!("# refused: {error}")).collect()
}

#[test]
fn each_refused_manifest_is_refused_with_its_messages_and_lines() {
    let mut failures = Vec::new();
    for (path, text) in cases("refused") {
        let expected: Vec<&str> = text.lines().take_while(|line| line.starts_with("# ")).collect();
        assert!(expected.iter().any(|line| line.starts_with("# refused: ")), "{}", path.display());
        let found = verdict(&text);
        if found != expected {
            failures.push(format!("{}:\n{}", path.display(), found.join("\n")));
        }
    }
    assert!(failures.is_empty(), "these verdicts differ:\n{}", failures.join("\n\n"));
}

#[test]
fn each_accepted_manifest_is_accepted() {
    for (path, text) in cases("accepted") {
        assert_eq!(verdict(&text), Vec::<String>::new(), "{}", path.display());
    }
}
