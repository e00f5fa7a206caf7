//! An agent on a real Open vSwitch and real netdevs, with an embedded API and a simulated controller and host: all but the
//! hardware is the real thing, in real time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use virtnet_agent::{Clock, Config, Metrics, Parts};
use virtnet_crds::{Dpu, VirtnetDevice};
use virtnet_embedded_api as embedded;
use virtnet_local_switch::OpenVSwitch;
use virtnet_netlink::{NetlinkLinks, Representors, Taps};
use virtnet_ovsdb::OvsSwitch;
use virtnet_sim::{FirmwareConfig, Sim, SimConfig};

use crate::open_vswitch;
use crate::ovsdb_wire::Wire;
use crate::world::{DPU, LEASES, not_ready};

/// Far longer than any of it takes, on a machine that is busy too.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Everything but the agent, which comes and goes.
pub struct RealWorld {
    /// The switch.
    pub ovs: OpenVSwitch,
    /// What the agent and the database say to one another.
    pub wire: Wire,
    /// The controller and the host.
    pub sim: Sim,
    /// The representors.
    pub taps: Arc<Taps>,
    /// What the API has acknowledged.
    pub writes: Arc<embedded::Recorder>,
    /// A client of the API.
    pub client: Client,
    _api: embedded::Api,
}

impl std::fmt::Debug for RealWorld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealWorld").field("ovs", &self.ovs).finish_non_exhaustive()
    }
}

/// An agent that runs. It is killed with the value.
#[derive(Debug)]
pub struct Agent(AbortHandle);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RealWorld {
    /// A world whose firmware has these settings beside the guide's.
    ///
    /// # Errors
    /// Where Open vSwitch can't be had or started.
    pub async fn new(firmware: &str) -> anyhow::Result<Self> {
        let ovs = open_vswitch::start()?;
        let wire = Wire::listen(&ovs.folder().join("wire.sock"), &ovs.socket())?;
        let taps = Arc::new(Taps::new(Some(ovs.namespace())));
        let firmware = FirmwareConfig::guide_with(firmware)?;
        let sim = Sim::on_netdevs(SimConfig { firmware, ..SimConfig::default() }, Arc::<Taps>::clone(&taps));
        let writes = Arc::new(embedded::Recorder::default());
        let disk = Arc::new(embedded::MemoryDisk::default());
        let mut config = embedded::Config::new(virtnet_crds::crd::all(), disk);
        config.audit = Some(Arc::<embedded::Recorder>::clone(&writes));
        let api = embedded::Api::open(config).await.context("opening the API")?;
        let client = Client::new(api.service(), "default");
        Ok(Self { ovs, wire, sim, taps, writes, client, _api: api })
    }

    /// An agent with connections of its own.
    ///
    /// # Errors
    /// Where the kernel refuses a socket.
    pub fn agent(&self) -> anyhow::Result<Agent> {
        let links = self
            .ovs
            .namespace()
            .run(|| NetlinkLinks::open(Representors::Taps))?
            .context("opening the sockets of rtnetlink")?;
        let mut parts = Parts::from(&self.sim);
        parts.links = Arc::new(links);
        parts.switch = Arc::new(OvsSwitch::connect(self.wire.address()));
        let config = Config { dpu: DPU.into(), lease_namespace: LEASES.into() };
        let agent =
            virtnet_agent::run(config, self.client.clone(), parts, Clock::system(), Metrics::default());
        Ok(Agent(tokio::spawn(agent).abort_handle()))
    }

    /// The devices.
    pub fn devices(&self) -> Api<VirtnetDevice> {
        Api::default_namespaced(self.client.clone())
    }

    /// Declares a device, or edits it.
    ///
    /// # Errors
    /// Where the API refuses it.
    pub async fn apply(&self, name: &str, spec: Value) -> anyhow::Result<VirtnetDevice> {
        let object = json!({
            "apiVersion": virtnet_crds::API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": name}, "spec": spec,
        });
        let params = PatchParams::apply("test");
        self.devices()
            .patch(name, &params, &Patch::Apply(object))
            .await
            .with_context(|| format!("applying {name}"))
    }

