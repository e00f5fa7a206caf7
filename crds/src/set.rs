//! `VirtnetDeviceSet`: many devices from one template.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{
    Conditions, DpuSelector, NEVER_OBSERVED, bounded_map, conditions_schema, never_observed,
};
use crate::feature::Feature;
use crate::function::{HotplugFunction, StaticFunction};
use crate::limits;
use crate::port::PortSpec;
use crate::rules;
use crate::tuning::{LinkState, Queues, RebindPolicy};

fn one_at_a_time() -> u32 {
    1
}

/// What is wanted of the set.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "virtnet.dev",
    version = "v1alpha1",
    kind = "VirtnetDeviceSet",
    namespaced,
    status = "VirtnetDeviceSetStatus",
    derive = "PartialEq",
    shortname = "vnds",
    category = "virtnet",
    validation = rules::set_name_is_a_label_value(),
    doc = "Many VirtnetDevices from one template: a number of them, or one for each VF of a range.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "DEVICES", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "BOUND", type_ = "integer", json_path = ".status.boundReplicas"),
    printcolumn(name = "UPDATED", type_ = "integer", json_path = ".status.updatedReplicas"),
    printcolumn(name = "READY", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.perVf) || self.replicas == 0")
    .message("exactly one of replicas and perVf may be given")
    .field_path(".perVf"))]
#[x_kube(validation = Rule::new("has(self.perVf) == has(self.template.spec.__function__.vf)")
    .message("template.spec.function.vf goes with perVf; with replicas give hotplug or static")
    .field_path(".template.spec.function"))]
#[x_kube(validation = Rule::new("!has(self.perVf) || !has(self.template.spec.__function__.vf) || \
        !has(self.template.spec.__function__.vf.pf) || self.template.spec.__function__.vf.pf == self.perVf.pf")
    .message("template.spec.function.vf.pf must be absent or equal to perVf.pf")
    .field_path(".template.spec.function.vf.pf"))]
pub struct VirtnetDeviceSetSpec {
    /// How many devices, spread over the selected DPUs; excludes perVf.
    ///
    /// The scale subresource reads a value here from every set, so there is a default: a set without perVf has no
    /// devices until someone asks for some, and a set with perVf leaves it at that.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100000))]
    pub replicas: u32,
    /// One device for each VF of the range, on every selected DPU; excludes replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub per_vf: Option<PerVf>,
    /// Which DPUs the devices may be bound to.
    pub dpu_selector: DpuSelector,
    /// What each device is made from.
    pub template: DeviceTemplate,
    /// How many devices may be out of service at once while the set is changed: 1 or more.
    #[serde(default = "one_at_a_time")]
    #[schemars(range(min = 1, max = 100000))]
    pub max_unavailable: u32,
    /// What becomes of the devices on a DPU whose Dpu object is deleted.
    #[serde(default)]
    pub on_dpu_loss: OnDpuLoss,
}

/// What becomes of a set's devices on a DPU whose `Dpu` object is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDpuLoss {
    /// They stay bound to it, for it may come back.
    #[default]
    Keep,
    /// They are deleted; replicas are made anew on other DPUs.
    Replace,
}

/// How many devices a set has, as a choice of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sizing {
    /// This many, spread over the selected DPUs.
    Replicas(u32),
    /// One for each VF of the range, on every selected DPU.
    PerVf(PerVf),
}

/// The set gave both replicas and perVf. The API server lets no such object in.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[error("exactly one of replicas and perVf may be given; the set asks for {replicas} replicas and for perVf")]
pub struct TwoSizings {
    /// How many replicas it asked for.
    pub replicas: u32,
}

impl VirtnetDeviceSetSpec {
    /// The one sizing that the spec gives.
    ///
    /// # Errors
    /// [`TwoSizings`] where it gives both.
    pub fn sizing(&self) -> Result<Sizing, TwoSizings> {
        match (&self.per_vf, self.replicas) {
            (Some(per_vf), 0) => Ok(Sizing::PerVf(per_vf.clone())),
            (None, replicas) => Ok(Sizing::Replicas(replicas)),
            (Some(_), replicas) => Err(TwoSizings { replicas }),
        }
    }
}

/// A range of VFs of one static PF, both ends included.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.from <= self.to").message("perVf.from must not be above perVf.to"))]
pub struct PerVf {
    /// Index of the static PF, from 0.
    #[schemars(range(min = 0, max = 255))]
    pub pf: u16,
    /// First VF.
    #[schemars(range(min = 0, max = 4095))]
    pub from: u16,
    /// Last VF.
    #[schemars(range(min = 0, max = 4095))]
    pub to: u16,
}

/// What each device of a set is made from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DeviceTemplate {
    /// Labels and annotations that each device gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMetadata>,
    /// The device's spec, without what the set itself decides.
    pub spec: DeviceTemplateSpec,
}

/// Labels and annotations that each device gets.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = bounded_map::<64, 63>)]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = bounded_map::<64, 4096>)]
    pub annotations: BTreeMap<String, String>,
}

/// A device's spec without dpu and dpuSelector (the set selects) and without the VF's index (perVf counts).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::queues_below_msix())]
#[x_kube(validation = rules::always_needs_hotplug())]
pub struct DeviceTemplateSpec {
    /// The function that each device stands for.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub function: FunctionTemplate,
    /// MAC address, unicast; useful only in a set of one device. If absent, each device gets its own.
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
    /// Features to offer, by their names in the virtio specification. If absent, the controller's default.
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

/// The function of each device of a set. Exactly one member is present.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::one_function())]
pub struct FunctionTemplate {
    /// A PF that the agent plugs into the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub hotplug: Option<HotplugFunction>,
    /// A PF that the firmware makes: the same one on each DPU.
    #[serde(default, rename = "static", skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub static_: Option<StaticFunction>,
    /// A VF; perVf says which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub vf: Option<VfTemplate>,
}

/// A VF of a set with perVf, which says of which PF and counts the VFs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VfTemplate {
    /// Index of the static PF; if given, the same as perVf.pf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 255))]
    pub pf: Option<u16>,
    /// Whether drivers of virtio 0.95 can use the functions too.
    #[serde(default)]
    pub transitional: bool,
}

/// What the set controller found. Written by the set controller.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VirtnetDeviceSetStatus {
    /// The metadata.generation that this status is about; -1 until a controller has seen the object.
    #[serde(default = "never_observed")]
    #[schemars(range(min = -1))]
    pub observed_generation: i64,
    /// How many devices of the set exist.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2147483647))]
    pub replicas: i32,
    /// How many of them have a DPU.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2147483647))]
    pub bound_replicas: i32,
    /// How many of them are Ready.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2147483647))]
    pub ready_replicas: i32,
    /// How many of them have the present template.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2147483647))]
    pub updated_replicas: i32,
    /// The devices' label selector in text form, for scale.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub selector: String,
    /// What is known of the set's state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Conditions,
}

impl Default for VirtnetDeviceSetStatus {
    fn default() -> Self {
        Self {
            observed_generation: NEVER_OBSERVED,
            replicas: 0,
            bound_replicas: 0,
            ready_replicas: 0,
            updated_replicas: 0,
            selector: String::new(),
            conditions: Conditions::new(),
        }
    }
}
