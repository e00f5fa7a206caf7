//! `Dpu`: one DPU, its wanted configuration, and what its agent found.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::common::{Conditions, NEVER_OBSERVED, Port, conditions_schema, never_observed};
use crate::controller_conf::ControllerConf;
use crate::dpu_status::{Allocated, Capacity, FirmwareStatus, Generation, UndeclaredFunction, Versions};
use crate::limits;

/// What is wanted of the DPU. All of it is optional.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "virtnet.dev",
    version = "v1alpha1",
    kind = "Dpu",
    plural = "dpus",
    status = "DpuStatus",
    derive = "PartialEq",
    category = "virtnet",
    doc = "A DPU: its wanted configuration, its capacity, and what its agent found. Named as the DPU.",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(
        name = "SLOTS",
        type_ = "integer",
        json_path = ".status.capacity.hotplugSlots",
        description = "hot-plug slots"
    ),
    printcolumn(
        name = "USED",
        type_ = "integer",
        json_path = ".status.allocated.hotplugSlots",
        description = "hot-plug slots in use"
    ),
    printcolumn(
        name = "REBOOT",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="RebootRequired")].status"#,
        description = "whether a cold boot is needed"
    ),
    printcolumn(name = "CONTROLLER", type_ = "string", json_path = ".status.versions.controller"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "AGENT", type_ = "string", json_path = ".status.versions.agent", priority = 1),
    printcolumn(name = "FIRMWARE", type_ = "string", json_path = ".status.versions.firmware", priority = 1),
    printcolumn(name = "GENERATION", type_ = "string", json_path = ".status.generation", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct DpuSpec {
    /// Wanted settings of the controller's virtnet.conf. Absent ones are left as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<ControllerConf>,
    /// Wanted firmware settings (mlxconfig).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<FirmwareSpec>,
    /// What is wanted of Open vSwitch beside the ports of devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<SwitchSpec>,
    /// Wanted settings of the host, where something on the host carries them out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostSpec>,
}

/// Whether the agent may write firmware settings.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirmwarePolicy {
    /// Differences are only reported.
    #[default]
    Report,
    /// Wanted settings are written; they take effect at the next cold boot.
    Apply,
}

/// Wanted firmware settings.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FirmwareSpec {
    /// Whether the agent may write them.
    #[serde(default)]
    pub policy: FirmwarePolicy,
    /// Settings, one entry a port: each port has values of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["port".into()]))]
    pub ports: Vec<FirmwarePortSpec>,
}

/// Wanted firmware settings of one port.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FirmwarePortSpec {
    /// The port.
    pub port: Port,
    /// Settings by their mlxconfig names, such as PF_TOTAL_SF: 508.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "firmware_values_schema")]
    pub values: BTreeMap<String, IntOrString>,
}

fn firmware_values_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Settings by their mlxconfig names, such as PF_TOTAL_SF: 508.",
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "x-kubernetes-int-or-string": true, "maxLength": 64 },
        "x-kubernetes-validations": [{
            "rule": "self.all(key, key.matches('^[A-Z][A-Z0-9_]{0,63}$'))",
            "message": "values must be named as mlxconfig names them: capital letters, digits and underscores"
        }]
    })
}

/// What is wanted of Open vSwitch.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SwitchSpec {
    /// Bridges that the agent makes where they are not there. It changes and removes none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub bridges: Vec<BridgeSpec>,
}

/// A bridge that the agent makes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BridgeSpec {
    /// Its name: that of a network interface.
    #[schemars(length(min = 1, max = limits::INTERFACE_NAME_MAX))]
    #[x_kube(validation = Rule::new("self.matches('^[!-.0-9;-~]+$') && self != '.' && self != '..'")
        .message("bridges[].name must be the name of a network interface: \
            up to 15 printable characters of ASCII, no slash, colon or white space, not . or .."))]
    pub name: String,
    /// Its datapath_type as in OVSDB: netdev is the one in userspace; if empty, the kernel's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9_-]*$')")
        .message("bridges[].datapathType must be a datapath_type of OVSDB: letters, digits, - and _"))]
    pub datapath_type: String,
}

/// Wanted settings of the host.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HostSpec {
    /// How many VFs the host makes of each static PF.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["pf".into()]))]
    pub sriov: Vec<SriovSpec>,
}

/// How many VFs the host makes of one static PF.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SriovSpec {
    /// Index of the static PF, from 0.
    #[schemars(range(min = 0, max = 255))]
    pub pf: u16,
    /// How many VFs (`sriov_numvfs`).
    #[schemars(range(min = 0, max = 4096))]
    pub num_vfs: u16,
}

/// What the agent found. Written by the agent.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DpuStatus {
    /// The metadata.generation that this status is about; -1 until an agent has seen the object.
    #[serde(default = "never_observed")]
    #[schemars(range(min = -1))]
    pub observed_generation: i64,
    /// What is known of the DPU's state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Conditions,
    /// Versions of the programs on the DPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub versions: Option<Versions>,
    /// Which generation of the controller the DPU runs; it decides on some limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// How much the DPU can hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub capacity: Option<Capacity>,
    /// How much of it is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub allocated: Option<Allocated>,
    /// Functions that exist without a VirtnetDevice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub undeclared: Vec<UndeclaredFunction>,
    /// Firmware settings that concern virtio-net, as read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub firmware: Option<FirmwareStatus>,
}

impl Default for DpuStatus {
    fn default() -> Self {
        Self {
            observed_generation: NEVER_OBSERVED,
            conditions: Conditions::new(),
            versions: None,
            generation: None,
            capacity: None,
            allocated: None,
            undeclared: Vec::new(),
            firmware: None,
        }
    }
}
