//! The parts of a `VirtnetDevice`'s status.
//!
//! Nothing here changes without a real event: no time stamps, no ifindex, no ofport.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::common::FunctionType;
use crate::limits;

/// A change that waits for something the agent can't do.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// What it waits for: a reason of the table of reasons.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// What waits, and the command that a person would run to let it happen.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// A function as the controller reports it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FunctionStatus {
    /// The controller's name of the function, such as VNETS1D0F0.
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
    /// PCI address on the host, such as 85:00.0; absent until the host has given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub bdf: Option<String>,
    /// MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 17))]
    pub mac: Option<String>,
    /// MTU in bytes.
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
    #[serde(default)]
    pub transitional: bool,
    /// The RDMA device on the DPU whose SF backs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub rdma_device: Option<String>,
    /// The socket of a function in software, in place of a BDF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub socket: Option<String>,
}

/// The representor netdev of the function's SF.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RepresentorStatus {
    /// Name of the netdev, such as en3f0pf0sf2000.
    #[schemars(length(max = limits::INTERFACE_NAME_MAX))]
    pub name: String,
    /// Number of the SF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4294967295u32))]
    pub sf_number: Option<u32>,
    /// The device that the SF belongs to, such as pci/0000:03:00.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub parent_device: Option<String>,
}

/// The port as the switch reports it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PortStatus {
    /// Name of the bridge that the port is on.
    #[schemars(length(max = 64))]
    pub bridge: String,
    /// VLAN of an access port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4095))]
    pub tag: Option<u16>,
}

/// The host's side of the function.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// The driver that has the function, if any is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub driver: Option<String>,
    /// Whether the host has the function on its bus.
    #[serde(default)]
    pub seen: bool,
}
