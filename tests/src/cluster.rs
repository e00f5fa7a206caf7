//! A cluster as people would have it: a control plane, what `manifests/overlays/external` installs, operators, and agents of
//! simulated DPUs, each a program of its own with the client certificate of its DPU.

use std::collections::BTreeMap;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, ensure};
use kube::Api;
use kube::runtime::wait::await_condition;
use tokio::time::{Instant, sleep, timeout};
use virtnet_crds::Dpu;
use virtnet_crds::conditions::READY;
use virtnet_local_switch::Programs;

use crate::control_plane::{ControlPlane, LIMIT};
use crate::kubectl::Kubectl;
use crate::manifests;
use crate::ports::own_ports;
use crate::programs::{built, get};

/// How the names of operators' processes begin, which are their identities too; a number follows.
pub const OPERATOR: &str = "operator-";

/// What a cluster is made of.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The names of the DPUs, each with an agent.
    pub dpus: Vec<String>,
    /// Firmware values of all of them, as `virtnet-agent --sim-firmware` takes them.
    pub firmware: String,
    /// Their hosts bind no drivers by themselves.
    pub no_drivers: bool,
    /// How many operators there are; one at least.
    pub operators: usize,
}

/// A cluster that runs.
#[derive(Debug)]
pub struct Cluster {
    // In the order of their end.
    agents: Programs,
    operators: Programs,
    /// Where each operator serves health and metrics.
    ports: BTreeMap<String, u16>,
    /// Where each serves the page, also when it is started again.
    pages: BTreeMap<String, u16>,
    plane: ControlPlane,
    config: Config,
}

impl Cluster {
    /// Starts one, and waits until each agent has told of its DPU.
    ///
    /// # Errors
    /// Where a program can't be had or does not begin to serve.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let plane = ControlPlane::start().await?;
        let [agents, operators] = [(); 2].map(|()| Programs::new(plane.folder()));
        let mut cluster =
            Self { agents, operators, ports: BTreeMap::new(), pages: BTreeMap::new(), plane, config };
        manifests::install(&cluster.plane).await?;
        for number in 0..cluster.config.operators.max(1) {
            cluster.start_operator(&format!("{OPERATOR}{number}"))?;
        }
        for dpu in cluster.config.dpus.clone() {
            cluster.start_agent(&dpu)?;
        }
        let dpus: Api<Dpu> = Api::all(cluster.plane.client().await?);
        for dpu in &cluster.config.dpus {
            let told = await_condition(dpus.clone(), dpu, is_ready);
            let told = timeout(LIMIT, told).await;
            cluster.agents.check()?;
            told.with_context(|| {
                format!("{dpu} is not Ready after {} s\n{}", LIMIT.as_secs(), cluster.agents.logs())
            })??;
        }
        cluster.until_operators_are_ready().await?;
        Ok(cluster)
    }

    async fn until_operators_are_ready(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        for (name, port) in self.ports.clone() {
            while !matches!(get(port, "/readyz").await, Ok((200, _))) {
                self.check()?;
                let waited = begun.elapsed();
                ensure!(waited < LIMIT, "{name} is not ready after {waited:?}\n{}", self.operators.logs());
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Whether all of its programs run that nobody killed.
    ///
    /// # Errors
    /// Where one has ended; the message has the ends of the logs.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.plane.check()?;
        self.agents.check()?;
        self.operators.check()
    }

    /// The control plane.
    #[must_use]
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// kubectl of the cluster's administrator.
    #[must_use]
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.plane.kubeconfig())
    }

    /// The process of a DPU's agent.
    #[must_use]
    pub fn agent(&self, dpu: &str) -> Option<u32> {
        self.agents.id(dpu)
    }

    /// Kills an operator, which is not started again.
    ///
    /// # Errors
    /// Where there is none of this name.
    pub fn kill_operator(&mut self, name: &str) -> anyhow::Result<()> {
        self.operators.kill(name)
    }

    /// Where an operator serves health and metrics on loopback.
    #[must_use]
    pub fn operator_port(&self, name: &str) -> Option<u16> {
        self.ports.get(name).copied()
    }

    /// Where an operator serves the page on loopback.
    #[must_use]
    pub fn operator_page(&self, name: &str) -> Option<u16> {
        self.pages.get(name).copied()
    }

    /// Starts again the agents that have ended, and the operators, as systemd or a kubelet would, and tells of them.
    ///
    /// # Errors
    /// Where one can't be started, or a program of the control plane has ended.
    pub fn revive(&mut self) -> anyhow::Result<Vec<(String, ExitStatus)>> {
        self.plane.check()?;
        let ended = self.agents.take_ended()?;
        for (dpu, _) in &ended {
            self.start_agent(dpu)?;
        }
        let operators = self.operators.take_ended()?;
        for (name, _) in &operators {
            self.start_operator(name)?;
        }
        Ok(ended.into_iter().chain(operators).collect())
    }

    fn start_operator(&mut self, name: &str) -> anyhow::Result<()> {
        let kubeconfig = self.plane.kubeconfig_of("virtnet:operator", "virtnet:operators")?;
        let mut operator = Command::new(built("virtnet-operator")?);
        let [port, page] = own_ports()?;
        let page = *self.pages.entry(name.to_owned()).or_insert(page);
        operator
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--http=127.0.0.1:{port}"))
            .arg(format!("--page=127.0.0.1:{page}"))
            .arg(format!("--identity={name}"));
        self.ports.insert(name.to_owned(), port);
        self.operators.start(name, &operator)
    }

    fn start_agent(&mut self, dpu: &str) -> anyhow::Result<()> {
        let kubeconfig = self.plane.kubeconfig_of(&format!("virtnet:agent:{dpu}"), "virtnet:agents")?;
        let [port] = own_ports()?;
        let mut agent = Command::new(built("virtnet-agent")?);
        agent
            .arg("run")
            .arg(format!("--dpu={dpu}"))
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--http=127.0.0.1:{port}"))
            .args(["--controller=sim", "--switch=sim", "--links=sim"])
            .arg(format!("--sim-firmware={}", self.config.firmware))
            .args(self.config.no_drivers.then_some("--sim-no-drivers"));
        self.agents.start(dpu, &agent)
    }
}

fn is_ready(dpu: Option<&Dpu>) -> bool {
    let status = dpu.and_then(|dpu| dpu.status.as_ref());
    status.is_some_and(|status| {
        status.conditions.iter().any(|condition| condition.type_ == READY && condition.status == "True")
    })
}
