//! The virtnet.dev API: kinds, validation, conditions and reasons.

#![allow(unreachable_pub, reason = "KubeSchema copies each public struct into the body of a function")]
#![allow(clippy::duplicated_attributes, reason = "each column of a kind is an attribute with parts alike")]

mod common;
mod controller_conf;
mod device;
mod device_status;
mod dpu;
mod dpu_status;
mod feature;
mod function;
mod names;
mod port;
mod reasons;
mod rules;
mod set;
mod tuning;

pub mod conditions;
pub mod crd;
pub mod limits;
pub mod metadata;
pub mod numbers;
pub mod schema;
pub mod validate;
pub mod yaml;

pub use common::{Conditions, DpuSelector, FunctionType, NEVER_OBSERVED, Port};
pub use controller_conf::{ControllerConf, StaticPfConf, VfConf};
pub use device::{VirtnetDevice, VirtnetDeviceSpec, VirtnetDeviceStatus};
pub use device_status::{FunctionStatus, HostStatus, Pending, PortStatus, RepresentorStatus};
pub use dpu::{Dpu, DpuSpec, DpuStatus, FirmwarePolicy, FirmwarePortSpec, FirmwareSpec, HostSpec, SriovSpec};
pub use dpu_status::{
    Allocated, Capacity, FirmwarePortStatus, FirmwareStatus, Generation, PfVfs, PortSfs, UndeclaredFunction,
    Versions,
};
pub use feature::{Feature, UnknownFeature};
pub use function::{
    Function, FunctionSpec, HotplugFunction, NotOneFunction, StaticFunction, Uplink, VfFunction,
};
pub use names::{
    API_VERSION, BOUND_FINALIZER, CATEGORY, FUNCTION_FINALIZER, GROUP, SET_LABEL, VERSION, external_id,
    manager,
};
pub use port::PortSpec;
pub use reasons::{Outlook, Reason};
pub use set::{
    DeviceTemplate, DeviceTemplateSpec, FunctionTemplate, PerVf, Sizing, TemplateMetadata, TwoSizings,
    VfTemplate, VirtnetDeviceSet, VirtnetDeviceSetSpec, VirtnetDeviceSetStatus,
};
pub use tuning::{LinkState, Queues, RebindPolicy};
