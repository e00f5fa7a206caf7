//! What a DPU's firmware and its controller's configuration allow: [`Limits`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{EswitchPort, Features, QueueSize, Uplink};

/// Whose rules the controller follows where the vendor's guides contradict each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Generation {
    /// The guide "NVIDIA DOCA Emulated Devices" (2023).
    #[default]
    Guide,
    /// The guides from 24.10 on.
    Later,
}

/// SFs of one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SfBudget {
    /// PF_TOTAL_SF of the port.
    pub total: u32,
    /// Taken by virtio-net functions.
    pub used: u32,
    /// Taken by other applications.
    pub foreign: u32,
}

impl SfBudget {
    /// SFs that a new function can have.
    pub fn free(self) -> u32 {
        self.total.saturating_sub(self.used).saturating_sub(self.foreign)
    }
}

/// How far legacy drivers can be served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransitionalLimits {
    /// Hot-plugged PFs that the host's I/O space holds: (space − 4 KiB) / 4 KiB, 0 where the firmware's layout or the
    /// generation doesn't have them.
    pub hotplug: u16,
    /// Whether VFs can be transitional.
    pub vf: bool,
}

/// What firmware and configuration allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Whose rules hold.
    pub generation: Generation,
    /// VIRTIO_NET_EMULATION_ENABLE.
    pub emulation: bool,
    /// Slots for hot-plugged PFs: PCI_SWITCH_EMULATION_NUM_PORT where the switch is enabled and the number of VFs
    /// doesn't exclude it.
    pub hotplug_slots: u16,
    /// Static PFs: VIRTIO_NET_EMULATION_NUM_PF.
    pub static_pfs: u16,
    /// VFs that each static PF can have: VIRTIO_NET_EMULATION_NUM_VF.
    pub vfs_per_pf: u16,
    /// SFs by port.
    pub sfs: BTreeMap<EswitchPort, SfBudget>,
    /// The uplinks that a hot-plugged function can choose: the ports, or with LAG the bond.
    pub uplinks: Vec<Uplink>,
    /// The uplink of static PFs and their VFs (`ib_dev_for_static_pf`).
    pub static_uplink: Uplink,
    /// MSI-X vectors of a PF: VIRTIO_NET_EMULATION_NUM_MSIX.
    pub pf_msix: u16,
    /// MSI-X vectors that one VF can have.
    pub vf_msix: u16,
    /// Virtqueues the device has at most (`max_virtq` of `virtnet list`).
    pub max_virtq: u16,
    /// Descriptors a queue can have at most.
    pub max_queue_size: QueueSize,
    /// Transitional functions.
    pub transitional: TransitionalLimits,
    /// Features that can be offered.
    pub features: Features,
}
