//! The parts of a `Dpu`'s status.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{FunctionType, Port, bounded_map};
use crate::limits;
use crate::tuning::LinkState;

/// Versions of the programs on the DPU.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// The virtio-net controller that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub controller: Option<String>,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub agent: Option<String>,
    /// The DPU's firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub firmware: Option<String>,
}

/// Generation of the virtio-net controller.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// That of the guide: hot-plug slots beside any number of VFs; transitional hot-plugged PFs.
    Guide,
    /// The later one: hot-plug excludes more than 127 VFs; transitional VFs.
    Later,
}

/// How much the DPU can hold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Hot-plug slots.
    #[serde(default)]
    #[schemars(range(min = 0, max = 65535))]
    pub hotplug_slots: u32,
    /// SFs of each port (PF_TOTAL_SF).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["port".into()]))]
    pub sfs: Vec<PortSfs>,
    /// VFs of each static PF.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["pf".into()]))]
    pub vfs: Vec<PfVfs>,
    /// MSI-X vectors that one function may have.
    #[serde(default)]
    #[schemars(range(min = 0, max = 65535))]
    pub msix: u32,
}

/// How much of the capacity is in use.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Allocated {
    /// Hot-plug slots in use.
    #[serde(default)]
    #[schemars(range(min = 0, max = 65535))]
    pub hotplug_slots: u32,
    /// SFs in use on each port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["port".into()]))]
    pub sfs: Vec<PortSfs>,
    /// VFs that exist on each static PF.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["pf".into()]))]
    pub vfs: Vec<PfVfs>,
    /// MSI-X vectors that all functions together have.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4294967295u32))]
    pub msix: u32,
}

/// SFs of one port.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PortSfs {
    /// The port.
    pub port: Port,
    /// How many.
    #[schemars(range(min = 0, max = 65535))]
    pub count: u32,
}

/// VFs of one static PF.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PfVfs {
    /// Index of the static PF, from 0.
    #[schemars(range(min = 0, max = 65535))]
    pub pf: u16,
    /// How many.
    #[schemars(range(min = 0, max = 65535))]
    pub count: u32,
}

/// A function that exists without a `VirtnetDevice`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UndeclaredFunction {
    /// The controller's name of the function.
    #[schemars(length(max = 64))]
    pub vuid: String,
    /// What kind of function it is.
    #[serde(rename = "type")]
    pub type_: FunctionType,
    /// Index of the PF; of a VF, that of its PF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub pf: Option<u16>,
    /// Index of the VF on its PF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub vf: Option<u16>,
    /// PCI address on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub bdf: Option<String>,
    /// MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 17))]
    pub mac: Option<String>,
    /// MTU in bytes. Like queues, vectors and features it is told of hot-plugged functions only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub mtu: Option<u16>,
    /// How many virtqueues it has at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub max_queues: Option<u16>,
    /// Descriptors of its largest queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub max_queue_size: Option<u16>,
    /// MSI-X vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub num_msix: Option<u16>,
    /// Features on offer, by name; a bit without a known name as its number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 32)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub features: Vec<String>,
    /// Whether drivers of virtio 0.95 can use it too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transitional: bool,
    /// The representor of its SF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::INTERFACE_NAME_MAX))]
    pub representor: Option<String>,
    /// Whether that representor is up, and with it the link that the driver sees; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_state: Option<LinkState>,
}

/// Firmware settings as read back.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FirmwareStatus {
    /// Settings, one entry a port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["port".into()]))]
    pub ports: Vec<FirmwarePortStatus>,
}

/// Firmware settings of one port.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FirmwarePortStatus {
    /// The port.
    pub port: Port,
    /// What the firmware runs with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = bounded_map::<128, 64>)]
    pub current: BTreeMap<String, String>,
    /// What it will run with after a cold boot, where that differs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = bounded_map::<128, 64>)]
    pub next_boot: BTreeMap<String, String>,
}
