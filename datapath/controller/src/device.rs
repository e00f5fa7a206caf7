//! The trait [`DeviceModel`]: what hardware, firmware and kernel do for a virtio-net controller.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use virtnet_model::{
    Bdf, EswitchPort, Features, FirmwareValues, HostDriver, IfName, Mac, Moderation, Mtu, PartError, PfId,
    QueueSize, QueueState, SfNumber, Uplink, VfId,
};

/// Where an emulated function is: the hardware's own name of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// A physical function of the firmware's configuration.
    Static(PfId),
    /// A downstream port of the emulated PCIe switch, from 0.
    Slot(u16),
    /// A virtual function of a static PF.
    Vf(PfId, VfId),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(pf) => write!(f, "static PF {pf}"),
            Self::Slot(slot) => write!(f, "slot {slot}"),
            Self::Vf(pf, vf) => write!(f, "VF {vf} of PF {pf}"),
        }
    }
}

/// Names an SF: numbers are unique on their port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SfKey {
    /// The port of the embedded switch.
    pub port: EswitchPort,
    /// The number.
    pub number: SfNumber,
}

impl fmt::Display for SfKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SF {} of {}", self.number, self.port)
    }
}

/// An SF that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sf {
    /// The RDMA device that it was made on, such as `mlx5_0`.
    pub parent: String,
    /// Its own RDMA device, once there.
    pub rdma_device: Option<String>,
    /// The name that its representor has or will get.
    pub representor: IfName,
    /// Another application made it.
    pub foreign: bool,
    /// The number that firmware has for it (its VHCA id), where there is one.
    #[serde(default)]
    pub vhca_id: Option<u16>,
}

/// What a function presents to its driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// MAC address.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: Mtu,
    /// Virtqueues, the control queue included.
    pub max_queues: u16,
    /// Descriptors a queue.
    pub queue_size: QueueSize,
    /// MSI-X vectors, the configuration vector included.
    pub num_msix: u16,
    /// Features offered.
    pub features: Features,
    /// Whether legacy drivers can use it.
    pub transitional: bool,
}

/// What a controller has made of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Emulation {
    /// What it presents.
    pub settings: Settings,
    /// The SF behind it; without one it passes no packets and its driver does not come up.
    pub sf: Option<SfKey>,
}

/// An emulated function as the hardware has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Emulated {
    /// `None`: firmware or host made it and no controller has configured it since. What a machine was started with is present from
    /// the beginning, and has no SF before a controller gives it one.
    pub emulation: Option<Emulation>,
    /// Its address, once the host has enumerated it.
    pub bdf: Option<Bdf>,
    /// The other side of the device status.
    pub driver: HostDriver,
    /// The features that the driver accepted (virtio 1.2, section 3.1.1); `None`: no driver has got so far.
    pub negotiated: Option<Features>,
    /// The MSI-X vector that the driver gave to changes of the configuration; `None`: it has given none.
    #[serde(default)]
    pub config_vector: Option<u16>,
    /// It is being moved with the machine that has it, and nothing of it is to be changed until that has ended.
    #[serde(default)]
    pub migrating: bool,
    /// The vhost-user socket, where a front end connects to it.
    pub socket: Option<PathBuf>,
    /// The sockets of a PF's VFs, the first one's first, where whoever starts a machine has to know them.
    #[serde(default)]
    pub vf_sockets: Vec<PathBuf>,
}

/// What of a device stays as it is between two cold boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// The firmware values in force, by port; a port that the device lacks is absent.
    pub firmware: BTreeMap<EswitchPort, FirmwareValues>,
    /// The device's own MAC address. Unique in a fleet.
    pub base_mac: Mac,
    /// Virtqueues that a function can have at most.
    pub max_virtq: u16,
    /// Descriptors that a queue can have at most.
    pub max_queue_size: QueueSize,
    /// Every feature that the device can offer.
    pub features: Features,
    /// Bytes of I/O port space that the host gives the emulated switch (`/proc/ioports`).
    pub host_io_space: u32,
    /// The hosts that have names, each with its slots. Empty: there is one, which has none, and all slots are its.
    #[serde(default)]
    pub hosts: BTreeMap<String, BTreeSet<u16>>,
}

/// All that a device reports at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceState {
    /// What does not change while it is powered.
    pub profile: Profile,
    /// MTU in bytes of the physical ports, or of the bond.
    pub uplink_mtus: BTreeMap<Uplink, u32>,
    /// The emulated functions.
    #[serde(with = "virtnet_model::pairs")]
    pub functions: BTreeMap<Place, Emulated>,
    /// The SFs, other applications' included.
    #[serde(with = "virtnet_model::pairs")]
    pub sfs: BTreeMap<SfKey, Sf>,
}

/// Something on the device is now so. Told in the order in which it came to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceEvent {
    /// The function at this place; `None`: gone.
    Function(Place, Option<Emulated>),
    /// This SF; `None`: gone.
    Sf(SfKey, Option<Sf>),
    /// The MTU in bytes of a physical port or of the bond; `None`: it is no uplink any more.
    Uplink(Uplink, Option<u32>),
}

/// A device's state, and every change after it.
#[derive(Debug)]
pub struct DeviceWatch {
    /// The state when the watch began.
    pub state: DeviceState,
    /// What changed since, in order and without a gap. It ends with the device.
    pub events: mpsc::UnboundedReceiver<DeviceEvent>,
}

/// A device that emulates virtio-net functions, as firmware and kernel offer it to the controller.
///
/// An operation that returns has taken effect or has failed; its events are in every watch *before* it returns.
/// The device decides nothing: numbers, names and limits are the controller's.
#[async_trait]
pub trait DeviceModel: Send + Sync + fmt::Debug + 'static {
    /// The state now, and what follows.
    async fn watch(&self) -> Result<DeviceWatch, PartError>;

    /// Makes an SF on an uplink, with its representor netdev (which may appear a moment later).
    async fn create_sf(&self, uplink: Uplink, number: SfNumber) -> Result<(), PartError>;

    /// Removes an SF that no function uses, with its representor.
    async fn destroy_sf(&self, sf: SfKey) -> Result<(), PartError>;

    /// Plugs a function into a free slot.
    async fn plug(&self, slot: u16, emulation: &Emulation) -> Result<(), PartError>;

    /// Takes the function out of a slot, whether or not a driver has it; its SF stays.
    async fn unplug(&self, slot: u16) -> Result<(), PartError>;

    /// Sets what a function presents and the SF behind it: at its birth, or later while no driver has it.
    async fn configure(&self, place: Place, emulation: &Emulation) -> Result<(), PartError>;

    /// The queues of a function that is configured, now: as many as it has, in the order of their indices. What changes of them is
    /// told by no event.
    async fn queues(&self, place: Place) -> Result<Vec<QueueState>, PartError>;

    /// Sets when a function's driver is interrupted for what it receives, whether or not it has the function. It holds until
    /// it is set anew or the function is gone.
    async fn moderate(&self, place: Place, moderation: Moderation) -> Result<(), PartError>;
}
