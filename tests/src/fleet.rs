//! A small fleet: simulated DPUs with an agent each, on any API, under any clock.

#![expect(clippy::missing_panics_doc, reason = "these panic to fail as the tests that use them do")]
#![expect(clippy::unwrap_used, reason = "these panic to fail as the tests that use them do")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use virtnet_agent::{Clock, Config, Metrics, Parts};
use virtnet_crds::{API_VERSION, LEASE_NAMESPACE, VirtnetDevice};
use virtnet_embedded_api as embedded;
use virtnet_operator::{Leadership, Metrics as OperatorMetrics};
use virtnet_sim::{Sim, SimConfig};

use crate::world::{LEASES, reason};

/// The hot-plug slots of each: what the guide's firmware has.
pub const SLOTS: usize = 16;
/// Far longer than any of it takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(120);

/// An API and the DPUs that it declares.
pub struct Fleet {
    /// A client that may do anything.
    pub client: Client,
    /// The DPUs by name.
    pub sims: BTreeMap<String, Sim>,
    /// The namespace of the Leases: one that is always there, or that the manifests make.
    pub leases: &'static str,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("sims", &self.sims).finish_non_exhaustive()
    }
}

impl Fleet {
    /// DPUs of these names, each with MACs of its own.
    pub fn new(client: Client, names: &[&str]) -> Self {
        Self::of(client, names, &SimConfig::default())
    }

    /// The same with DPUs that are otherwise so.
    pub fn of(client: Client, names: &[&str], config: &SimConfig) -> Self {
        let sims = names.iter().enumerate().map(|(index, name)| {
            let base_mac = format!("0c:c4:7a:ff:{index:02x}:00").parse().unwrap();
            let config = SimConfig { base_mac, seed: index as u64, ..config.clone() };
            ((*name).to_owned(), Sim::new(config))
        });
        Self { client, sims: sims.collect(), leases: LEASES }
    }

    /// The same where Leases are in the namespace that `manifests/` make.
    #[must_use]
    pub fn on_kubernetes(client: Client, names: &[&str]) -> Self {
        Self { leases: LEASE_NAMESPACE, ..Self::new(client, names) }
    }

