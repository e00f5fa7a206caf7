//! The agent's writes to its devices: finalizer and labels of MACs by JSON patch, status by server-side apply.

use std::collections::BTreeSet;

use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, RemoveOperation, jsonptr::PointerBuf};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams};
use kube::core::{ApiResource, DeserializeGuard, DynamicObject, Status};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use virtnet_client::{condition_removal, finalizer_addition, finalizer_removal};
use virtnet_crds::{
    API_VERSION, FUNCTION_FINALIZER, VirtnetDevice, VirtnetDeviceStatus, mac_label, manager, noted_mac,
};
use virtnet_model::Mac;

use crate::desired::DeviceKey;

/// The object as the API answered to a write; it need not be one that this version of the agent can decode.
pub(crate) type Written = DeserializeGuard<VirtnetDevice>;

/// Puts our finalizer on the object and notes the MACs, in one write, if the object is still the one that was seen.
pub(crate) async fn register(
    client: &Client,
    object: &ObjectMeta,
    macs: &BTreeSet<Mac>,
) -> kube::Result<Written> {
    patch(client, object, registration(object, macs)).await
}

/// Takes our finalizer off the object, if the object is still the one that was seen.
pub(crate) async fn release(client: &Client, object: &ObjectMeta) -> kube::Result<Written> {
    patch(client, object, finalizer_removal(object, FUNCTION_FINALIZER)).await
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
    let api: Api<VirtnetDevice> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    api.patch_status(&object.name_any(), &params, &Patch::Apply(body)).await
}

/// Takes a condition off the object, if it is still the one that was seen with it at this index.
pub(crate) async fn remove_condition(
    client: &Client,
    object: &VirtnetDevice,
    index: usize,
    type_: &str,
) -> kube::Result<VirtnetDevice> {
    let params = PatchParams { field_manager: Some(manager::AGENT.into()), ..PatchParams::default() };
    let api: Api<VirtnetDevice> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let patch = Patch::<()>::Json(condition_removal(&object.metadata, index, type_));
    api.patch_status(&object.name_any(), &params, &patch).await
}

/// Whether a status was refused because controllers of the operator hold some of its fields, and nobody else holds any: what
/// they said is so no longer, for this agent has the device.
pub(crate) fn is_held_by_operator(refusal: &Status) -> bool {
    // A cause's message names the other manager in quotes: `conflict with "NAME" using VERSION`.
    let theirs = [manager::LIVENESS, manager::BINDER].map(|name| format!("\"{name}\""));
    let causes: Vec<_> = refusal.details.iter().flat_map(|details| &details.causes).collect();
    refusal.code == 409
        && !causes.is_empty()
        && causes.iter().all(|cause| {
            cause.reason == "FieldManagerConflict" && theirs.iter().any(|name| cause.message.contains(name))
        })
}

/// The object of this name, if there is one; whether this version of the agent can decode it or not.
pub(crate) async fn get(client: &Client, key: &DeviceKey) -> kube::Result<Option<DynamicObject>> {
    let kind = ApiResource::erase::<VirtnetDevice>(&());
    Api::namespaced_with(client.clone(), &key.namespace, &kind).get_opt(&key.name).await
}

/// The DPU that an object from [`get`] is bound to.
pub(crate) fn bound_to(object: &DynamicObject) -> Option<&str> {
    object.data.pointer("/spec/dpu")?.as_str()
}

async fn patch(client: &Client, object: &ObjectMeta, patch: JsonPatch) -> kube::Result<Written> {
    let params = PatchParams { field_manager: Some(manager::AGENT.into()), ..PatchParams::default() };
    let api = Api::namespaced(client.clone(), object.namespace.as_deref().unwrap_or_default());
    api.patch(object.name.as_deref().unwrap_or_default(), &params, &Patch::<()>::Json(patch)).await
}

fn registration(object: &ObjectMeta, macs: &BTreeSet<Mac>) -> JsonPatch {
    let JsonPatch(mut operations) = finalizer_addition(object, FUNCTION_FINALIZER);
    let wanted: BTreeSet<_> = macs.iter().map(|mac| mac_label(&mac.to_string())).collect();
    let Some(present) = &object.labels else {
        if !wanted.is_empty() {
            let labels: Value = wanted.into_iter().map(|label| (label, json!(""))).collect();
            operations.push(add(["metadata", "labels"], labels));
        }
        return JsonPatch(operations);
    };
    for label in present.keys().filter(|key| noted_mac(key).is_some() && !wanted.contains(*key)) {
        let path = PointerBuf::from_tokens(["metadata", "labels", label]);
        operations.push(PatchOperation::Remove(RemoveOperation { path }));
    }
    for label in wanted.iter().filter(|label| !present.contains_key(*label)) {
        operations.push(add(["metadata", "labels", label], json!("")));
    }
    JsonPatch(operations)
}

fn add<const N: usize>(path: [&str; N], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path), value })
}

#[cfg(test)]
mod tests {
    use virtnet_client::is_overtaken;

    use super::*;

    fn refusal(managers: &[&str]) -> Status {
        let causes: Vec<_> = managers
            .iter()
            .map(|manager| {
                json!({
                    "reason": "FieldManagerConflict",
                    "message": format!("conflict with \"{manager}\" using virtnet.dev/v1alpha1"),
                    "field": ".status.conditions[type=\"Ready\"].status",
                })
            })
            .collect();
        serde_json::from_value(json!({"code": 409, "reason": "Conflict", "details": {"causes": causes}}))
            .unwrap()
    }

    #[test]
    fn only_the_labels_that_note_macs_are_ours() {
        let macs: BTreeSet<Mac> = ["0c:c4:7a:ff:22:01".parse().unwrap()].into();
        for (labels, wanted) in [
            (json!(null), json!({"mac.virtnet.dev/0c-c4-7a-ff-22-01": ""})),
            (
                json!({"app": "web", "mac.virtnet.dev/0c-c4-7a-ff-22-02": ""}),
                json!({"app": "web", "mac.virtnet.dev/0c-c4-7a-ff-22-01": ""}),
            ),
            // In capitals it is another label, and not found by who looks for the MAC.
            (
                json!({"mac.virtnet.dev/0C-C4-7A-FF-22-01": ""}),
                json!({"mac.virtnet.dev/0C-C4-7A-FF-22-01": "", "mac.virtnet.dev/0c-c4-7a-ff-22-01": ""}),
            ),
        ] {
            let mut object = json!({"metadata": {
                "name": "a", "uid": "u", "resourceVersion": "1", "labels": labels, "finalizers": ["virtnet.dev/function"],
            }});
            let metadata: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap();
            json_patch::patch(&mut object, &registration(&metadata, &macs)).unwrap();
            assert_eq!(object["metadata"]["labels"], wanted);
        }
    }

    #[test]
    fn a_field_is_taken_by_force_from_the_operator_alone() {
        for (managers, held, overtaken) in [
            (&["virtnet-liveness"][..], true, false),
            (&["virtnet-liveness", "virtnet-binder"], true, false),
            (&["virtnet-liveness", "kubectl-edit"], false, false),
            (&["kubectl-edit"], false, false),
            (&["my-virtnet-liveness"], false, false),
            (&[], false, true),
        ] {
            let refusal = refusal(managers);
            assert_eq!(
                (is_held_by_operator(&refusal), is_overtaken(&refusal)),
                (held, overtaken),
                "{managers:?}"
            );
        }
    }
}
