//! The agent over virtnetd, with a worker in a process of its own, beside the agent over a controller in its own process: both
//! DPUs are simulated, in real time.

#![expect(clippy::unwrap_used, reason = "a test that can not go on panics")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use virtnet_agent::{Config, Metrics, Parts};
use virtnet_crds::{API_VERSION, Dpu, VirtnetDevice};
use virtnet_model::Controller;
use virtnet_sim::{FirmwareConfig, Sim, SimConfig};
use virtnet_telemetry::LogArguments;
use virtnet_tests::fleet::embedded_api;
use virtnet_tests::programs::built;
use virtnet_tests::world::{DPU, LEASES, not_ready};
use virtnetd::parent::{self, Patience, Wish};
use virtnetd::socket;
use virtnetd::store::Left;

/// Far longer than any of it takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(180);

fn config() -> SimConfig {
    SimConfig { firmware: FirmwareConfig::guide_with("PF_TOTAL_SF=524").unwrap(), ..SimConfig::default() }
}

/// virtnetd in this process, its workers beside it.
struct Service {
    folder: TempDir,
    wishes: mpsc::Sender<Wish>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Service {
    fn start(sim: &Sim) -> Self {
        #[derive(clap::Parser)]
        struct Arguments {
            #[command(flatten)]
            logs: LogArguments,
        }
        let folder = tempfile::tempdir().unwrap();
        let (wishes, receiver) = mpsc::channel(1);
        let logs = <Arguments as clap::Parser>::parse_from(["test", "--log=warn"]).logs;
        let config = parent::Config {
            conf: "{}".to_owned(),
            conf_file: None,
            recovery: None,
            program: built("virtnetd").unwrap(),
            listening: socket::listen(&folder.path().join("s.sock"), None).unwrap(),
            left: Left::default(),
            log_arguments: logs.to_arguments(),
            log: logs.begin(),
            worker: watch::Sender::new(None),
            patience: Patience::default(),
        };
        let task = tokio::spawn(parent::run(config, sim.clone(), receiver));
        Self { folder, wishes, task }
    }

    fn client(&self) -> Arc<dyn Controller> {
        Arc::new(virtnet_rpc::Client::connect(&self.folder.path().join("s.sock")))
    }
}

/// An API, and an agent over a simulated DPU and a controller of it.
struct World {
    client: Client,
    agent: tokio::task::AbortHandle,
}

impl Drop for World {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

impl World {
    async fn new(sim: &Sim, controller: Arc<dyn Controller>) -> Self {
        let (client, _, clock) = embedded_api().await;
        let parts = Parts { controller, ..Parts::from(sim) };
        let config = Config { dpu: DPU.into(), lease_namespace: LEASES.into() };
        let agent = virtnet_agent::run(config, client.clone(), parts, clock, Metrics::default());
        Self { client, agent: tokio::spawn(agent).abort_handle() }
    }

    fn devices(&self) -> Api<VirtnetDevice> {
        Api::default_namespaced(self.client.clone())
    }

    async fn make_vfs(&self, num_vfs: u16) {
        let sriov: Vec<_> = (0..4).map(|pf| json!({"pf": pf, "numVfs": num_vfs})).collect();
        let dpu = json!({
            "apiVersion": API_VERSION, "kind": "Dpu", "metadata": {"name": DPU},
            "spec": {"host": {"sriov": sriov}},
        });
        let dpus: Api<Dpu> = Api::all(self.client.clone());
        dpus.patch(DPU, &PatchParams::apply("test"), &Patch::Apply(dpu)).await.unwrap();
    }

    async fn create(&self, object: Value) {
        let object: VirtnetDevice = serde_json::from_value(object).unwrap();
        self.devices().create(&PostParams::default(), &object).await.unwrap();
    }

