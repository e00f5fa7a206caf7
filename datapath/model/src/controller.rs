//! The trait [`Controller`]: a DPU's virtio-net controller, and what is asked of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    Events, Features, Function, FunctionId, Limits, Mac, Mtu, PartError, PfId, QueueSize, SfNumber,
    SubFunction, Uplink, VfId, Vuid,
};

/// A hot-plug: what `virtnet hotplug` takes (the guide, section 1.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HotplugRequest {
    /// The port to make the SF on.
    pub uplink: Uplink,
    /// The MAC, fixed before the call: it is the function's identity.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: Mtu,
    /// Virtqueues, the control queue included.
    pub max_queues: u16,
    /// Descriptors a queue.
    pub queue_size: QueueSize,
    /// MSI-X vectors; `None`: the firmware's.
    pub num_msix: Option<u16>,
    /// Features to offer; `None`: the controller's default.
    pub features: Option<Features>,
    /// Make it usable by legacy drivers.
    pub transitional: bool,
    /// The SF's number; `None`: the next free from 2000.
    pub sf_number: Option<SfNumber>,
    /// Which of several hosts; `None`: the first.
    pub host: Option<String>,
}

impl HotplugRequest {
    /// One on the first port, with the default MTU, and all else as the firmware and the controller have it.
    pub fn new(mac: Mac, max_queues: u16, queue_size: QueueSize) -> Self {
        Self {
            uplink: Uplink::P0,
            mac,
            mtu: Mtu::DEFAULT,
            max_queues,
            queue_size,
            num_msix: None,
            features: None,
            transitional: false,
            sf_number: None,
            host: None,
        }
    }
}

/// Names a function so that no other can be meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Target {
    /// A hot-plugged PF. All three must agree with one function, or nothing is done: a VUID alone may by now be
    /// another function in the same slot.
    HotPlug {
        /// The slot's id.
        vuid: Vuid,
        /// The function's present MAC.
        mac: Mac,
        /// The number of its SF.
        sf: SfNumber,
    },
    /// A static PF, by its index.
    Static(PfId),
    /// A VF, by its PF's index and its own. Also one that the host has not made yet.
    Vf(PfId, VfId),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HotPlug { vuid, mac, sf } => write!(f, "{vuid} (MAC {mac}, SF {sf})"),
            Self::Static(pf) => fmt::Display::fmt(&FunctionId::pf(*pf), f),
            Self::Vf(pf, vf) => fmt::Display::fmt(&FunctionId::vf(*pf, *vf), f),
        }
    }
}

/// A modification: what `virtnet modify … device` takes (the guide, section 1.1.2). `None` leaves a setting as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Change {
    /// A new MAC.
    pub mac: Option<Mac>,
    /// A new MTU in bytes.
    pub mtu: Option<Mtu>,
    /// The features to offer from now on.
    pub features: Option<Features>,
    /// MSI-X vectors.
    pub num_msix: Option<u16>,
    /// Descriptors a queue.
    pub queue_size: Option<QueueSize>,
}

impl Change {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mac, mtu, features, num_msix, queue_size } = self;
        let mut parts = Vec::new();
        parts.extend(mac.map(|mac| format!("MAC {mac}")));
        parts.extend(mtu.map(|mtu| format!("MTU {mtu}")));
        parts.extend(features.as_ref().map(|features| format!("features {features}")));
        parts.extend(num_msix.map(|msix| format!("MSI-X {msix}")));
        parts.extend(queue_size.map(|size| format!("queue size {size}")));
        f.write_str(&parts.join(", "))
    }
}

/// All that a controller reports at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControllerState {
    /// The device table.
    #[serde(with = "crate::pairs")]
    pub functions: BTreeMap<FunctionId, Function>,
    /// Settings accepted for VFs that the host has not made yet, applied when it does.
    #[serde(with = "crate::pairs")]
    pub prepared: BTreeMap<(PfId, VfId), Change>,
    /// MACs of hot-plugs that were asked for and have not ended. Their functions may yet appear, also where who asked is
    /// gone.
    #[serde(default)]
    pub plugging: BTreeSet<Mac>,
    /// What firmware and configuration allow.
    pub limits: Limits,
    /// The version of the running controller.
    pub version: String,
    /// A live update is running: hot-plug, unplug and VF creation are refused until it ends.
    pub updating: bool,
    /// A setting changed that the controller reads only at start, and which: it must be restarted.
    pub restart_required: Option<String>,
}

/// A DPU's virtio-net controller: makes, changes and removes functions, each with its SF.
///
/// Calls are answered when their effect can be observed. A call that fails changed nothing.
#[async_trait]
pub trait Controller: Send + Sync + fmt::Debug {
    /// The device table and the limits.
    async fn observe(&self) -> Result<ControllerState, PartError>;

    /// Makes an SF, and a function over it in a free slot. Refused where the MAC or the SF number is in use.
    async fn hotplug(&self, request: &HotplugRequest) -> Result<Function, PartError>;

    /// Removes a hot-plugged function and its SF; refused for any other.
    async fn unplug(&self, target: &Target) -> Result<(), PartError>;

    /// Changes a function's settings. For a VF that is not there: replaces the settings it will be made with, so that an
    /// empty change takes them back.
    async fn modify(&self, target: &Target, change: &Change) -> Result<(), PartError>;

    /// Functions come, go and change; the host's driver binds and unbinds.
    fn events(&self) -> Events;
}

impl ControllerState {
    /// The function that the target names, if all of the target's identity agrees with it.
    pub fn find(&self, target: &Target) -> Option<&Function> {
        match target {
            Target::Static(pf) => self.functions.get(&FunctionId::pf(*pf)),
            Target::Vf(pf, vf) => self.functions.get(&FunctionId::vf(*pf, *vf)),
            Target::HotPlug { vuid, mac, sf } => self.functions.values().find(|function| {
                function.vuid == *vuid
                    && function.mac == *mac
                    && function.sf.as_ref().map(|SubFunction { number, .. }| number) == Some(sf)
            }),
        }
    }
}
