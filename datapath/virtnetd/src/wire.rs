//! What parent and worker say to each other, beside the methods of a controller, which the parent asks.

use std::fmt;

use serde::{Deserialize, Serialize};
use virtnet_controller::{DeviceEvent, DeviceState, Emulation, Place, SfKey};
use virtnet_model::{Change, Moderation, PfId, SfNumber, Uplink, VfId};

/// Parent to worker: begin to serve; takes a [`Start`].
pub(crate) const START: &str = "start";
/// Parent to worker, before it begins: can you serve this virtnet.conf? Takes its text and answers with null.
pub(crate) const CHECK: &str = "check";
/// Parent to worker: whether a live update runs; takes a bool.
pub(crate) const UPDATING: &str = "updating";
/// Parent to worker: end in good order; takes a [`Stop`](virtnet_controller::Stop) as a [`End`].
pub(crate) const END: &str = "end";
/// Parent to worker: are you there?
pub(crate) const PING: &str = "ping";
/// Worker to parent: the state of the device, a [`DeviceState`]. What changes from then on is told by [`EVENT`] with the number
/// of this watch; an earlier watch ends.
pub(crate) const WATCH: &str = "watch";
/// Parent to worker, told: a [`Told`].
pub(crate) const EVENT: &str = "event";
/// Worker to parent: do something to the device; takes a [`DeviceCall`].
pub(crate) const DEVICE: &str = "device";
/// Worker to parent: the queues of the function at a [`Place`], as [`QueueState`](virtnet_model::QueueState)s.
pub(crate) const QUEUES: &str = "device.queues";
/// Worker to parent: what is kept of VFs to come.
pub(crate) const RECALL: &str = "recall";
/// Worker to parent: keep this of a VF to come; takes a [`Keep`].
pub(crate) const KEEP: &str = "keep";

/// With what a worker begins.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The text of virtnet.conf, which the worker reads as it understands it.
    pub(crate) conf: String,
    /// From which level on it logs, as a filter of tracing; `None`: from the same as at the start.
    pub(crate) log: Option<String>,
}

/// How a worker ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct End {
    /// The service ends too, and hot-plugged functions with it.
    pub(crate) with_service: bool,
}

/// Begins a watch of this number.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Watch {
    pub(crate) number: u64,
}

/// The state when the watch began.
pub(crate) type Watched = DeviceState;

/// What a watch tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    /// The number of the watch.
    pub(crate) watch: u64,
    /// What is so now; `None`: the watch has ended with the device.
    pub(crate) event: Option<DeviceEvent>,
}

/// An operation of [`DeviceModel`](virtnet_controller::DeviceModel).
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum DeviceCall {
    CreateSf(Uplink, SfNumber),
    DestroySf(SfKey),
    Plug(u16, Emulation),
    Unplug(u16),
    Configure(Place, Emulation),
    Moderate(Place, Moderation),
}

impl fmt::Display for DeviceCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateSf(uplink, number) => write!(f, "make SF {number} on {uplink}"),
            Self::DestroySf(sf) => write!(f, "destroy {sf}"),
            Self::Plug(slot, emulation) => write!(f, "plug {} into slot {slot}", emulation.settings.mac),
            Self::Unplug(slot) => write!(f, "unplug from slot {slot}"),
            Self::Configure(place, _) => write!(f, "configure {place}"),
            Self::Moderate(place, _) => write!(f, "moderate the interrupts of {place}"),
        }
    }
}

/// What is to be known of a VF to come by the next worker; an empty change: nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Keep {
    pub(crate) pf: PfId,
    pub(crate) vf: VfId,
    pub(crate) change: Change,
}

/// What is kept of all of them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept(#[serde(with = "virtnet_model::pairs")] pub(crate) virtnet_controller::Prepared);
