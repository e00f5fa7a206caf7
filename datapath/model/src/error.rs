//! Why a part of the DPU did not do what was asked: [`PartError`], with [`Refusal`] for what a person can act on.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A call to a part of the DPU failed and changed nothing.
///
/// The text says what was being done, to what, and why it failed; a cause below is in [`Error::source`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PartError {
    /// What to do about it.
    pub kind: ErrorKind,
    /// One line, for a person.
    pub message: String,
    /// The cause, where there is one.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl PartError {
    /// The part understood and refused.
    pub fn refused(refusal: Refusal, message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Refused(refusal), message: message.into(), source: None }
    }

    /// The part could not be reached.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unavailable, message: message.into(), source: None }
    }

    /// The part was reached and failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Failed, message: message.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// The refusal, where it is one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.kind {
            ErrorKind::Refused(refusal) => Some(refusal),
            ErrorKind::Unavailable | ErrorKind::Failed => None,
        }
    }
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The request can't be met as things are; trying again helps only when they change.
    Refused(Refusal),
    /// The part can't be reached; it is tried again when it can.
    Unavailable,
    /// It failed in some other way; it is tried again after a while.
    Failed,
}

/// Why a part refused. One variant for each thing that a person or the agent would do differently about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// VIRTIO_NET_EMULATION_ENABLE is 0.
    EmulationDisabled,
    /// Every slot of the emulated switch is taken, or there is none.
    NoFreeSlot,
    /// PF_TOTAL_SF of the port is spent.
    SfExhausted,
    /// The wanted SF number is in use on the port.
    SfNumberInUse,
    /// Another function has the MAC.
    MacInUse,
    /// No function is what the target names.
    NoSuchFunction,
    /// No PF of this index can have VFs, or the VF's index is above NUM_VF.
    NoSuchVf,
    /// The uplink is not there in the present LAG configuration.
    NoSuchUplink,
    /// Only hot-plugged functions can be unplugged.
    NotHotPlugged,
    /// The host's driver has the function: `Virtio driver should not be loaded`.
    DriverLoaded,
    /// The MTU of a static PF can't be changed: `MTU is invalid`.
    MtuFixed,
    /// The MSI-X of a PF can't be changed in this generation.
    MsixFixed,
    /// A machine was started with what the function presents.
    MachineRuns,
    /// More virtqueues than MSI-X vectors and the device's maximum allow.
    QueuesAboveLimit,
    /// More MSI-X vectors than firmware gives.
    MsixAboveLimit,
    /// A feature is wanted that is not offered.
    FeatureUnsupported,
    /// Transitional functions of this kind are not to be had.
    TransitionalUnsupported,
    /// A live update is running.
    Updating,
    /// The function is being moved.
    Migrating,
    /// The controller's generation has no such thing.
    NotInGeneration,
    /// The bridge is not there.
    BridgeNotFound,
    /// A port of this name is someone else's.
    PortConflict,
    /// The netdev is not there, or is not what its name says.
    NoSuchLink,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
