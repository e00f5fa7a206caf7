//! The manifests of the project: what kustomize makes of them, and a control plane that has them.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use virtnet_crds::yaml;

use crate::control_plane::ControlPlane;
use crate::kubectl::Kubectl;

/// The overlays, one for each way of installing.
pub const OVERLAYS: [&str; 3] = ["external", "simulated", "bluefield"];

/// A file or folder below `manifests/`.
#[must_use]
pub fn path(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").join(below)
}

/// The folder of an overlay, as kubectl is told it.
#[must_use]
pub fn overlay(name: &str) -> String {
    path("overlays").join(name).display().to_string()
}

/// The objects that an overlay comes to.
///
/// # Errors
/// Where kubectl refuses it.
pub fn objects(kubectl: &Kubectl, name: &str) -> anyhow::Result<Vec<Value>> {
    let text = kubectl.run(&["kustomize", &overlay(name)])?.ok()?;
    let documents: Result<Vec<_>, _> = yaml::documents(&text).into_iter().collect();
    let documents = documents.with_context(|| format!("reading the overlay {name}"))?;
    ensure!(!documents.is_empty(), "the overlay {name} has no objects");
    Ok(documents.into_iter().map(|document| document.value).collect())
}

/// The only object of this kind.
///
/// # Errors
/// Where there is none or another.
pub fn only<'a>(objects: &'a [Value], kind: &str) -> anyhow::Result<&'a Value> {
    let found: Vec<_> = objects.iter().filter(|object| object["kind"] == kind).collect();
    let [object] = found.as_slice() else {
        anyhow::bail!("{} objects are a {kind}, and not one", found.len())
    };
    Ok(object)
}

/// The pod that a `DaemonSet` would have on a node; without one, it is yet to be given to a node.
#[must_use]
pub fn pod(daemon_set: &Value, name: &str, node: Option<&str>) -> Value {
    let template = &daemon_set["spec"]["template"];
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": daemon_set["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
        },
        "spec": template["spec"],
    });
    if let Some(node) = node {
        pod["spec"]["nodeName"] = node.into();
    }
    pod
}

/// Gives the control plane kinds and rights, as the overlay `external` has them, and waits until the kinds are served.
///
/// # Errors
/// Where kubectl fails or warns.
pub async fn install(plane: &ControlPlane) -> anyhow::Result<Kubectl> {
    // Two that make the same object at once are in each other's way.
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _held = ONE_AT_A_TIME.lock().await;
    let kubectl = Kubectl::new(plane.kubeconfig());
    kubectl.run(&["apply", "-k", &overlay("external")])?.ok()?;
    let kinds = virtnet_crds::crd::all();
    let kinds: Vec<_> =
        kinds.iter().filter_map(|kind| Some(format!("crd/{}", kind.metadata.name.as_ref()?))).collect();
    let mut wait = vec!["wait", "--for=condition=Established", "--timeout=60s"];
    wait.extend(kinds.iter().map(String::as_str));
    kubectl.run(&wait)?.ok()?;
    Ok(kubectl)
}