    /// Declares the Dpu with a host that makes this many VFs of each of its four static PFs.
    ///
    /// # Errors
    /// Where the API refuses it.
    pub async fn make_vfs(&self, count: u16) -> anyhow::Result<()> {
        let sriov: Vec<_> = (0..4).map(|pf| json!({"pf": pf, "numVfs": count})).collect();
        self.apply_dpu(json!({"host": {"sriov": sriov}})).await
    }

    /// Declares the Dpu with this spec.
    ///
    /// # Errors
    /// Where the API refuses it.
    pub async fn apply_dpu(&self, spec: Value) -> anyhow::Result<()> {
        let object = json!({
            "apiVersion": virtnet_crds::API_VERSION, "kind": "Dpu", "metadata": {"name": DPU}, "spec": spec,
        });
        let dpus: Api<Dpu> = Api::all(self.client.clone());
        dpus.patch(DPU, &PatchParams::apply("test"), &Patch::Apply(object))
            .await
            .context("applying the Dpu")?;
        Ok(())
    }

    /// Deletes a device.
    ///
    /// # Errors
    /// Where the API refuses it.
    pub async fn delete(&self, name: &str) -> anyhow::Result<()> {
        let deleted = self.devices().delete(name, &DeleteParams::default()).await;
        deleted.map(drop).with_context(|| format!("deleting {name}"))
    }

    /// All devices.
    ///
    /// # Errors
    /// Where the API does not answer.
    pub async fn list(&self) -> anyhow::Result<Vec<VirtnetDevice>> {
        Ok(self.devices().list(&ListParams::default()).await?.items)
    }

    /// Waits until this many devices are there and all are Ready.
    ///
    /// # Errors
    /// What is not, after a long while.
    pub async fn until_ready(&self, count: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let devices = self.list().await?;
            let waiting: Vec<_> = devices.iter().filter_map(not_ready).collect();
            if devices.len() == count && waiting.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                bail!("{} of {count} devices are there; not Ready: {waiting:#?}", devices.len());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The representor of a device, as its status has it.
    ///
    /// # Errors
    /// Where it has none.
    pub async fn representor(&self, name: &str) -> anyhow::Result<String> {
        let device = self.devices().get(name).await?;
        let representor = device.status.and_then(|status| status.representor);
        Ok(representor.with_context(|| format!("{name} has no representor"))?.name)
    }

    /// Waits until something holds, and looks again soon where it doesn't.
    ///
    /// # Errors
    /// Where it does not hold after a long while.
    pub async fn until(&self, what: &str, holds: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !holds().with_context(|| format!("looking whether {what}"))? {
            if begun.elapsed() > LIMIT {
                bail!("after {} s it does not hold that {what}", LIMIT.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The notes of the Events of this reason.
    ///
    /// # Errors
    /// Where the API does not answer.
    pub async fn events(&self, reason: &str) -> anyhow::Result<Vec<String>> {
        let events: Api<k8s_openapi::api::events::v1::Event> = Api::all(self.client.clone());
        let events = events.list(&ListParams::default()).await?.items;
        let of_reason = events.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
        Ok(of_reason.filter_map(|event| event.note).collect())
    }

    /// How often Events of this reason and note were told: alike ones are counted in one.
    ///
    /// # Errors
    /// Where the API does not answer.
    pub async fn times_told(&self, reason: &str, note: &str) -> anyhow::Result<usize> {
        let events: Api<k8s_openapi::api::events::v1::Event> = Api::all(self.client.clone());
        let events = events.list(&ListParams::default()).await?.items.into_iter();
        let alike = events
            .filter(|event| event.reason.as_deref() == Some(reason) && event.note.as_deref() == Some(note));
        let times = alike.map(|event| event.series.map_or(1, |series| series.count));
        Ok(usize::try_from(times.sum::<i32>())?)
    }
}
