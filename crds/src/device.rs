//! `VirtnetDevice`: one virtio-net function of a DPU and its Open vSwitch port.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::common::{Conditions, DpuSelector, NEVER_OBSERVED, conditions_schema, never_observed};
use crate::conditions::FUNCTION_READY;
use crate::device_status::{FunctionStatus, HostStatus, Pending, PortStatus, RepresentorStatus};
use crate::feature::Feature;
use crate::function::FunctionSpec;
use crate::limits;
use crate::port::PortSpec;
use crate::reasons::Reason;
use crate::rules;
use crate::tuning::{LinkState, Queues, RebindPolicy};

/// What is wanted of the device.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "virtnet.dev",
    version = "v1alpha1",
    kind = "VirtnetDevice",
    namespaced,
    status = "VirtnetDeviceStatus",
    derive = "PartialEq",
    shortname = "vnd",
    category = "virtnet",
    doc = "One virtio-net function of a DPU, and the Open vSwitch port of its representor.",
    selectable = ".spec.dpu",
    selectable = ".status.function.mac",
    validation = rules::function_is_immutable(),
    validation = rules::dpu_is_fixed_while_function_exists(),
    printcolumn(name = "DPU", type_ = "string", json_path = ".spec.dpu"),
    printcolumn(name = "TYPE", type_ = "string", json_path = ".status.function.type"),
    printcolumn(name = "PF", type_ = "integer", json_path = ".status.function.pf"),
    printcolumn(name = "VF", type_ = "integer", json_path = ".status.function.vf"),
    printcolumn(name = "BDF", type_ = "string", json_path = ".status.function.bdf"),
    printcolumn(name = "MAC", type_ = "string", json_path = ".status.function.mac"),
    printcolumn(name = "REP", type_ = "string", json_path = ".status.representor.name"),
    printcolumn(name = "BRIDGE", type_ = "string", json_path = ".status.port.bridge"),
    printcolumn(name = "READY", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "REASON", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "VUID", type_ = "string", json_path = ".status.function.vuid", priority = 1),
    printcolumn(name = "MTU", type_ = "integer", json_path = ".status.function.mtu", priority = 1),
    printcolumn(name = "QUEUES", type_ = "integer", json_path = ".status.function.maxQueues", priority = 1),
    printcolumn(name = "DRIVER", type_ = "string", json_path = ".status.host.driver", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::dpu_or_selector())]
#[x_kube(validation = rules::queues_below_msix())]
#[x_kube(validation = rules::always_needs_hotplug())]
pub struct VirtnetDeviceSpec {
    /// Name of the Dpu. It may be absent until the device is bound, and may change only while status.function
    /// is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::NAME_MAX))]
    #[x_kube(validation = rules::dpu_is_a_name())]
    pub dpu: Option<String>,
    /// Which DPUs the device may be bound to; required where dpu is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpu_selector: Option<DpuSelector>,
    /// The function that the device stands for; immutable.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub function: FunctionSpec,
    /// MAC address, unicast. If absent: derived from the object's uid (hot-plug), or the controller's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::mac_is_well_formed())]
    #[x_kube(validation = rules::mac_is_unicast())]
    #[x_kube(validation = rules::mac_is_not_zero())]
    pub mac: Option<String>,
    /// MTU in bytes: 68 to 9978. If absent, the controller's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = limits::MTU_MIN, max = limits::MTU_MAX))]
    pub mtu: Option<u16>,
    /// Virtqueues. If absent, the controller's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub queues: Option<Queues>,
    /// MSI-X vectors; more than queues.max. If absent, the controller's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MSIX_MAX))]
    pub msix: Option<u16>,
    /// Features to offer, by their names in the virtio specification; what they need comes with them. If absent, the
    /// controller's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub features: Option<Vec<Feature>>,
    /// State of the link that the driver sees.
    #[serde(default)]
    pub link_state: LinkState,
    /// When a change that needs the host's driver gone may be made. Always is for hot-plugged functions only.
    #[serde(default)]
    pub rebind_policy: RebindPolicy,
    /// The Open vSwitch port. If absent, the representor is connected to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub port: Option<PortSpec>,
}

/// What was read back of the device. Written by the agent.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VirtnetDeviceStatus {
    /// The metadata.generation that this status is about; -1 until an agent has seen the object.
    #[serde(default = "never_observed")]
    #[schemars(range(min = -1))]
    pub observed_generation: i64,
    /// What is known of the object's state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Conditions,
    /// What waits for a rebind, replug, restart or cold boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub pending: Option<Pending>,
    /// The function as the controller reports it. Present from the moment the agent may have made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub function: Option<FunctionStatus>,
    /// The representor of the function's SF on the DPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub representor: Option<RepresentorStatus>,
    /// The Open vSwitch port as the switch reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub port: Option<PortStatus>,
    /// The host's side of the function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub host: Option<HostStatus>,
}

impl VirtnetDeviceStatus {
    /// Why the agent makes no function, where that is for what its DPU is or has; with its words. Whoever chose the DPU may
    /// then choose another.
    #[must_use]
    pub fn refusal(&self) -> Option<(Reason, &str)> {
        let condition = self.conditions.iter().find(|condition| condition.type_ == FUNCTION_READY)?;
        let reason = Reason::ALL.iter().copied().find(|reason| reason.as_str() == condition.reason)?;
        (self.function.is_none() && reason.is_of_the_dpu()).then_some((reason, &condition.message))
    }
}

impl Default for VirtnetDeviceStatus {
    fn default() -> Self {
        Self {
            observed_generation: NEVER_OBSERVED,
            conditions: Conditions::new(),
            pending: None,
            function: None,
            representor: None,
            port: None,
            host: None,
        }
    }
}
