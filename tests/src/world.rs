//! An embedded API, a simulated DPU and an agent between them, on one thread under tokio's paused clock.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::time::Instant;
use virtnet_agent::{Clock, Config, Metrics, Parts};
use virtnet_crds::conditions::READY;
use virtnet_crds::{Dpu, VirtnetDevice};
use virtnet_embedded_api as embedded;
use virtnet_sim::{Sim, SimConfig};

use crate::api_faults::FaultyApi;
use crate::faults::Faults;

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("sim", &self.sim).finish_non_exhaustive()
    }
}

/// The name of the one DPU.
pub const DPU: &str = "dpu-0";
/// Where the Lease is: a namespace that is always there.
pub const LEASES: &str = "kube-system";

/// Everything but the agent, which comes and goes.
pub struct World {
    /// What the API has acknowledged.
    pub writes: Arc<embedded::Recorder>,
    /// The DPU.
    pub sim: Sim,
    /// A client without faults: the user's.
    pub client: Client,
    /// The agent's faults.
    pub faults: Faults,
    api: embedded::Api,
    epoch: Timestamp,
    start: Instant,
}

impl World {
    /// A world of this seed.
    pub async fn new(seed: u64, sim: SimConfig, faults: Faults) -> anyhow::Result<Self> {
        let epoch: Timestamp = "2026-01-01T00:00:00Z".parse()?;
        let writes = Arc::new(embedded::Recorder::default());
        let mut config = embedded::Config::new(kinds(), Arc::new(embedded::MemoryDisk::default()));
        config.clock = Arc::new(embedded::TokioClock::starting_at(epoch));
        config.ids = Arc::new(embedded::SeededIds::new(seed));
        config.audit = Some(Arc::<embedded::Recorder>::clone(&writes));
        let api = embedded::Api::open(config).await.context("opening the API")?;
        let client = Client::new(api.service(), "default");
        Ok(Self { writes, sim: Sim::new(sim), client, faults, api, epoch, start: Instant::now() })
    }

    /// An agent. It lives for as long as the future is polled.
    pub fn agent(&self) -> impl Future<Output = ()> + Send + use<> {
        let config = Config { dpu: DPU.into(), lease_namespace: LEASES.into() };
        let client = Client::new(FaultyApi::new(self.api.service(), self.faults.clone()), "default");
        let parts = self.faults.over(&Parts::from(&self.sim));
        virtnet_agent::run(
            config,
            client,
            parts,
            Clock::from_tokio(self.epoch, self.start),
            Metrics::default(),
        )
    }

    /// Agents one after another: each lives until the faults kill it, and the next starts a while later.
    pub async fn agents(&self, rest: Duration) {
        loop {
            tokio::select! {
                biased;
                () = self.faults.death() => {}
                () = self.agent() => {}
            }
            tokio::time::sleep(rest).await;
        }
    }

    /// The devices.
    pub fn devices(&self) -> Api<VirtnetDevice> {
        Api::default_namespaced(self.client.clone())
    }

    /// The Dpus.
    pub fn dpus(&self) -> Api<Dpu> {
        Api::all(self.client.clone())
    }

    /// All devices.
    pub async fn list(&self) -> anyhow::Result<Vec<VirtnetDevice>> {
        Ok(self.devices().list(&ListParams::default()).await?.items)
    }

    /// Makes a device of this spec.
    pub async fn create(&self, name: &str, spec: Value) -> anyhow::Result<VirtnetDevice> {
        let object = serde_json::json!({
            "apiVersion": virtnet_crds::API_VERSION,
            "kind": "VirtnetDevice",
            "metadata": {"name": name},
            "spec": spec,
        });
        let object = serde_json::from_value(object).with_context(|| format!("the spec of {name}"))?;
        self.devices()
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("creating {name}"))
    }

    /// Lets time pass until all devices are Ready, for `limit` at most; answers what is not.
    pub async fn until_ready(&self, limit: Duration) -> anyhow::Result<Vec<String>> {
        let end = Instant::now() + limit;
        loop {
            let waiting: Vec<_> = self.list().await?.iter().filter_map(not_ready).collect();
            if waiting.is_empty() || Instant::now() >= end {
                return Ok(waiting);
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }
}

/// The kinds, made once for the thousands of worlds that serve them.
fn kinds() -> Vec<CustomResourceDefinition> {
    static KINDS: OnceLock<Vec<CustomResourceDefinition>> = OnceLock::new();
    KINDS.get_or_init(virtnet_crds::crd::all).clone()
}

/// Name, reason and message of a device that is not Ready for its present generation.
pub fn not_ready(device: &VirtnetDevice) -> Option<String> {
    let (reason, message) = reason(device)?;
    Some(format!("{}: {reason}: {message}", device.name_any()))
}

/// Why the device is not Ready; `None`: it is.
pub fn reason(device: &VirtnetDevice) -> Option<(String, String)> {
    let status = device.status.clone().unwrap_or_default();
    if Some(status.observed_generation) != device.metadata.generation {
        let text =
            format!("generation {:?}, observed {}", device.metadata.generation, status.observed_generation);
        return Some(("Unobserved".into(), text));
    }
    match status.conditions.into_iter().find(|condition| condition.type_ == READY) {
        None => Some(("Unobserved".into(), "no condition Ready".into())),
        Some(condition) if condition.status == "True" => None,
        Some(condition) => Some((condition.reason, condition.message)),
    }
}
