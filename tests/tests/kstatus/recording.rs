//! An object as it is recorded: without what differs from one run to the next, or with one release of the programs.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The moment at which everything happens.
const MOMENT: &str = "2026-01-01T00:00:00Z";

/// A file or folder of `tests/kstatus`.
pub(crate) fn path(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kstatus").join(below)
}

/// The files of a folder of it, in their order.
pub(crate) fn files(below: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        path(below).read_dir().into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The object with what is volatile taken out or made the same.
pub(crate) fn normalised(mut object: Value) -> Value {
    let metadata = object["metadata"].as_object_mut().unwrap();
    for key in ["uid", "resourceVersion", "managedFields"] {
        metadata.remove(key);
    }
    for key in ["creationTimestamp", "deletionTimestamp"] {
        if let Some(time) = metadata.get_mut(key) {
            *time = json!(MOMENT);
        }
    }
    let conditions = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        condition["lastTransitionTime"] = json!(MOMENT);
    }
    let versions = object.pointer_mut("/status/versions").and_then(Value::as_object_mut);
    for version in versions.into_iter().flat_map(|versions| versions.values_mut()) {
        *version = json!("0.0.0");
    }
    object
}

/// The text of its file.
pub(crate) fn text(object: &Value) -> String {
    format!(
        "# Written by UPDATE_GOLDEN=1 cargo test -p virtnet-tests --test kstatus; what it is judged as is in verdicts.yaml.\n{}",
        serde_saphyr::to_string(object).unwrap()
    )
}
