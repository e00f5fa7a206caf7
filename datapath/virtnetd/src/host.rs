//! The host of a simulated DPU as a person at it has it: methods beside a controller's, and the arguments of `virtnetd host`,
//! which asks for them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use virtnet_model::{Bdf, PfId, Uplink};
use virtnet_rpc::{Fault, raw, read};
use virtnet_sim::{Misuse, Sim};

const SRIOV: &str = "host.sriov";
const BIND: &str = "host.bind";
const UNBIND: &str = "host.unbind";
const AUTOPROBE: &str = "host.autoprobe";
const REBOOT: &str = "host.reboot";
const TRAFFIC: &str = "host.traffic";
const MISUSE: &str = "host.misuse";
const MIGRATE: &str = "host.migrate";
const UPLINK_MTU: &str = "host.uplink-mtu";
const BOND: &str = "host.bond";
/// Takes the power from host and DPU for a moment.
pub(crate) const POWER_CYCLE: &str = "host.power-cycle";

/// What `virtnetd host` takes.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The socket of virtnetd
    #[arg(long, env = "VIRTNETD_SOCKET", default_value = virtnet_rpc::DEFAULT_SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum Command {
    /// echo NUM_VFS > sriov_numvfs of a static PF
    Sriov {
        /// The index of the PF
        #[arg(value_parser = pf)]
        pf: PfId,
        /// How many VFs it is to have
        num_vfs: u16,
    },
    /// echo BDF > /sys/bus/pci/drivers/virtio-pci/bind
    Bind {
        /// The address of the function
        bdf: Bdf,
    },
    /// echo BDF > /sys/bus/pci/drivers/virtio-pci/unbind
    Unbind {
        /// The address of the function
        bdf: Bdf,
    },
    /// Packets go through a queue that the driver of a function has set up: to the host through an even one, from it through an
    /// odd one
    Traffic {
        /// The address of the function
        bdf: Bdf,
        /// The index of the queue
        queue: u16,
        /// Bytes of each packet, the Ethernet header included
        bytes: u32,
        /// How many
        packets: u32,
    },
    /// The driver of a function does something wrong with one of its queues
    Misuse {
        /// The address of the function
        bdf: Bdf,
        /// The index of the queue
        queue: u16,
        /// What
        #[arg(value_enum)]
        what: What,
        /// How often
        times: u32,
    },
    /// The virtual machine that has a function begins to be moved (true), or has been (false)
    Migrate {
        /// The address of the function
        bdf: Bdf,
        /// true or false
        #[arg(action = clap::ArgAction::Set)]
        begins: bool,
    },
    /// Whether drivers bind by themselves to functions that appear from now on
    Autoprobe {
        /// true or false
        #[arg(action = clap::ArgAction::Set)]
        on: bool,
    },
    /// Reboot the host: VFs are gone, hot-plugged functions stay
    Reboot,
    /// Take the power from host and DPU for a moment: hot-plugged functions are gone
    PowerCycle,
    /// ip link set UPLINK mtu MTU, on the DPU
    UplinkMtu {
        /// p0, p1 or bond
        uplink: Uplink,
        /// Bytes
        mtu: u32,
    },
    /// Make one bond of p0 and p1 on the DPU (true), or take it apart (false)
    Bond {
        /// true or false
        #[arg(action = clap::ArgAction::Set)]
        made: bool,
    },
}

/// What a driver can do wrong.
#[derive(Clone, Copy, Debug, clap::ValueEnum, Serialize, Deserialize)]
enum What {
    /// A descriptor that says nothing
    BadDescriptor,
    /// A chain that is longer than the device takes
    LongChain,
    /// A buffer outside the host's memory
    BadBuffer,
}

impl From<What> for Misuse {
    fn from(what: What) -> Self {
        match what {
            What::BadDescriptor => Self::BadDescriptor,
            What::LongChain => Self::LongChain,
            What::BadBuffer => Self::BadBuffer,
        }
    }
}

