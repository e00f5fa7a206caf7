//! The liveness controller's requests: a look at a Lease, the condition Ready, and finalizers that nobody else takes off.

use std::fmt::Debug;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use virtnet_client::{Clock, finalizer_removal};
use virtnet_crds::conditions::READY;
use virtnet_crds::{API_VERSION, BOUND_FINALIZER, Dpu, FUNCTION_FINALIZER, Reason, VirtnetDevice, manager};

/// The Lease of a DPU's agent past every cache.
pub(super) async fn look(client: &Client, namespace: &str, dpu: &str) -> kube::Result<Option<Lease>> {
    Api::namespaced(client.clone(), namespace).get_opt(dpu).await
}

/// Whether there is a Dpu of this name, in whatever form.
pub(super) async fn is_declared(client: &Client, dpu: &str) -> kube::Result<bool> {
    Ok(Api::<Dpu>::all(client.clone()).get_metadata_opt(dpu).await?.is_some())
}

/// Says of a device that nothing is known of it.
pub(super) async fn mark(
    client: &Client,
    device: &ObjectMeta,
    why: &(Reason, String),
    clock: &Clock,
) -> kube::Result<VirtnetDevice> {
    let api = Api::namespaced(client.clone(), device.namespace.as_deref().unwrap_or_default());
    unknown(&api, "VirtnetDevice", device, why, clock).await
}

/// Says of a DPU that nothing is known of it.
pub(super) async fn mark_dpu(
    client: &Client,
    dpu: &ObjectMeta,
    why: &(Reason, String),
    clock: &Clock,
) -> kube::Result<Dpu> {
    unknown(&Api::all(client.clone()), "Dpu", dpu, why, clock).await
}

/// By force: the agent that said otherwise is silent, and takes it back in the same way.
async fn unknown<K>(
    api: &Api<K>,
    kind: &str,
    metadata: &ObjectMeta,
    (reason, message): &(Reason, String),
    clock: &Clock,
) -> kube::Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let ObjectMeta { namespace, name, uid, resource_version, generation, .. } = metadata;
    let ready = Condition {
        type_: READY.to_owned(),
        status: "Unknown".to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.clone(),
        observed_generation: *generation,
        last_transition_time: Time(clock.now()),
    };
    let mut body = json!({
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "uid": uid, "resourceVersion": resource_version},
        "status": {"conditions": [ready]},
    });
    if let Some(namespace) = namespace {
        body["metadata"]["namespace"] = json!(namespace);
    }
    let params = PatchParams::apply(manager::LIVENESS).force();
    api.patch_status(name.as_deref().unwrap_or_default(), &params, &Patch::Apply(body)).await
}

/// Takes the agent's finalizer off a device.
pub(super) async fn release(client: &Client, device: &ObjectMeta) -> kube::Result<VirtnetDevice> {
    let api = Api::namespaced(client.clone(), device.namespace.as_deref().unwrap_or_default());
    let_go(&api, device, FUNCTION_FINALIZER).await
}

/// Takes the agent's finalizer off a Dpu.
pub(super) async fn release_dpu(client: &Client, dpu: &ObjectMeta) -> kube::Result<Dpu> {
    let_go(&Api::all(client.clone()), dpu, BOUND_FINALIZER).await
}

async fn let_go<K>(api: &Api<K>, object: &ObjectMeta, finalizer: &str) -> kube::Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let params = PatchParams { field_manager: Some(manager::LIVENESS.into()), ..PatchParams::default() };
    let patch = Patch::<()>::Json(finalizer_removal(object, finalizer));
    api.patch(object.name.as_deref().unwrap_or_default(), &params, &patch).await
}
