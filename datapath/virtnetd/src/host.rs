//! The host of a simulated DPU as a person at it has it: methods beside a controller's, and the arguments of `virtnetd host`,
//! which asks for them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use virtnet_model::{Bdf, PfId, Uplink};
use virtnet_rpc::{Fault, raw, read};
use virtnet_sim::Sim;

const SRIOV: &str = "host.sriov";
const BIND: &str = "host.bind";
const UNBIND: &str = "host.unbind";
const AUTOPROBE: &str = "host.autoprobe";
const REBOOT: &str = "host.reboot";
const UPLINK_MTU: &str = "host.uplink-mtu";
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
            Command::Autoprobe { on } => (AUTOPROBE, raw(&on)?),
            Command::Reboot => (REBOOT, raw(&())?),
            Command::PowerCycle => (POWER_CYCLE, raw(&())?),
            Command::UplinkMtu { uplink, mtu } => (UPLINK_MTU, raw(&UplinkMtu { uplink, mtu })?),
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
        AUTOPROBE => sim.set_autoprobe(read(method, params)?),
        REBOOT => sim.reboot_host(),
        POWER_CYCLE => sim.power_cycle().await,
        UPLINK_MTU => {
            let UplinkMtu { uplink, mtu } = read(method, params)?;
            sim.set_uplink_mtu(uplink, mtu);
        }
        _ => return Err(Fault::no_such_method(method)),
    }
    raw(&())
}
