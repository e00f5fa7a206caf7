//! Which hands the agent has: the arguments that choose them, and how they are reached.

use std::sync::Arc;

use anyhow::{Context, bail};
use clap::ValueEnum;
use virtnet_agent::{ControllerKind, Parts, Uid, derived_mac};
use virtnet_model::Queues;
use virtnet_netlink::{NetlinkLinks, Representors, Taps};
use virtnet_ovsdb::{Address, OvsSwitch};
use virtnet_rpc::Client;
use virtnet_sim::{FirmwareConfig, Sim, SimConfig};

/// What was being done where the netdevs can't be reached.
const NETLINK: &str = "opening the sockets of rtnetlink";

/// What stands behind each part of the DPU.
#[derive(Debug, clap::Args)]
#[group(id = "hands")]
pub(crate) struct Arguments {
    /// The virtio-net controller: `sim`, or `unix:` and the socket of virtnetd, such as unix:/run/virtnetd/virtnetd.sock
    #[arg(long, value_name = "sim|unix:PATH")]
    controller: ControllerKind,
    /// Open vSwitch: `sim`, or `ovsdb:` and where its database is, such as ovsdb:unix:/run/openvswitch/db.sock
    #[arg(long, value_name = "sim|ovsdb:ADDRESS", value_parser = switch_kind)]
    switch: SwitchKind,
    /// The netdevs. With the simulated controller each representor is then a TAP
    #[arg(long, value_enum)]
    links: LinksKind,
    /// TAPs are taken for representors, as those of `virtnetd --sim-taps` are
    #[arg(long)]
    tap_representors: bool,
    /// Firmware values of the simulated DPU
    #[arg(long, value_name = "KEY=VALUE,…", default_value = "", hide_default_value = true)]
    sim_firmware: String,
    /// The simulated host binds no driver by itself, as where guests get the functions
    #[arg(long)]
    sim_no_drivers: bool,
}

#[derive(Clone, Debug)]
enum SwitchKind {
    Sim,
    Ovsdb(Address),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LinksKind {
    /// The simulation, in memory
    Sim,
    /// The kernel's, of the network namespace that the agent runs in
    Netlink,
}

fn switch_kind(text: &str) -> Result<SwitchKind, String> {
    match text.strip_prefix("ovsdb:") {
        Some(address) => address.parse().map(SwitchKind::Ovsdb).map_err(|error| format!("{error}")),
        None if text == "sim" => Ok(SwitchKind::Sim),
        None => {
            Err("say sim, or ovsdb: and an address, such as ovsdb:unix:/run/openvswitch/db.sock".to_owned())
        }
    }
}

/// The hands, and what they need to stay.
#[derive(Debug)]
pub(crate) struct Hands {
    /// The parts of the DPU.
    pub(crate) parts: Parts,
    /// The controller once more, which tells of queues too.
    pub(crate) queues: Arc<dyn Queues>,
    /// The simulated DPU, which stands for as long as this is held.
    _sim: Option<Sim>,
}

impl Arguments {
    /// Reaches for the parts of the DPU of this name. What can't be reached yet is tried again by its part itself.
    pub(crate) fn connect(self, dpu: &str) -> anyhow::Result<Hands> {
        let Self { controller, switch, links, tap_representors, sim_firmware, sim_no_drivers } = self;
        if let ControllerKind::Unix(socket) = controller {
            if sim_no_drivers || !sim_firmware.is_empty() {
                bail!("--sim-firmware and --sim-no-drivers are of --controller=sim: give them to virtnetd");
            }
            let (SwitchKind::Ovsdb(address), LinksKind::Netlink) = (switch, links) else {
                bail!(
                    "--controller=unix:{} needs --switch=ovsdb:ADDRESS and --links=netlink: its representors are netdevs",
                    socket.display()
                );
            };
            let representors = if tap_representors { Representors::Taps } else { Representors::OfDriver };
            let service = Arc::new(Client::connect(&socket));
            let parts = Parts::of_service(Arc::clone(&service), address, representors).context(NETLINK)?;
            return Ok(Hands { parts, queues: service, _sim: None });
        }
        if tap_representors {
            bail!(
                "--tap-representors is of --controller=unix:PATH: with sim they are TAPs wherever --links=netlink"
            );
        }
        let firmware = FirmwareConfig::guide_with(&sim_firmware).context("reading --sim-firmware")?;
        // No two cards of a fleet have MACs of their own that are alike.
        let base_mac = derived_mac(&Uid::from(dpu));
        let config = SimConfig { firmware, base_mac, autoprobe: !sim_no_drivers, ..SimConfig::default() };
        Ok(match (switch, links) {
            (SwitchKind::Sim, LinksKind::Sim) => {
                let sim = Sim::new(config);
                Hands { parts: Parts::from(&sim), queues: sim.queues(), _sim: Some(sim) }
            }
            (SwitchKind::Ovsdb(address), LinksKind::Netlink) => {
                let sim = Sim::on_netdevs(config, Arc::new(Taps::new(None)));
                let links = Arc::new(NetlinkLinks::open(Representors::Taps).context(NETLINK)?);
                let switch = Arc::new(OvsSwitch::connect(address));
                let parts = Parts { links, switch, ..Parts::from(&sim) };
                Hands { parts, queues: sim.queues(), _sim: Some(sim) }
            }
            (SwitchKind::Ovsdb(address), LinksKind::Sim) => bail!(
                "--switch=ovsdb:{address} needs --links=netlink: Open vSwitch can't attach simulated netdevs"
            ),
            (SwitchKind::Sim, LinksKind::Netlink) => bail!(
                "--links=netlink needs --switch=ovsdb:ADDRESS: a simulated switch can't attach the kernel's netdevs"
            ),
        })
    }
}
