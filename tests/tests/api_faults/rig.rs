//! An agent of a simulated DPU on a real API server, by a way with faults; what is declared of it, and what must then be so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::Method;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use virtnet_agent::{Clock, Config, Metrics, Parts};
use virtnet_crds::{Dpu, VirtnetDevice};
use virtnet_model::FunctionKind;
use virtnet_sim::{Effect, Sim, SimConfig};
use virtnet_tests::control_plane::ControlPlane;
use virtnet_tests::faulty_way::{FaultyWay, Passed};
use virtnet_tests::world::not_ready;

/// Far longer than any of it takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(90);
/// How long nothing must be written for the system to be at rest: more than what lasts is written after.
const REST: Duration = Duration::from_secs(6);
const HOTPLUGGED: usize = 12;
const VFS: usize = 12;
/// One of the DPU's four is left to be declared later.
const STATIC: usize = 3;

/// A device as it was declared last.
struct Declared {
    function: Value,
    tag: Option<u16>,
}

/// The agent, its DPU, and its user.
pub(crate) struct Rig {
    pub(crate) way: FaultyWay,
    sim: Sim,
    user: Client,
    dpu: String,
    declared: BTreeMap<String, Declared>,
    /// What of this the DPU must have seen, each once: hot-plugged functions plugged and unplugged, and ports made, changed or
    /// removed.
    plugged: u64,
    unplugged: u64,
    port_changes: u64,
}

impl Rig {
    /// An agent that calls itself an administrator.
    pub(crate) async fn start(plane: &ControlPlane, dpu: &str) -> Self {
        let kubeconfig = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
        Self::start_as(plane, dpu, kubeconfig).await
    }

    /// An agent of this kubeconfig, in a namespace named as its DPU.
    pub(crate) async fn start_as(plane: &ControlPlane, dpu: &str, kubeconfig: Kubeconfig) -> Self {
        plane.install_kinds().await.unwrap();
        let user = plane.client().await.unwrap();
        make_namespace(&user, dpu).await;
        let object = json!({
            "apiVersion": virtnet_crds::API_VERSION, "kind": "Dpu", "metadata": {"name": dpu},
            "spec": {"host": {"sriov": [{"pf": 0, "numVfs": VFS + 1}]}},
        });
        let dpus: Api<Dpu> = Api::all(user.clone());
        dpus.patch(dpu, &PatchParams::apply("test"), &Patch::Apply(object)).await.unwrap();

        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.default_retry = false;
        let way = FaultyWay::new(Client::try_from(config).unwrap());
        let sim = Sim::new(SimConfig::default());
        let config = Config { dpu: dpu.into(), lease_namespace: "kube-system".into() };
        let agent =
            virtnet_agent::run(config, way.client(), Parts::from(&sim), Clock::system(), Metrics::default());
        // It ends with the test's runtime.
        tokio::spawn(agent);
        let declared = BTreeMap::new();
        let dpu = dpu.to_owned();
        Self { way, sim, user, dpu, declared, plugged: 0, unplugged: 0, port_changes: 0 }
    }

    fn devices(&self) -> Api<VirtnetDevice> {
        Api::namespaced(self.user.clone(), &self.dpu)
    }

    /// Declares a dozen hot-plugged functions and VFs and all static PFs but one, and leaves one VF.
    pub(crate) async fn declare_all(&mut self) {
        for index in 0..HOTPLUGGED {
            self.declare(&format!("hot-{index}"), json!({"hotplug": {}})).await;
        }
        for pf in 0..STATIC {
            self.declare(&format!("static-{pf}"), json!({"static": {"pf": pf}})).await;
        }
        for vf in 0..VFS {
            self.declare(&format!("vf-{vf}"), json!({"vf": {"pf": 0, "vf": vf}})).await;
        }
    }

    /// Declares the static PF and the VF that are left, and one more hot-plugged function.
    pub(crate) async fn declare_what_is_left(&mut self) {
        self.declare("hot-late", json!({"hotplug": {}})).await;
        self.declare("static-late", json!({"static": {"pf": STATIC}})).await;
        self.declare("vf-late", json!({"vf": {"pf": 0, "vf": VFS}})).await;
    }

    /// Declares a device of this function, with a port.
    pub(crate) async fn declare(&mut self, name: &str, function: Value) {
        self.plugged += u64::from(is_hotplugged(&function));
        self.port_changes += 1;
        self.declared.insert(name.to_owned(), Declared { function, tag: None });
        self.apply(name).await;
    }

    /// Gives each sort's device of this index another tag, where there is one.
    pub(crate) async fn tag(&mut self, index: usize, tag: u16) {
        for name in of_each_sort(index) {
            self.declared.get_mut(&name).unwrap().tag = Some(tag);
            self.port_changes += 1;
            self.apply(&name).await;
        }
    }

    /// Deletes each sort's device of this index.
    pub(crate) async fn delete(&mut self, index: usize) {
        for name in of_each_sort(index) {
            let Declared { function, .. } = self.declared.remove(&name).unwrap();
            self.unplugged += u64::from(is_hotplugged(&function));
            self.port_changes += 1;
            self.devices().delete(&name, &DeleteParams::default()).await.unwrap();
        }
    }