fn pf(text: &str) -> Result<PfId, String> {
    let index: u32 = text.parse().map_err(|_| format!("{text:?} is not the index of a PF"))?;
    PfId::try_from(index).map_err(|error| error.to_string())
}

/// Parameters of [`SRIOV`].
#[derive(Debug, Serialize, Deserialize)]
struct Sriov {
    pf: PfId,
    num_vfs: u16,
}

/// Parameters of [`UPLINK_MTU`].
#[derive(Debug, Serialize, Deserialize)]
struct UplinkMtu {
    uplink: Uplink,
    mtu: u32,
}

/// Parameters of [`TRAFFIC`].
#[derive(Debug, Serialize, Deserialize)]
struct Traffic {
    bdf: Bdf,
    queue: u16,
    bytes: u32,
    packets: u32,
}

/// Parameters of [`MISUSE`].
#[derive(Debug, Serialize, Deserialize)]
struct Misused {
    bdf: Bdf,
    queue: u16,
    what: What,
    times: u32,
}

/// Parameters of [`MIGRATE`].
#[derive(Debug, Serialize, Deserialize)]
struct Migrate {
    bdf: Bdf,
    begins: bool,
}

impl Arguments {
    /// The method that is asked for, and its parameters.
    ///
    /// # Errors
    /// Where they have no JSON.
    pub fn request(&self) -> Result<(&'static str, Box<RawValue>), Fault> {
        Ok(match self.command {
            Command::Sriov { pf, num_vfs } => (SRIOV, raw(&Sriov { pf, num_vfs })?),
            Command::Bind { bdf } => (BIND, raw(&bdf)?),
            Command::Unbind { bdf } => (UNBIND, raw(&bdf)?),
            Command::Traffic { bdf, queue, bytes, packets } => {
                (TRAFFIC, raw(&Traffic { bdf, queue, bytes, packets })?)
            }
            Command::Misuse { bdf, queue, what, times } => {
                (MISUSE, raw(&Misused { bdf, queue, what, times })?)
            }
            Command::Migrate { bdf, begins } => (MIGRATE, raw(&Migrate { bdf, begins })?),
            Command::Autoprobe { on } => (AUTOPROBE, raw(&on)?),
            Command::Reboot => (REBOOT, raw(&())?),
            Command::PowerCycle => (POWER_CYCLE, raw(&())?),
            Command::UplinkMtu { uplink, mtu } => (UPLINK_MTU, raw(&UplinkMtu { uplink, mtu })?),
            Command::Bond { made } => (BOND, raw(&made)?),
        })
    }
}

/// Does at the host what is asked for.
pub(crate) async fn call(sim: &Sim, method: &str, params: &RawValue) -> Result<Box<RawValue>, Fault> {
    match method {
        SRIOV => {
            let Sriov { pf, num_vfs } = read(method, params)?;
            sim.write_num_vfs(pf, num_vfs)?;
        }
        BIND => sim.bind(read(method, params)?)?,
        UNBIND => sim.unbind(read(method, params)?)?,
        TRAFFIC => {
            let Traffic { bdf, queue, bytes, packets } = read(method, params)?;
            sim.traffic(bdf, queue, bytes, packets)?;
        }
        MISUSE => {
            let Misused { bdf, queue, what, times } = read(method, params)?;
            sim.misuse(bdf, queue, what.into(), times)?;
        }
        MIGRATE => {
            let Migrate { bdf, begins } = read(method, params)?;
            sim.set_migrating(bdf, begins)?;
        }
        AUTOPROBE => sim.set_autoprobe(read(method, params)?),
        REBOOT => sim.reboot_host(),
        POWER_CYCLE => sim.power_cycle().await,
        UPLINK_MTU => {
            let UplinkMtu { uplink, mtu } = read(method, params)?;
            sim.set_uplink_mtu(uplink, mtu);
        }
        BOND => sim.set_bonded(read(method, params)?),
        _ => return Err(Fault::no_such_method(method)),
    }
    raw(&())
}