    /// Waits until all are Ready; what each status says then, without times.
    async fn statuses(&self) -> BTreeMap<String, Value> {
        let begun = Instant::now();
        loop {
            let devices = self.devices().list(&Default::default()).await.unwrap().items;
            let waiting: Vec<_> = devices.iter().filter_map(not_ready).collect();
            if waiting.is_empty() {
                return devices.iter().map(|device| (device.name_any(), status(device))).collect();
            }
            assert!(begun.elapsed() < LIMIT, "{} wait: {waiting:#?}", waiting.len());
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// What a status says, but for when it came to be so, and for where a hot-plugged function happens to be: of several that are
/// plugged at once, whichever is first has the first slot.
fn status(device: &VirtnetDevice) -> Value {
    let mut status = serde_json::to_value(&device.status).unwrap();
    for condition in status["conditions"].as_array_mut().unwrap() {
        condition.as_object_mut().unwrap().remove("lastTransitionTime");
    }
    let function = status["function"].as_object_mut().unwrap();
    function.remove("rdmaDevice");
    if device.spec.function.hotplug.is_some() {
        for place in ["pf", "vuid", "bdf"] {
            assert!(function.remove(place).is_some(), "{place} of {}", device.name_any());
        }
    }
    status
}

fn device(name: &str, function: &Value) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": name},
        "spec": {"dpu": DPU, "function": function, "port": {"bridge": "ovsbr1"}},
    })
}

/// 504 VFs, 4 static and 16 hot-plugged PFs.
fn everything() -> Vec<Value> {
    let hot_plugged = (0..16).map(|index| {
        let mut object = device(&format!("hot-{index}"), &json!({"hotplug": {"sfNumber": 2000 + index}}));
        object["spec"]["mac"] = json!(format!("0c:c4:7a:ff:22:{index:02x}"));
        object
    });
    let vfs = (0..4).flat_map(|pf| {
        (0..126).map(move |vf| device(&format!("vf-{pf}-{vf}"), &json!({"vf": {"pf": pf, "vf": vf}})))
    });
    let statics = (0..4).map(|pf| device(&format!("static-{pf}"), &json!({"static": {"pf": pf}})));
    hot_plugged.chain(statics).chain(vfs).collect()
}

/// The samples that are bound to a DPU, each to this one.
fn samples() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/samples");
    let mut found = Vec::new();
    for name in ["hotplug", "static-pf", "vf", "vlans"] {
        let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
        for part in text.split("\n---\n") {
            let object: Value = serde_saphyr::from_str(part).unwrap();
            if object["kind"] == "VirtnetDevice" && !object["spec"]["dpu"].is_null() {
                found.push(object);
            }
        }
    }
    assert!(found.len() >= 4, "{found:?}");
    for (index, object) in found.iter_mut().enumerate() {
        object["metadata"]["namespace"] = json!("default");
        object["spec"]["dpu"] = json!(DPU);
        if let Some(hotplug) = object["spec"]["function"].get_mut("hotplug") {
            hotplug["sfNumber"] = json!(2100 + index);
        }
        // What is derived of an object's uid is another in each world.
        if object["spec"]["mac"].is_null() && !object["spec"]["function"]["hotplug"].is_null() {
            object["spec"]["mac"] = json!(format!("0c:c4:7a:ff:33:{index:02x}"));
        }
    }
    found
}

async fn played(world: &World, objects: &[Value], num_vfs: u16) -> BTreeMap<String, Value> {
    for object in objects {
        world.create(object.clone()).await;
    }
    world.make_vfs(num_vfs).await;
    world.statuses().await
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_and_524_devices_have_the_same_statuses_over_virtnetd_as_in_one_process() {
    let (here, there) = (Sim::new(config()), Sim::device_only(config(), None));
    let service = Service::start(&there);
    for (objects, num_vfs) in [(samples(), 8), (everything(), 126)] {
        let near = World::new(&here, here.controller()).await;
        let far = World::new(&there, service.client()).await;
        let (near_statuses, far_statuses) =
            tokio::join!(played(&near, &objects, num_vfs), played(&far, &objects, num_vfs));
        assert_eq!(near_statuses.len(), objects.len());
        for (name, status) in &near_statuses {
            assert_eq!(far_statuses.get(name), Some(status), "{name}");
        }
        for world in [&near, &far] {
            world.devices().delete_collection(&Default::default(), &Default::default()).await.unwrap();
            let begun = Instant::now();
            while !world.devices().list(&Default::default()).await.unwrap().items.is_empty() {
                assert!(begun.elapsed() < LIMIT, "they do not go");
                sleep(Duration::from_millis(100)).await;
            }
        }
        // The host takes the VFs away, so that the next are made anew.
        for sim in [&here, &there] {
            for pf in 0..4 {
                sim.write_num_vfs(u32::try_from(pf).unwrap().try_into().unwrap(), 0).unwrap();
            }
        }
    }
    service.wishes.send(Wish::Stop).await.unwrap();
    service.task.await.unwrap().unwrap();
}
