//! The virtnet.dev API: kinds, validation, conditions and reasons. No client, and nothing asynchronous.
//!
//! Three kinds, of which `crdgen` writes the definitions to `manifests/crds/` and the reference to `docs/reference.md`:
//!
//! - [`VirtnetDevice`] (namespaced, `vnd`): one virtio-net function of a DPU and its Open vSwitch port.
//! - [`Dpu`] (cluster scoped): a DPU, its wanted configuration and what its agent found.
//! - [`VirtnetDeviceSet`] (namespaced, `vnds`): many devices from one template.
//!
//! The columns of `kubectl get` read what was found, not what is wanted: TYPE, PF, VF, BDF, MAC and VUID are those of
//! `status.function`, which is absent until the agent may have made the function. Only DPU is from the spec.
//!
//! Who writes what, each by server-side apply with a field manager of its own ([`manager`]): people and GitOps the
//! specs; the binder `spec.dpu` where it was empty; the set controller the devices of its sets; the agent the status
//! of its devices and of its `Dpu`; the liveness controller the condition `Ready` of a silent DPU's devices.
//!
//! [`validate`] judges manifests offline as a strict API server would, by [`yaml`], [`metadata`] and [`schema`].
//! [`conditions`] merges conditions, and [`Reason`] is the one table of their reasons.

#![allow(unreachable_pub, reason = "KubeSchema copies each public struct into the body of a function")]
#![allow(clippy::duplicated_attributes, reason = "each column of a kind is an attribute with parts alike")]

mod common;
mod controller_conf;
mod device;
mod device_status;
mod dpu;
mod dpu_status;
mod expand;
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
pub mod reference;
pub mod schema;
pub mod validate;
pub mod yaml;

pub use common::{Conditions, DpuSelector, FunctionType, NEVER_OBSERVED, Port};
pub use controller_conf::{ControllerConf, StaticPfConf, VfConf};
pub use device::{VirtnetDevice, VirtnetDeviceSpec, VirtnetDeviceStatus};
pub use device_status::{FunctionStatus, HostStatus, Pending, PortStatus, RepresentorStatus};
pub use dpu::{
    BridgeSpec, Dpu, DpuSpec, DpuStatus, FirmwarePolicy, FirmwarePortSpec, FirmwareSpec, HostSpec, SriovSpec,
    SwitchSpec,
};
pub use dpu_status::{
    Allocated, Capacity, FirmwarePortStatus, FirmwareStatus, Generation, PfVfs, PortSfs, UndeclaredFunction,
    Versions,
};
pub use expand::{Member, fitting_name};
pub use feature::{Feature, UnknownFeature};
pub use function::{
    Function, FunctionSpec, HotplugFunction, NotOneFunction, StaticFunction, Uplink, VfFunction,
};
pub use names::{
    API_VERSION, BOUND_FINALIZER, CATEGORY, FUNCTION_FINALIZER, GROUP, LEASE_NAMESPACE, MAC_LABEL_PREFIX,
    REVISION_ANNOTATION, SET_LABEL, VERSION, external_id, mac_label, manager, noted_mac,
};
pub use port::PortSpec;
pub use reasons::{Outlook, Reason};
pub use set::{
    DeviceTemplate, DeviceTemplateSpec, FunctionTemplate, OnDpuLoss, PerVf, Sizing, TemplateMetadata,
    TwoSizings, VfTemplate, VirtnetDeviceSet, VirtnetDeviceSetSpec, VirtnetDeviceSetStatus,
};
pub use tuning::{LinkState, Queues, RebindPolicy};
