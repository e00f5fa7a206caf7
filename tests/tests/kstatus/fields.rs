//! Who owns which field where GitOps applies the same manifests again and again, by force, as Flux and Argo CD do.

use std::time::Duration;

use futures::FutureExt;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;
use virtnet_crds::{API_VERSION, VirtnetDevice, VirtnetDeviceSet};
use virtnet_tests::fleet::{Fleet, embedded_api, meanwhile};

/// The field managers of Flux and of Argo CD.
pub(crate) const GITOPS: [&str; 2] = ["kustomize-controller", "argocd-controller"];

fn device(name: &str) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": name},
        "spec": {"dpuSelector": {}, "function": {"hotplug": {}}, "port": {"bridge": "ovsbr1"}},
    })
}

fn set(name: &str, replicas: Option<u32>) -> Value {
    let mut set = json!({
        "apiVersion": API_VERSION, "kind": "VirtnetDeviceSet", "metadata": {"name": name},
        "spec": {"dpuSelector": {}, "template": {"spec": {"function": {"hotplug": {}}}}},
    });
    if let Some(replicas) = replicas {
        set["spec"]["replicas"] = json!(replicas);
    }
    set
}

#[tokio::test(start_paused = true)]
async fn what_the_binder_chose_stays_when_the_same_manifest_is_applied_again() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &["dpu-a"]);
    let devices: Api<VirtnetDevice> = Api::default_namespaced(client.clone());
    meanwhile([fleet.agents(&clock), fleet.operator(&client, &clock)], async {
        for manager in GITOPS {
            let apply = async || {
                let params = PatchParams::apply(manager).force();
                devices.patch(manager, &params, &Patch::Apply(device(manager))).await.unwrap()
            };
            apply().await;
            fleet.until_so(|found| found.len() == 1 && found.contains_key("Ready")).boxed().await;
            sleep(Duration::from_secs(5)).await;
            let before = devices.get(manager).await.unwrap();
            assert_eq!(before.spec.dpu.as_deref(), Some("dpu-a"));
            assert_eq!(apply().await.resource_version(), before.resource_version(), "nothing is written");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_number_of_replicas_is_its_owners() {
    let (client, _, _) = embedded_api().await;
    let sets: Api<VirtnetDeviceSet> = Api::default_namespaced(client.clone());
    for manager in GITOPS {
        let apply = async |replicas| {
            let params = PatchParams::apply(manager).force();
            sets.patch(manager, &params, &Patch::Apply(set(manager, replicas))).await.unwrap().spec.replicas
        };
        // Where no manifest ever said a number an autoscaler's stays.
        assert_eq!(apply(None).await, 0);
        let scaler = PatchParams { field_manager: Some("autoscaler".into()), ..PatchParams::default() };
        sets.patch_scale(manager, &scaler, &Patch::Merge(json!({"spec": {"replicas": 3}}))).await.unwrap();
        assert_eq!(apply(None).await, 3);
        // One that the manifest says is set back to.
        assert_eq!(apply(Some(2)).await, 2);
        // Taken out of the manifest while nobody else owns it, it falls to the default, and all devices would go.
        assert_eq!(apply(None).await, 0);
        // So somebody else owns it before.
        assert_eq!(apply(Some(2)).await, 2);
        let mut held = set(manager, Some(2));
        held["spec"] = json!({"replicas": 2});
        sets.patch(manager, &PatchParams::apply("handover"), &Patch::Apply(held)).await.unwrap();
        assert_eq!(apply(None).await, 2);
        sets.patch_scale(manager, &scaler, &Patch::Merge(json!({"spec": {"replicas": 4}}))).await.unwrap();
        assert_eq!(apply(None).await, 4);
    }
}
