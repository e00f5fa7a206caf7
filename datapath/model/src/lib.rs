//! What a DPU is to the agent: validated newtypes, the state of each part as it is read back, and the traits
//! through which the parts are observed and changed.
//!
//! | trait | the part of a DPU | implemented by |
//! |---|---|---|
//! | [`Controller`] | virtio-net functions and the scalable functions behind them | the engine of `virtnet-controller` |
//! | [`Switch`] | bridges and ports of Open vSwitch | `virtnet-sim`; an OVSDB client |
//! | [`Links`] | representor netdevs | `virtnet-sim`; rtnetlink |
//! | [`Firmware`] | `mlxconfig` values, current and of the next boot | `virtnet-sim`; `mlxconfig` |
//! | [`Host`] | the host that the functions appear in, as far as a DPU can reach it | `virtnet-sim` |
//!
//! Each trait has `observe`, which returns the whole state of its part, a few changes, and `events`, a stream whose
//! items only say that `observe` may now answer something else: whoever misses an event loses nothing by observing.
//!
//! The state of controllers and devices has a JSON form, in which it goes between processes.
//!
//! Nothing here does I/O. A value of one of the newtypes is valid by construction, so nothing downstream checks again.

mod controller;
mod error;
mod events;
mod features;
mod firmware;
mod function;
mod host;
mod limits;
mod links;
mod net;
mod netdevs;
pub mod pairs;
mod pci;
mod queues;
mod sf;
mod switch;

pub use controller::{Change, Controller, ControllerState, HotplugRequest, Target};
pub use error::{ErrorKind, PartError, Refusal};
pub use events::{Changed, Events};
pub use features::{Feature, Features};
pub use firmware::{Firmware, FirmwareState, FirmwareValues};
pub use function::{Function, FunctionId, FunctionKind, HostDriver, SubFunction};
pub use host::{Host, HostPower, HostState};
pub use limits::{Generation, Limits, SfBudget, TransitionalLimits};
pub use links::{Link, LinkChange, Links};
pub use net::{BridgeName, IfName, Mac, Mtu, ParseError, VlanId};
pub use netdevs::Netdevs;
pub use pci::{Bdf, PfId, QueueSize, VfId, Vuid};
pub use queues::{Moderation, PACKET_LENGTHS, PeriodMode, QueueCounters, QueueRole, QueueState, Queues};
pub use sf::{EswitchPort, SfNumber, Uplink, phys_port_name_of, representor_name, sf_of};
pub use switch::{Owner, Port, PortSettings, Switch, SwitchChange, SwitchState};
