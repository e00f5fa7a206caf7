//! What a simulated DPU is made of: [`SimConfig`] and [`Timing`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use virtnet_controller::EngineConfig;
use virtnet_controller::conf::RdmaDevices;
use virtnet_model::{BridgeName, Feature, Features, Mac, QueueSize};

use crate::effect::Effect;
use crate::firmware::{FirmwareConfig, FirmwareError};

/// A DPU and its host, as they are switched on.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// The source of all randomness ([`Timing::jitter_percent`]).
    pub seed: u64,
    /// The firmware's settings.
    pub firmware: FirmwareConfig,
    /// The controller's configuration.
    pub engine: EngineConfig,
    /// Whether p0 and p1 are one bond; `None`: as the controller is configured ([`virtnet_controller::UplinkMode::Lag`]).
    pub bonded: Option<bool>,
    /// The RDMA devices of the uplinks.
    pub rdma_devices: RdmaDevices,
    /// The bridges in Open vSwitch.
    pub bridges: BTreeSet<BridgeName>,
    /// The device's own MAC, from which the controller makes others: different for each DPU of a fleet.
    pub base_mac: Mac,
    /// Virtqueues a function.
    pub max_virtq: u16,
    /// Descriptors a queue.
    pub max_queue_size: QueueSize,
    /// Features that the device has.
    pub features: Features,
    /// Features that the host's driver knows.
    pub driver_features: Features,
    /// Bytes of I/O port space that the host gives the emulated switch.
    pub host_io_space: u32,
    /// The host's drivers bind by themselves.
    pub autoprobe: bool,
    /// The host begins to boot at once; otherwise it is off.
    pub host_on: bool,
    /// Representors appear as `eth<N>` and are renamed by udev [`Timing::udev`] later.
    pub udev_renames: bool,
    /// How long things take.
    pub timing: Timing,
}

impl SimConfig {
    /// Gives firmware settings other values than the guide's, each as `KEY=VALUE` or, for the second port,
    /// `p1/KEY=VALUE`. An unknown key or a value out of range changes nothing.
    pub fn set_firmware<S: AsRef<str>>(&mut self, overrides: &[S]) -> Result<(), FirmwareError> {
        let mut firmware = self.firmware.clone();
        for item in overrides {
            firmware.set_from(item.as_ref())?;
        }
        self.firmware = firmware;
        Ok(())
    }
}

impl Default for SimConfig {
    fn default() -> Self {
        let bridge = |name: &str| name.parse().unwrap_or_else(|_| unreachable!("a short name: {name}"));
        Self {
            seed: 0,
            firmware: FirmwareConfig::guide(),
            engine: EngineConfig::default(),
            bonded: None,
            rdma_devices: RdmaDevices::default(),
            bridges: [bridge("ovsbr1"), bridge("ovsbr2")].into(),
            base_mac: Mac::new([0x00, 0x11, 0x22, 0x33, 0x44, 0x55])
                .unwrap_or_else(|_| unreachable!("a unicast address")),
            max_virtq: 256,
            max_queue_size: QueueSize::try_from(4096).unwrap_or_else(|_| unreachable!("a power of two")),
            features: device_features(),
            driver_features: driver_features(),
            host_io_space: 0x1_0000,
            autoprobe: true,
            host_on: true,
            udev_renames: false,
            timing: Timing::default(),
        }
    }
}

/// The bits that the vendor's later guides list.
fn device_features() -> Features {
    let absent =
        [Feature::GuestTso4, Feature::GuestTso6, Feature::GuestEcn, Feature::GuestUfo, Feature::HostEcn]
            .into_iter()
            .chain([Feature::HostUfo, Feature::Rss])
            .collect::<BTreeSet<_>>();
    Feature::ALL.iter().copied().filter(|feature| !absent.contains(feature)).collect()
}

/// What Linux's virtio_net and its transport know: all but what is legacy or not in it yet.
fn driver_features() -> Features {
    let absent = [
        Feature::NotifyOnEmpty,
        Feature::AnyLayout,
        Feature::InOrder,
        Feature::NotifConfigData,
        Feature::HashTunnel,
    ]
    .into_iter()
    .chain([Feature::CtrlRxExtra, Feature::RscExt])
    .collect::<BTreeSet<_>>();
    Feature::ALL.iter().copied().filter(|feature| !absent.contains(feature)).collect()
}

/// How long things take, in tokio's time.
#[derive(Clone, Debug)]
pub struct Timing {
    /// From asking for an effect to the effect; absent: none.
    pub latency: BTreeMap<Effect, Duration>,
    /// At most this much longer, in percent of the latency, by chance.
    pub jitter_percent: u32,
    /// From power on to an enumerated bus.
    pub host_boot: Duration,
    /// From a function's appearance to its enumeration by a running host.
    pub enumerate: Duration,
    /// From a function's enumeration to DRIVER_OK.
    pub probe: Duration,
    /// From an SF to its representor netdev.
    pub netdev: Duration,
    /// From a representor under its temporary name to its lasting one.
    pub udev: Duration,
    /// From power on to the DPU's own services, the controller excepted.
    pub dpu_boot: Duration,
    /// A restart of the controller.
    pub controller_start: Duration,
    /// A restart of Open vSwitch.
    pub ovs_start: Duration,
}

impl Timing {
    /// Nothing takes any time.
    pub fn immediate() -> Self {
        Self {
            latency: BTreeMap::new(),
            jitter_percent: 0,
            host_boot: Duration::ZERO,
            enumerate: Duration::ZERO,
            probe: Duration::ZERO,
            netdev: Duration::ZERO,
            udev: Duration::ZERO,
            dpu_boot: Duration::ZERO,
            controller_start: Duration::ZERO,
            ovs_start: Duration::ZERO,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            latency: [
                (Effect::SwitchApply, ms(5)),
                (Effect::LinkSet, ms(1)),
                (Effect::FirmwareSet, ms(5)),
                (Effect::SetNumVfs, ms(10)),
                (Effect::CreateSf, ms(2)),
                (Effect::DestroySf, ms(2)),
                (Effect::DevicePlug, ms(20)),
                (Effect::DeviceUnplug, ms(20)),
                (Effect::DeviceConfigure, ms(1)),
                (Effect::DeviceModerate, ms(1)),
            ]
            .into(),
            jitter_percent: 0,
            host_boot: ms(300),
            enumerate: ms(20),
            probe: ms(10),
            netdev: ms(2),
            udev: ms(3),
            dpu_boot: ms(100),
            controller_start: ms(50),
            ovs_start: ms(50),
        }
    }
}
