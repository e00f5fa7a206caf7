//! The agent of a simulated DPU on a real kube-apiserver, in real time.

#![expect(clippy::unwrap_used, reason = "the helpers of tests panic to fail as the tests themselves do")]

use std::time::Duration;

use futures::StreamExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::wait::{Condition, await_condition, conditions};

use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use virtnet_agent::{Clock, Config, Metrics, Parts};
use virtnet_crds::{Dpu, VirtnetDevice};
use virtnet_sim::{Sim, SimConfig};
use virtnet_tests::control_plane::ControlPlane;
use virtnet_tests::world::reason;

const DPU: &str = "bf3-real";
const DEVICES: usize = 12;
/// Far longer than any of it takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(60);

async fn apply(devices: &Api<VirtnetDevice>, name: &str, spec: Value) -> VirtnetDevice {
    let object = json!({
        "apiVersion": virtnet_crds::API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": name}, "spec": spec,
    });
    devices.patch(name, &PatchParams::apply("test"), &Patch::Apply(object)).await.unwrap()
}

fn spec(tag: Option<u16>) -> Value {
    let mut spec = json!({"dpu": DPU, "function": {"hotplug": {}}, "port": {"bridge": "ovsbr1"}});
    if let Some(tag) = tag {
        spec["port"]["tag"] = tag.into();
    }
    spec
}

/// Waits until a device is as it should be.
async fn until(devices: &Api<VirtnetDevice>, name: &str, holds: impl Condition<VirtnetDevice>) {
    timeout(LIMIT, await_condition(devices.clone(), name, holds)).await.unwrap().unwrap();
}

fn is_ready(device: Option<&VirtnetDevice>) -> bool {
    device.is_some_and(|device| reason(device).is_none())
}

#[tokio::test]
async fn devices_become_ready_follow_their_spec_rest_and_go() {
    let plane = ControlPlane::shared().await.unwrap();
    plane.install_kinds().await.unwrap();
    let client: Client = plane.client().await.unwrap();
    let sim = Sim::new(SimConfig::default());
    let config = Config { dpu: DPU.into(), lease_namespace: "kube-system".into() };
    let agent =
        virtnet_agent::run(config, client.clone(), Parts::from(&sim), Clock::system(), Metrics::default());
    let user = use_it(client, &sim);
    tokio::select! {
        () = agent => panic!("the agent ended"),
        () = user => {}
    }
}

async fn use_it(client: Client, sim: &Sim) {
    let devices: Api<VirtnetDevice> = Api::default_namespaced(client.clone());
    let names: Vec<String> = (0..DEVICES).map(|index| format!("real-{index}")).collect();
    for name in &names {
        apply(&devices, name, spec(None)).await;
    }
    for name in &names {
        until(&devices, name, is_ready).await;
    }
    assert_eq!(sim.switch().observe().await.unwrap().ports.len(), DEVICES);
    let is_made = |dpu: Option<&Dpu>| {
        let finalizers = dpu.map(|dpu| dpu.finalizers().to_vec()).unwrap_or_default();
        dpu.is_some_and(|dpu| dpu.status.is_some()) && finalizers == ["virtnet.dev/bound"]
    };
    timeout(LIMIT, await_condition(Api::<Dpu>::all(client), DPU, is_made)).await.unwrap().unwrap();

    apply(&devices, &names[0], spec(Some(7))).await;
    let tagged = |device: Option<&VirtnetDevice>| {
        let port = device.and_then(|device| device.status.as_ref()?.port.as_ref());
        is_ready(device) && port.is_some_and(|port| port.tag == Some(7))
    };
    until(&devices, &names[0], tagged).await;

    // At rest nothing is written to any device: their watch, begun at a list of now, has nothing to tell.
    let list = devices.list(&ListParams::default()).await.unwrap();
    let version = list.metadata.resource_version.unwrap();
    let mut changes = devices.watch(&watch_params(), &version).await.unwrap().boxed();
    let change = timeout(Duration::from_secs(4), changes.next()).await;
    assert!(matches!(change, Err(_) | Ok(None)), "written at rest: {change:?}");

    for name in &names {
        devices.delete(name, &DeleteParams::default()).await.unwrap();
    }
    for device in &list.items {
        let (name, uid) = (device.name_any(), device.uid().unwrap());
        timeout(LIMIT, await_condition(devices.clone(), &name, conditions::is_deleted(&uid)))
            .await
            .unwrap()
            .unwrap();
    }
    let plugged = sim.controller().observe().await.unwrap().functions;
    let hotplugged =
        plugged.values().filter(|function| function.kind == virtnet_model::FunctionKind::HotPlug);
    assert_eq!(hotplugged.count(), 0);
    assert!(sim.switch().observe().await.unwrap().ports.is_empty());
}

fn watch_params() -> kube::api::WatchParams {
    kube::api::WatchParams::default().timeout(10).disable_bookmarks()
}
