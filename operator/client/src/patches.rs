//! Patches that put a finalizer on an object or take it off, or take a condition off, if the object is still the one that was
//! seen.

use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, TestOperation, jsonptr::PointerBuf};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

/// Adds a finalizer where it is missing, if the object is still the one that was seen.
pub fn finalizer_addition(metadata: &ObjectMeta, finalizer: &str) -> Patch {
    let mut operations = guards(metadata);
    match &metadata.finalizers {
        None => operations.push(add(["metadata", "finalizers"], json!([finalizer]))),
        Some(present) if present.iter().any(|present| present == finalizer) => {}
        Some(_) => operations.push(add(["metadata", "finalizers", "-"], json!(finalizer))),
    }
    Patch(operations)
}

/// Takes a finalizer off, if the object is still the one that was seen.
pub fn finalizer_removal(metadata: &ObjectMeta, finalizer: &str) -> Patch {
    let mut operations = guards(metadata);
    if let Some(index) = metadata.finalizers.iter().flatten().position(|present| present == finalizer) {
        let index = index.to_string();
        let path = ["metadata", "finalizers", index.as_str()];
        operations.push(test(path, json!(finalizer)));
        operations.push(PatchOperation::Remove(RemoveOperation { path: PointerBuf::from_tokens(path) }));
    }
    Patch(operations)
}

/// Takes a condition off a status, whoever wrote it, if the object is still the one that was seen with it at this index.
pub fn condition_removal(metadata: &ObjectMeta, index: usize, type_: &str) -> Patch {
    let mut operations = guards(metadata);
    let index = index.to_string();
    let path = ["status", "conditions", index.as_str()];
    operations.push(test([path[0], path[1], path[2], "type"], json!(type_)));
    operations.push(PatchOperation::Remove(RemoveOperation { path: PointerBuf::from_tokens(path) }));
    Patch(operations)
}

fn test<const N: usize>(path: [&str; N], value: Value) -> PatchOperation {
    PatchOperation::Test(TestOperation { path: PointerBuf::from_tokens(path), value })
}

fn add<const N: usize>(path: [&str; N], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path), value })
}

/// Tests that make a patch fail on any other object, or version of it, than the one that was seen.
fn guards(metadata: &ObjectMeta) -> Vec<PatchOperation> {
    [("uid", &metadata.uid), ("resourceVersion", &metadata.resource_version)]
        .into_iter()
        .map(|(field, value)| test(["metadata", field], json!(value)))
        .collect()
}
