//! The set controller's requests: a fresh look at a set, its devices, and its status.

use std::collections::BTreeSet;

use futures::future::try_join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use virtnet_client::Clock;
use virtnet_crds::conditions::{Finding, READY, RECONCILING, STALLED, merge};
use virtnet_crds::metadata::dpu_name;
use virtnet_crds::{
    API_VERSION, Conditions, Dpu, Member, REVISION_ANNOTATION, SET_LABEL, VirtnetDevice, VirtnetDeviceSet,
    VirtnetDeviceSetStatus, manager,
};

use super::standing::Standing;
use crate::fleet::{Device, Set};

/// What an API said of a set at this moment.
#[derive(Debug)]
pub(crate) struct Looked {
    /// The set; `None`: it is gone, or another of the same name.
    pub(super) set: Option<VirtnetDeviceSet>,
    /// DPUs by name; `None`: it is gone.
    pub(super) dpus: Vec<(String, Option<Dpu>)>,
}

/// Looks at DPUs and then at a set past every cache.
pub(super) async fn look(client: &Client, set: &ObjectMeta, dpus: BTreeSet<String>) -> kube::Result<Looked> {
    let api: Api<Dpu> = Api::all(client.clone());
    let dpus = dpus.into_iter().map(async |name| {
        // A name becomes a part of the request. Of one that no object can have there is none.
        let dpu = if dpu_name(&name).is_ok() { api.get_opt(&name).await? } else { None };
        Ok::<_, kube::Error>((name, dpu))
    });
    let dpus = try_join_all(dpus).await?;
    let sets: Api<VirtnetDeviceSet> =
        Api::namespaced(client.clone(), set.namespace.as_deref().unwrap_or_default());
    let found = sets.get_opt(set.name.as_deref().unwrap_or_default()).await?;
    Ok(Looked { set: found.filter(|found| found.metadata.uid == set.uid), dpus })
}

/// The version that no object has: an apply that names it makes an object where there is none, and is refused as overtaken
/// where there is one, whoever's it is.
const NONE_YET: &str = "1";

/// Makes a device of the set where there is none, or makes one that was seen as the set wants it, if it still is the one.
pub(super) async fn apply(
    client: &Client,
    set: &Set,
    member: &Member,
    seen: Option<&ObjectMeta>,
) -> kube::Result<VirtnetDevice> {
    let (name, namespace) = (member.name(set.name()), set.namespace());
    let mut annotations = set.spec.template.metadata.clone().unwrap_or_default().annotations;
    annotations.insert(REVISION_ANNOTATION.to_owned(), set.revision.clone());
    let mut metadata = json!({
        "namespace": namespace,
        "name": name,
        "labels": set.spec.device_labels(set.name()),
        "annotations": annotations,
        "ownerReferences": [{
            "apiVersion": API_VERSION, "kind": "VirtnetDeviceSet", "name": set.name(), "uid": set.uid(),
            "controller": true, "blockOwnerDeletion": true,
        }],
    });
    match seen {
        Some(seen) => {
            metadata["uid"] = json!(seen.uid);
            metadata["resourceVersion"] = json!(seen.resource_version);
        }
        None => metadata["resourceVersion"] = json!(NONE_YET),
    }
    let body = json!({
        "apiVersion": API_VERSION, "kind": "VirtnetDevice", "metadata": metadata, "spec": set.spec.device_spec(member),
    });
    let api: Api<VirtnetDevice> = Api::namespaced(client.clone(), namespace);
    api.patch(&name, &PatchParams::apply(manager::SET), &Patch::Apply(body)).await
}

/// Deletes a device, if the object is still the one that was seen; answers what is left of it, where it has finalizers.
pub(super) async fn delete(client: &Client, device: &Device) -> kube::Result<Option<VirtnetDevice>> {
    let ObjectMeta { uid, resource_version, .. } = device.metadata.clone();
    let preconditions = Some(Preconditions { uid, resource_version });
    let params = DeleteParams { preconditions, ..DeleteParams::background() };
    let api: Api<VirtnetDevice> = Api::namespaced(client.clone(), device.namespace());
    Ok(api.delete(device.name(), &params).await?.left())
}

/// The status that says how the set stands.
pub(super) fn status(set: &Set, standing: &Standing, clock: &Clock) -> VirtnetDeviceSetStatus {
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    VirtnetDeviceSetStatus {
        observed_generation: set.metadata.generation.unwrap_or_default(),
        replicas: count(standing.replicas),
        bound_replicas: count(standing.bound),
        ready_replicas: count(standing.ready),
        updated_replicas: count(standing.updated),
        selector: format!("{}={}", SET_LABEL, set.name()),
        conditions: conditions(set, standing, clock),
    }
}

fn conditions(set: &Set, Standing { reason, message, .. }: &Standing, clock: &Clock) -> Conditions {
    let findings =
        [Finding::new(READY, *reason, message)].into_iter().chain(Finding::kstatus(*reason, message));
    let generation = set.metadata.generation.unwrap_or_default();
    merge(&set.status.conditions, findings.collect(), generation, &Time(clock.now()))
}

/// What a status says of readiness.
pub(super) fn ready(status: &VirtnetDeviceSetStatus) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == READY)
}

/// Whether a status that was found says what is wanted. Conditions of other writers say nothing of it.
pub(super) fn tells(found: &VirtnetDeviceSetStatus, wanted: &VirtnetDeviceSetStatus) -> bool {
    let is_ours = |condition: &&Condition| [READY, RECONCILING, STALLED].contains(&condition.type_.as_str());
    let ours = |status: &VirtnetDeviceSetStatus| -> Vec<Condition> {
        status.conditions.iter().filter(is_ours).cloned().collect()
    };
    ours(found) == wanted.conditions
        && VirtnetDeviceSetStatus { conditions: Conditions::new(), ..found.clone() }
            == VirtnetDeviceSetStatus { conditions: Conditions::new(), ..wanted.clone() }
}

/// Writes the status, if the set is still the one that was seen.
pub(super) async fn tell(
    client: &Client,
    set: &ObjectMeta,
    status: &VirtnetDeviceSetStatus,
) -> kube::Result<VirtnetDeviceSet> {
    let ObjectMeta { namespace, name, uid, resource_version, .. } = set;
    let body: Value = json!({
        "apiVersion": API_VERSION,
        "kind": "VirtnetDeviceSet",
        "metadata": {"namespace": namespace, "name": name, "uid": uid, "resourceVersion": resource_version},
        "status": status,
    });
    let api: Api<VirtnetDeviceSet> =
        Api::namespaced(client.clone(), namespace.as_deref().unwrap_or_default());
    let params = PatchParams::apply(manager::SET);
    api.patch_status(name.as_deref().unwrap_or_default(), &params, &Patch::Apply(body)).await
}