    /// An agent for each DPU; they live for as long as the future is polled.
    pub fn agents(&self, clock: &Clock) -> BoxFuture<'static, ()> {
        let agents: Vec<_> = self.sims.keys().map(|name| self.agent(name, clock)).collect();
        join_all(agents).map(drop).boxed()
    }

    /// The agent of one DPU.
    pub fn agent(&self, dpu: &str, clock: &Clock) -> BoxFuture<'static, ()> {
        self.agent_by(&self.client, dpu, clock)
    }

    /// The agent of one DPU, by a client of its own.
    pub fn agent_by(&self, client: &Client, dpu: &str, clock: &Clock) -> BoxFuture<'static, ()> {
        let config = Config { dpu: dpu.to_owned(), lease_namespace: self.leases.into() };
        let parts = Parts::from(&self.sims[dpu]);
        virtnet_agent::run(config, client.clone(), parts, clock.clone(), Metrics::default()).boxed()
    }

    /// An operator with this client, which acts whatever others do.
    pub fn operator(&self, client: &Client, clock: &Clock) -> BoxFuture<'static, ()> {
        self.operator_by(client, clock, OperatorMetrics::default(), Leadership::of_one())
    }

    /// An operator that acts where it leads.
    pub fn operator_by(
        &self,
        client: &Client,
        clock: &Clock,
        metrics: OperatorMetrics,
        leadership: Leadership,
    ) -> BoxFuture<'static, ()> {
        let config = virtnet_operator::Config {
            lease_namespace: self.leases.into(),
            identity: "test".into(),
            board: None,
        };
        let (client, clock) = (client.clone(), clock.clone());
        async move { virtnet_operator::run(config, client, clock, metrics, &leadership).await }.boxed()
    }

    /// The devices of the default namespace.
    pub fn devices(&self) -> Api<VirtnetDevice> {
        Api::default_namespaced(self.client.clone())
    }

    /// Makes a device of this spec.
    pub async fn create(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": name}, "spec": spec,
        });
        let object = serde_json::from_value(object).unwrap();
        self.devices().create(&PostParams::default(), &object).await.unwrap();
    }

    /// All devices.
    pub async fn list(&self) -> Vec<VirtnetDevice> {
        self.devices().list(&ListParams::default()).await.unwrap().items
    }

    /// The names of devices by reason; `Ready` where they are.
    pub async fn by_reason(&self) -> BTreeMap<String, Vec<String>> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for device in self.list().await {
            let reason = reason(&device).map_or_else(|| "Ready".to_owned(), |(reason, _)| reason);
            found.entry(reason).or_default().push(device.name_any());
        }
        found
    }

    /// Waits until so many devices have each of these reasons, and no other has any.
    pub async fn until(&self, wanted: &[(&str, usize)]) {
        self.until_so(|found| {
            let as_wanted =
                |(reason, count): &(&str, usize)| found.get(*reason).map(Vec::len) == Some(*count);
            found.len() == wanted.len() && wanted.iter().all(as_wanted)
        })
        .await;
    }

    /// Waits until the names of devices by reason are so.
    pub async fn until_so(&self, holds: impl Fn(&BTreeMap<String, Vec<String>>) -> bool) {
        let begun = Instant::now();
        loop {
            let found = self.by_reason().await;
            if holds(&found) {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{found:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// How many devices are bound to each DPU, and what the DPUs have agrees: as many functions, no MAC twice.
    pub async fn check(&self) -> BTreeMap<String, usize> {
        let mut bound: BTreeMap<String, usize> = BTreeMap::new();
        for device in self.list().await {
            if let Some(dpu) = device.spec.dpu {
                *bound.entry(dpu).or_default() += 1;
            }
        }
        self.check_macs().await;
        for (name, sim) in &self.sims {
            let state = sim.controller().observe().await.unwrap();
            let hot_plugged = state.functions.values().filter(|function| function.id.vf.is_none());
            let hot_plugged: Vec<_> = hot_plugged.filter(|function| function.id.pf.get() >= 4).collect();
            assert_eq!(Some(&hot_plugged.len()), bound.get(name).or(Some(&0)), "{name}");
        }
        bound
    }

    /// No two functions have one MAC, on whatever DPUs they are.
    pub async fn check_macs(&self) {
        let mut macs = BTreeMap::new();
        for (name, sim) in &self.sims {
            // A DPU without power has none.
            let Ok(state) = sim.controller().observe().await else { continue };
            for function in state.functions.values() {
                let other = macs.insert(function.mac, name);
                assert_eq!(other, None, "two functions have {}, one of them on {name}", function.mac);
            }
        }
    }
}

/// An embedded API under the paused clock.
pub async fn embedded_api() -> (Client, Arc<embedded::Recorder>, Clock) {
    embedded_api_of(virtnet_crds::crd::all()).await
}

/// The same with kinds that may be defined in another way.
pub async fn embedded_api_of(
    kinds: Vec<CustomResourceDefinition>,
) -> (Client, Arc<embedded::Recorder>, Clock) {
    let epoch = "2026-01-01T00:00:00Z".parse().unwrap();
    let writes = Arc::new(embedded::Recorder::default());
    let mut config = embedded::Config::new(kinds, Arc::new(embedded::MemoryDisk::default()));
    config.clock = Arc::new(embedded::TokioClock::starting_at(epoch));
    config.ids = Arc::new(embedded::SeededIds::new(1));
    config.audit = Some(Arc::<embedded::Recorder>::clone(&writes));
    let api = embedded::Api::open(config).await.unwrap();
    let clock = Clock::from_tokio(epoch, Instant::now());
    (Client::new(api.service(), "default"), writes, clock)
}

/// Does something while agents and operators run.
pub async fn meanwhile(
    running: impl IntoIterator<Item = BoxFuture<'static, ()>>,
    story: impl Future<Output = ()>,
) {
    tokio::select! {
        _ = join_all(running) => panic!("an agent or an operator ended"),
        () = story => {}
    }
}