    async fn apply(&self, name: &str) {
        let Declared { function, tag } = &self.declared[name];
        let mut port = json!({"bridge": "ovsbr1"});
        if let Some(tag) = tag {
            port["tag"] = (*tag).into();
        }
        let object = json!({
            "apiVersion": virtnet_crds::API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": name},
            "spec": {"dpu": self.dpu, "function": function, "port": port},
        });
        self.devices().patch(name, &PatchParams::apply("test"), &Patch::Apply(object)).await.unwrap();
    }

    /// Waits until what is declared is there and Ready as it was declared last, and what was deleted is gone.
    pub(crate) async fn until_settled(&self) {
        let end = Instant::now() + LIMIT;
        loop {
            let waits = self.waits().await;
            if waits.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "not settled after {} s: {waits:#?}", LIMIT.as_secs());
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn waits(&self) -> Vec<String> {
        let devices = self.devices().list(&ListParams::default()).await.unwrap().items;
        let there: BTreeSet<_> = devices.iter().map(ResourceExt::name_any).collect();
        let missing = self.declared.keys().filter(|name| !there.contains(*name));
        let wait = |device: &VirtnetDevice| {
            let name = device.name_any();
            let Some(declared) = self.declared.get(&name) else {
                return Some(format!("{name} is not gone"));
            };
            let tag = device.status.as_ref().and_then(|status| status.port.as_ref()?.tag);
            let tagged = tag != declared.tag;
            not_ready(device).or_else(|| tagged.then(|| format!("{name} has the tag {tag:?}")))
        };
        missing.map(|name| format!("{name} is not there")).chain(devices.iter().filter_map(wait)).collect()
    }

    /// Waits until the agent has written nothing but its Lease for a while.
    pub(crate) async fn until_silent(&self) {
        let end = Instant::now() + LIMIT;
        loop {
            let last = self
                .way
                .passed()
                .into_iter()
                .rfind(|passed| passed.method != Method::GET && !passed.is_of("leases"));
            match last {
                Some(last) if last.at.elapsed() < REST => {
                    assert!(Instant::now() < end, "no rest after {} s: {last:?}", LIMIT.as_secs());
                    sleep(REST - last.at.elapsed()).await;
                }
                Some(_) | None => return,
            }
        }
    }

    /// What the DPU has seen of its agent but for being looked at.
    pub(crate) fn counters(&self) -> (BTreeMap<Effect, u64>, u64) {
        let counters = self.sim.counters();
        (counters.effects, counters.port_changes)
    }

    /// What must hold at the end of every test.
    pub(crate) async fn check(&self) {
        self.until_settled().await;
        self.until_silent().await;
        self.assert_functions_were_made_once().await;
        self.assert_nothing_was_written_twice();
    }

    async fn assert_functions_were_made_once(&self) {
        let counters = self.sim.counters();
        let seen = [Effect::Hotplug, Effect::Unplug, Effect::Modify, Effect::SetNumVfs]
            .map(|effect| (effect, counters.of(effect)));
        let expected = [
            (Effect::Hotplug, self.plugged),
            (Effect::Unplug, self.unplugged),
            (Effect::Modify, 0),
            (Effect::SetNumVfs, 1),
        ];
        assert_eq!(seen, expected);
        // A port that was removed and made again would be two more.
        assert_eq!(counters.port_changes, self.port_changes, "changes of ports");
        let functions = self.sim.controller().observe().await.unwrap().functions;
        let hotplugged = functions.values().filter(|function| function.kind == FunctionKind::HotPlug).count();
        assert_eq!(u64::try_from(hotplugged).unwrap(), self.plugged - self.unplugged);
        assert_eq!(self.sim.switch().observe().await.unwrap().ports.len(), self.declared.len());
    }

    /// Each write that the API took made another version of its object, and of no generation of a device was a status told
    /// twice.
    fn assert_nothing_was_written_twice(&self) {
        let mut told: BTreeMap<_, Vec<Value>> = BTreeMap::new();
        for Passed { target, replaces, object, .. } in self.writes() {
            let metadata = &object["metadata"];
            // What is let go of goes with the version that it had.
            let is_gone = !metadata["deletionTimestamp"].is_null() && metadata["finalizers"].is_null();
            if is_gone {
                continue;
            }
            assert_ne!(replaces.as_deref(), metadata["resourceVersion"].as_str(), "{target} changed nothing");
            if target.contains("/virtnetdevices/") && target.contains("/status?") {
                let of = (metadata["uid"].to_string(), metadata["generation"].to_string());
                let statuses = told.entry(of).or_default();
                assert!(!statuses.contains(&object["status"]), "{target} was told twice: {object:#}");
                statuses.push(object["status"].clone());
            }
        }
    }

    /// The writes of devices and of the Dpu that the API took from the agent.
    fn writes(&self) -> Vec<Passed> {
        let mut passed = self.way.passed();
        passed.retain(|passed| passed.is_write() && (passed.is_of("virtnetdevices") || passed.is_of("dpus")));
        passed
    }
}

/// Makes a namespace.
pub(crate) async fn make_namespace(user: &Client, name: &str) {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let namespaces: Api<Namespace> = Api::all(user.clone());
    namespaces.patch(name, &PatchParams::apply("test"), &Patch::Apply(object)).await.unwrap();
}

fn is_hotplugged(function: &Value) -> bool {
    function.get("hotplug").is_some()
}

fn of_each_sort(index: usize) -> Vec<String> {
    let mut names = vec![format!("hot-{index}"), format!("vf-{index}")];
    if index < STATIC {
        names.push(format!("static-{index}"));
    }
    names
}
