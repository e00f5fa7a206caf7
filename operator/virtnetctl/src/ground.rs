//! What is under the agent of this machine: a real Open vSwitch and real netdevs where they can be had, else simulated ones.
//! The controller, the hardware and its host are simulated in either case.

use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use virtnet_agent::Parts;
use virtnet_local_switch::{OpenVSwitch, Tools};
use virtnet_model::IfName;
use virtnet_netlink::{Namespace, NetlinkLinks, Representors, Taps};
use virtnet_ovsdb::OvsSwitch;
use virtnet_sim::{Sim, SimConfig};

use crate::output;

/// Which switch and netdevs are wanted.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub(crate) enum Kind {
    /// Real ones where this is root and Open vSwitch is installed
    Auto,
    /// Real ones, or an error
    Real,
    /// Simulated ones
    Sim,
}

/// A simulated DPU and what its ports and representors are.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The controller, the hardware and the host; without a real switch that too.
    pub(crate) sim: Sim,
    /// The hands of an agent.
    pub(crate) parts: Parts,
    ovs: Option<OpenVSwitch>,
    /// Why there is no real switch where one was not refused.
    why_not: Option<String>,
}

impl Ground {
    /// Lays it.
    pub(crate) fn lay(kind: Kind, config: SimConfig) -> anyhow::Result<Self> {
        let why_not = match kind {
            Kind::Sim => None,
            kind => match start(&config) {
                Ok(ovs) => return Self::real(config, ovs),
                Err(error) if kind == Kind::Auto => Some(format!("{error:#}")),
                Err(error) => return Err(error.context("--switch=real")),
            },
        };
        let sim = Sim::new(config);
        Ok(Self { parts: Parts::from(&sim), sim, ovs: None, why_not })
    }

    fn real(config: SimConfig, ovs: OpenVSwitch) -> anyhow::Result<Self> {
        let links = ovs
            .namespace()
            .run(|| NetlinkLinks::open(Representors::Taps))?
            .context("opening the sockets of rtnetlink")?;
        let sim = Sim::on_netdevs(config, Arc::new(Taps::new(Some(ovs.namespace()))));
        let mut parts = Parts::from(&sim);
        parts.links = Arc::new(links);
        parts.switch = Arc::new(OvsSwitch::connect(ovs.address()));
        Ok(Self { sim, parts, ovs: Some(ovs), why_not: None })
    }

    /// Says what of a DPU of this name is real and what is not.
    pub(crate) fn tell(&self, dpu: &str) {
        match &self.ovs {
            Some(ovs) => {
                output::line(&format!(
                    "DPU {dpu}: Open vSwitch and the representors (TAPs) are real, in a network namespace of their own; the \
                     virtio-net controller, its hardware and the host are SIMULATED."
                ));
                output::line(&format!("See it with ovs-vsctl --db={} show", ovs.address()));
            }
            None => output::line(&format!("DPU {dpu} is SIMULATED: no hardware is touched.")),
        }
        if let Some(why) = &self.why_not {
            output::note(&format!("virtnetctl: Open vSwitch is simulated too: {why}"));
        }
    }

    /// Deletes a port as a person would.
    pub(crate) fn delete_port(&self, name: &IfName) -> anyhow::Result<()> {
        match &self.ovs {
            Some(ovs) => ovs.vsctl(&["del-port", name.as_str()]).map(drop),
            None => {
                ensure!(self.sim.delete_port(name), "there is no port {name}");
                Ok(())
            }
        }
    }
}

/// Starts a real switch with the bridges that the simulated DPU would have.
fn start(config: &SimConfig) -> anyhow::Result<OpenVSwitch> {
    let tools = Tools::installed(std::env::var_os("PATH").as_deref())?;
    // What is not permitted is best told before daemons run.
    let namespace =
        Namespace::new().context("it can't have a network namespace of its own: root is needed")?;
    let taps = Taps::new(Some(Arc::new(namespace)));
    taps.try_out().context("it can't make TAPs, which stand for representors: /dev/net/tun is needed")?;
    let bridges = config.bridges.iter().map(virtnet_model::BridgeName::as_str);
    OpenVSwitch::start(tools, bridges).context("starting Open vSwitch")
}
