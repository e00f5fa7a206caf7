//! The DPU of this machine that `local` is told of: a simulated one, or the parts of one that are there already.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use virtnet_agent::{ControllerKind, Parts};
use virtnet_controller::conf::Conf;
use virtnet_netlink::{Namespace, Representors};
use virtnet_ovsdb::Address;
use virtnet_rpc::Client;
use virtnet_sim::{FirmwareConfig, SimConfig};

use crate::ground::{Ground, Kind};
use crate::output;

/// Which DPU is wanted.
#[derive(Debug, clap::Args)]
#[group(id = "machine")]
pub(crate) struct Arguments {
    /// The virtio-net controller: `sim`, or `unix:` and the socket of virtnetd, such as unix:/run/virtnetd/virtnetd.sock
    #[arg(long, default_value = "sim", value_name = "sim|unix:PATH")]
    controller: ControllerKind,
    /// The switch and the netdevs. With the simulated controller: real ones in a network namespace of their own, simulated ones, or
    /// what can be had (auto). With virtnetd: the Open vSwitch whose database is at ADDRESS, and the kernel's netdevs
    #[arg(long, default_value = "auto", value_name = "auto|real|sim|ovsdb:ADDRESS")]
    switch: SwitchKind,
    /// TAPs are taken for representors, as those of `virtnetd --device soft` are
    #[arg(long)]
    tap_representors: bool,
    /// The network namespace of the netdevs, where it is not this program's: /run/netns/NAME, or /proc/PID/ns/net
    #[arg(long, value_name = "FILE")]
    netns: Option<PathBuf>,
    /// Firmware values of the simulated DPU, of the second port as p1/KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE,…", default_value = "", hide_default_value = true)]
    firmware: String,
    /// The virtnet.conf of the simulated DPU's controller; with is_lag 1 in it the ports are bonded
    #[arg(long, value_name = "FILE")]
    virtnet_conf: Option<PathBuf>,
}

#[derive(Clone, Debug)]
enum SwitchKind {
    /// Beside a simulated controller.
    Own(Kind),
    /// Beside a real one.
    Ovsdb(Address),
}

impl FromStr for SwitchKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("ovsdb:") {
            Some(address) => address.parse().map(Self::Ovsdb).map_err(|error| format!("{error}")),
            None => Kind::from_str(text, false).map(Self::Own).map_err(|_| {
                "say auto, real, sim, or ovsdb: and an address, such as ovsdb:unix:/run/openvswitch/db.sock"
                    .to_owned()
            }),
        }
    }
}

/// A DPU that an agent can have.
#[derive(Debug)]
pub(crate) enum Dpu {
    /// One whose hardware is simulated.
    Simulated(Ground),
    /// One whose controller is a service, told of by its socket.
    Service { socket: PathBuf, database: Address, parts: Parts },
}

impl Dpu {
    /// Makes a simulated one, or reaches for the parts of one that is there.
    pub(crate) fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let Arguments { controller, switch, tap_representors, netns, firmware, virtnet_conf } = arguments;
        match (controller, switch) {
            (ControllerKind::Sim, SwitchKind::Own(kind)) => {
                ensure!(
                    !tap_representors && netns.is_none(),
                    "--tap-representors and --netns are of --controller=unix:PATH: a simulated DPU has netdevs of its own"
                );
                let firmware = FirmwareConfig::guide_with(firmware).context("reading --firmware")?;
                let Conf { engine, rdma_devices, recovery: _ } = match virtnet_conf {
                    None => Conf::default(),
                    Some(path) => {
                        let reading = || format!("reading {}", path.display());
                        let text = std::fs::read_to_string(path).with_context(reading)?;
                        Conf::parse(&text).with_context(reading)?
                    }
                };
                let config = SimConfig { firmware, engine, rdma_devices, ..SimConfig::default() };
                Ok(Self::Simulated(Ground::lay(*kind, config)?))
            }
            (ControllerKind::Unix(socket), SwitchKind::Ovsdb(database)) => {
                ensure!(
                    firmware.is_empty() && virtnet_conf.is_none(),
                    "--firmware and --virtnet-conf are of --controller=sim: give them to virtnetd"
                );
                let representors =
                    if *tap_representors { Representors::Taps } else { Representors::OfDriver };
                let reach = || {
                    Parts::of_service(Arc::new(Client::connect(socket)), database.clone(), representors)
                        .context("opening the sockets of rtnetlink")
                };
                let parts = match netns {
                    None => reach()?,
                    Some(file) => {
                        Namespace::open(file).and_then(|namespace| namespace.run(reach)).with_context(
                            || format!("entering the network namespace {}: --netns", file.display()),
                        )??
                    }
                };
                Ok(Self::Service { socket: socket.clone(), database: database.clone(), parts })
            }
            (ControllerKind::Unix(socket), SwitchKind::Own(_)) => bail!(
                "--controller=unix:{} needs --switch=ovsdb:ADDRESS: its representors are netdevs",
                socket.display()
            ),
            (ControllerKind::Sim, SwitchKind::Ovsdb(_)) => bail!(
                "--switch=ovsdb:ADDRESS needs --controller=unix:PATH: for a real switch beside a simulated controller say --switch=real"
            ),
        }
    }

    /// The hands of an agent.
    pub(crate) fn parts(&self) -> Parts {
        match self {
            Self::Simulated(ground) => ground.parts.clone(),
            Self::Service { parts, .. } => parts.clone(),
        }
    }

    /// Says what of it is real and what is not, to a person who knows it by this name.
    pub(crate) fn tell(&self, name: &str) {
        match self {
            Self::Simulated(ground) => ground.tell(name),
            Self::Service { socket, database, .. } => output::line(&format!(
                "DPU {name}: the controller at {}, and Open vSwitch at {database}.",
                socket.display()
            )),
        }
    }
}
