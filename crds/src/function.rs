//! Which function a device is: the three sub-objects of `spec.function`, and one enum of them for planning.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::FunctionType;
use crate::limits;
use crate::rules;

/// Where the SF behind a hot-plugged function is made.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Uplink {
    /// The first port.
    P0,
    /// The second port.
    P1,
    /// The bond of both ports.
    Bond,
}

/// The function that the device stands for. Exactly one member is present; none of it can be changed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::one_function())]
pub struct FunctionSpec {
    /// A PF that the agent plugs into the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub hotplug: Option<HotplugFunction>,
    /// A PF that the firmware makes.
    #[serde(default, rename = "static", skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub static_: Option<StaticFunction>,
    /// A VF that the host makes from a static PF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub vf: Option<VfFunction>,
}

/// A hot-plugged PF. All fields are optional.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HotplugFunction {
    /// The port whose SF backs the function; if absent, the bond where the controller runs on one, else p0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<Uplink>,
    /// Whether drivers of virtio 0.95 can use the function too.
    // No default in the schema: inside an atomic map it would make two managers of the same short form conflict.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transitional: bool,
    /// Number of the SF, unique on its port; if absent, the controller chooses one from 2000 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = limits::SF_NUMBER_MIN, max = limits::SF_NUMBER_MAX))]
    pub sf_number: Option<u32>,
    /// Which host of a multi-host DPU gets the function; if absent, the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub host: Option<String>,
}

/// A static PF, made by the firmware's VIRTIO_NET_EMULATION_NUM_PF.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StaticFunction {
    /// Index of the PF, from 0.
    #[schemars(range(min = 0, max = 255))]
    pub pf: u16,
}

/// A VF of a static PF. The host makes it (`sriov_numvfs`); the agent configures it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VfFunction {
    /// Index of the static PF, from 0.
    #[schemars(range(min = 0, max = 255))]
    pub pf: u16,
    /// Index of the VF on its PF, from 0.
    #[schemars(range(min = 0, max = 4095))]
    pub vf: u16,
    /// Whether drivers of virtio 0.95 can use the function too.
    // No default in the schema: inside an atomic map it would make two managers of the same short form conflict.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transitional: bool,
}

/// The same as [`FunctionSpec`], as a choice of one: what planning works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Function {
    /// A hot-plugged PF.
    Hotplug(HotplugFunction),
    /// A static PF.
    Static(StaticFunction),
    /// A VF of a static PF.
    Vf(VfFunction),
}

impl Function {
    /// The type that status and the TYPE column show.
    #[must_use]
    pub fn function_type(&self) -> FunctionType {
        match self {
            Self::Hotplug(_) => FunctionType::HotPlug,
            Self::Static(_) => FunctionType::Static,
            Self::Vf(_) => FunctionType::Vf,
        }
    }
}

/// `spec.function` named no function, or more than one. The API server lets no such object in.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[error("function must have exactly one of hotplug, static and vf; it has {found}")]
pub struct NotOneFunction {
    /// How many of the three were present.
    pub found: usize,
}

impl FunctionSpec {
    /// The one function that the spec names.
    ///
    /// # Errors
    /// [`NotOneFunction`] where none or several members are present.
    pub fn choice(&self) -> Result<Function, NotOneFunction> {
        match (&self.hotplug, &self.static_, &self.vf) {
            (Some(hotplug), None, None) => Ok(Function::Hotplug(hotplug.clone())),
            (None, Some(static_), None) => Ok(Function::Static(static_.clone())),
            (None, None, Some(vf)) => Ok(Function::Vf(vf.clone())),
            (hotplug, static_, vf) => {
                let present = [hotplug.is_some(), static_.is_some(), vf.is_some()];
                Err(NotOneFunction { found: present.into_iter().filter(|found| *found).count() })
            }
        }
    }
}

impl From<Function> for FunctionSpec {
    fn from(function: Function) -> Self {
        match function {
            Function::Hotplug(hotplug) => Self { hotplug: Some(hotplug), ..Self::default() },
            Function::Static(static_) => Self { static_: Some(static_), ..Self::default() },
            Function::Vf(vf) => Self { vf: Some(vf), ..Self::default() },
        }
    }
}
