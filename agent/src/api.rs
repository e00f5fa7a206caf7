//! The agent's writes to its devices: finalizer and noted MACs by JSON patch, status by server-side apply.

use std::collections::BTreeSet;

use json_patch::{
    AddOperation, Patch as JsonPatch, PatchOperation, RemoveOperation, TestOperation, jsonptr::PointerBuf,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams};
use kube::core::Status;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use virtnet_crds::{API_VERSION, FUNCTION_FINALIZER, VirtnetDevice, VirtnetDeviceStatus, manager};
use virtnet_model::Mac;

use crate::desired::{DeviceKey, MACS_ANNOTATION};

/// Puts our finalizer on the object and notes the MACs, in one write, if the object is still the one that was seen.
pub(crate) async fn register(
    client: &Client,
    object: &VirtnetDevice,
    macs: &BTreeSet<Mac>,
) -> kube::Result<VirtnetDevice> {
    patch(client, object, registration(object, macs)).await
}

/// Takes our finalizer off the object, if the object is still the one that was seen.
pub(crate) async fn release(client: &Client, object: &VirtnetDevice) -> kube::Result<VirtnetDevice> {
    patch(client, object, finalizer_removal(&object.metadata, FUNCTION_FINALIZER)).await
}

/// Writes the whole status, as the owner of all of it. `force` takes a condition over from another writer.
pub(crate) async fn apply_status(
    client: &Client,
    object: &VirtnetDevice,
    status: &VirtnetDeviceStatus,
    force: bool,
) -> kube::Result<VirtnetDevice> {
    let body = json!({
        "apiVersion": API_VERSION,
        "kind": "VirtnetDevice",
        "metadata": {
            "name": object.name_any(),
            "namespace": object.namespace(),
            "uid": object.metadata.uid,
            "resourceVersion": object.metadata.resource_version,
        },
        "status": status,
    });
    let params = PatchParams { force, ..PatchParams::apply(manager::AGENT) };
    api(client, object).patch_status(&object.name_any(), &params, &Patch::Apply(body)).await
}

/// Whether a status was refused because the liveness controller holds one of its fields.
pub(crate) fn is_held_by_liveness(refusal: &Status) -> bool {
    let causes = refusal.details.iter().flat_map(|details| &details.causes);
    refusal.code == 409 && causes.into_iter().any(|cause| cause.message.contains(manager::LIVENESS))
}

/// The object of this name, if there is one.
pub(crate) async fn get(client: &Client, key: &DeviceKey) -> kube::Result<Option<VirtnetDevice>> {
    Api::namespaced(client.clone(), &key.namespace).get_opt(&key.name).await
}

fn api(client: &Client, object: &VirtnetDevice) -> Api<VirtnetDevice> {
    Api::namespaced(client.clone(), &object.namespace().unwrap_or_default())
}

async fn patch(client: &Client, object: &VirtnetDevice, patch: JsonPatch) -> kube::Result<VirtnetDevice> {
    let params = PatchParams { field_manager: Some(manager::AGENT.into()), ..PatchParams::default() };
    api(client, object).patch(&object.name_any(), &params, &Patch::<()>::Json(patch)).await
}

/// Tests that make a patch fail on any other object, or version of it, than the one that was seen.
fn guards(metadata: &ObjectMeta) -> Vec<PatchOperation> {
    [("uid", &metadata.uid), ("resourceVersion", &metadata.resource_version)]
        .into_iter()
        .map(|(field, value)| test(["metadata", field], json!(value)))
        .collect()
}

fn registration(object: &VirtnetDevice, macs: &BTreeSet<Mac>) -> JsonPatch {
    let JsonPatch(mut operations) = finalizer_addition(&object.metadata, FUNCTION_FINALIZER);
    if !macs.is_empty() {
        let list: Vec<_> = macs.iter().map(ToString::to_string).collect();
        let list = list.join(",");
        operations.push(if object.metadata.annotations.is_none() {
            add(["metadata", "annotations"], json!({ MACS_ANNOTATION: list }))
        } else {
            add(["metadata", "annotations", MACS_ANNOTATION], json!(list))
        });
    }
    JsonPatch(operations)
}

/// Adds a finalizer where it is missing, if the object is still the one that was seen.
pub(crate) fn finalizer_addition(metadata: &ObjectMeta, finalizer: &str) -> JsonPatch {
    let mut operations = guards(metadata);
    match &metadata.finalizers {
        None => operations.push(add(["metadata", "finalizers"], json!([finalizer]))),
        Some(present) if present.iter().any(|present| present == finalizer) => {}
        Some(_) => operations.push(add(["metadata", "finalizers", "-"], json!(finalizer))),
    }
    JsonPatch(operations)
}

/// Takes a finalizer off, if the object is still the one that was seen.
pub(crate) fn finalizer_removal(metadata: &ObjectMeta, finalizer: &str) -> JsonPatch {
    let mut operations = guards(metadata);
    if let Some(index) = metadata.finalizers.iter().flatten().position(|present| present == finalizer) {
        let index = index.to_string();
        let path = ["metadata", "finalizers", index.as_str()];
        operations.push(test(path, json!(finalizer)));
        operations.push(PatchOperation::Remove(RemoveOperation { path: PointerBuf::from_tokens(path) }));
    }
    JsonPatch(operations)
}

fn test<const N: usize>(path: [&str; N], value: Value) -> PatchOperation {
    PatchOperation::Test(TestOperation { path: PointerBuf::from_tokens(path), value })
}

fn add<const N: usize>(path: [&str; N], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path), value })
}
