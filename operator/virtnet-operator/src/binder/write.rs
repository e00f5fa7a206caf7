//! The binder's writes: `spec.dpu`, and while a device can't be bound the conditions that say so.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use virtnet_client::{Clock, condition_removal};
use virtnet_crds::conditions::{BOUND, Finding, READY, STALLED, merge};
use virtnet_crds::{API_VERSION, Reason, VirtnetDevice, manager};

use crate::fleet::Device;

/// Binds the device, if the object is still the one that was seen.
pub(super) async fn bind(client: &Client, device: &Device, dpu: &str) -> kube::Result<VirtnetDevice> {
    let body = body(&device.metadata, "spec", &json!({"dpu": dpu}));
    let (api, name) = named(client, &device.metadata);
    api.patch(&name, &PatchParams::apply(manager::BINDER), &Patch::Apply(body)).await
}

/// Says why the device is bound to nothing. By force, for what an agent said of it while it was bound is no longer so. Where
/// that was that a person must change the spec it is taken off before, for nobody else does that.
pub(super) async fn say(
    client: &Client,
    device: &Device,
    (reason, message): &(Reason, String),
    clock: &Clock,
) -> kube::Result<VirtnetDevice> {
    let generation = device.metadata.generation.unwrap_or_default();
    let findings = [BOUND, READY].map(|type_| Finding::new(type_, *reason, message));
    let findings = findings.into_iter().chain(Finding::kstatus(*reason, message)).collect();
    let before = device.told.as_deref().unwrap_or_default();
    let conditions = merge(before, findings, generation, &Time(clock.now()));
    let status = json!({"observedGeneration": generation, "conditions": conditions});
    let params = PatchParams::apply(manager::BINDER).force();
    let Some(index) = device.stalled_at else {
        return write(client, &device.metadata, &status, params).await;
    };
    let (api, name) = named(client, &device.metadata);
    let removal = Patch::<()>::Json(condition_removal(&device.metadata, index, STALLED));
    let plain = PatchParams { field_manager: Some(manager::BINDER.into()), ..PatchParams::default() };
    let device = api.patch_status(&name, &plain, &removal).await?;
    write(client, &device.metadata, &status, params).await
}

/// Takes back what was said: the agent says it all now.
pub(super) async fn clear(client: &Client, device: &Device) -> kube::Result<VirtnetDevice> {
    write(client, &device.metadata, &json!({}), PatchParams::apply(manager::BINDER)).await
}

async fn write(
    client: &Client,
    device: &ObjectMeta,
    status: &Value,
    params: PatchParams,
) -> kube::Result<VirtnetDevice> {
    let body = body(device, "status", status);
    let (api, name) = named(client, device);
    api.patch_status(&name, &params, &Patch::Apply(body)).await
}

fn named(client: &Client, device: &ObjectMeta) -> (Api<VirtnetDevice>, String) {
    let ObjectMeta { namespace, name, .. } = device;
    let api = Api::namespaced(client.clone(), namespace.as_deref().unwrap_or_default());
    (api, name.clone().unwrap_or_default())
}

fn body(metadata: &ObjectMeta, field: &str, value: &Value) -> Value {
    let ObjectMeta { namespace, name, uid, resource_version, .. } = metadata;
    json!({
        "apiVersion": API_VERSION,
        "kind": "VirtnetDevice",
        "metadata": {"namespace": namespace, "name": name, "uid": uid, "resourceVersion": resource_version},
        field: value,
    })
}
