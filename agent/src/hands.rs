//! Which hands the agent has: the arguments that choose them, and how they are reached.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::ValueEnum;
use virtnet_agent::{Parts, Uid, Unreached, derived_mac};
use virtnet_netlink::{NetlinkLinks, Representors, Taps};
use virtnet_ovsdb::{Address, OvsSwitch};
use virtnet_rpc::{Client, DEFAULT_SOCKET};
use virtnet_sim::{FirmwareConfig, Sim, SimConfig};

/// What stands behind each part of the DPU.
#[derive(Debug, clap::Args)]
#[group(id = "hands")]
pub(crate) struct Arguments {
    /// The virtio-net controller: `sim`, or `unix:` and the socket of virtnetd, such as unix:/run/virtnetd/virtnetd.sock
    #[arg(long, value_name = "sim|unix:PATH", value_parser = controller_kind)]
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
enum ControllerKind {
    /// The simulation, in memory: its functions are gone when the agent stops.
    Sim,
    /// A service of its own, at this socket.
    Unix(PathBuf),
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

fn controller_kind(text: &str) -> Result<ControllerKind, String> {
    match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(ControllerKind::Unix(path.into())),
        None if text == "sim" => Ok(ControllerKind::Sim),
        _ => Err(format!("say sim, or unix: and the path of a socket, such as unix:{DEFAULT_SOCKET}")),
    }
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
    /// The simulated DPU, which stands for as long as this is held.
    _sim: Option<Sim>,
}

impl Arguments {
    /// Reaches for the parts of the DPU of this name. What can't be reached yet is tried again by its part itself.
    pub(crate) fn connect(self, dpu: &str) -> anyhow::Result<Hands> {
        let Self { controller, switch, links, tap_representors, sim_firmware, sim_no_drivers } = self;
        let netdevs =
            |representors| NetlinkLinks::open(representors).context("opening the sockets of rtnetlink");
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
            let parts = Parts {
                controller: Arc::new(Client::connect(&socket)),
                switch: Arc::new(OvsSwitch::connect(address)),
                links: Arc::new(netdevs(representors)?),
                firmware: Arc::new(Unreached),
                host: Arc::new(Unreached),
            };
            return Ok(Hands { parts, _sim: None });
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
                Hands { parts: Parts::from(&sim), _sim: Some(sim) }
            }
            (SwitchKind::Ovsdb(address), LinksKind::Netlink) => {
                let sim = Sim::on_netdevs(config, Arc::new(Taps::new(None)));
                let (links, switch) =
                    (Arc::new(netdevs(Representors::Taps)?), Arc::new(OvsSwitch::connect(address)));
                Hands { parts: Parts { links, switch, ..Parts::from(&sim) }, _sim: Some(sim) }
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
