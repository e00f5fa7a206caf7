//! The virtio-net controller's engine over a device model.
//!
//! [`Engine`] is the controller: it keeps a device table, decides identities and limits, and implements
//! [`virtnet_model::Controller`]. What hardware, firmware and the kernel do for it is behind [`DeviceModel`].
//!
//! One task owns the device: it absorbs what the device tells, answers requests one after the other, and between them
//! gives functions that the host or firmware made (static PFs, VFs) their settings and SFs. A caller that goes away
//! stops nothing. The table keeps no truth of its own but the settings that wait for VFs: an engine that starts over a
//! living device finds the same functions under the same names, and clears away what a stop in the middle left.
//!
//! | module | |
//! |---|---|
//! | `device` | the trait [`DeviceModel`] and the state of a device |
//! | `config` | what a controller is configured with |
//! | [`conf`] | the file that says so, `virtnet.conf` (pure) |
//! | `advice` | what a configuration would come to on a device (pure) |
//! | `limits` | firmware and configuration → [`virtnet_model::Limits`] |
//! | `table` | the device table (pure) |
//! | `memory` | what must outlive a controller and no device tells |
//! | `ids` | VUIDs, indices, MACs |
//! | `pool` | SF numbers and budgets (pure) |
//! | `admit`, `modify` | what is refused, and why (pure) |
//! | `jobs` | what a device needs done without being asked (pure) |
//! | `engine`, `task` | the handle, and the task behind it |

mod admit;
mod advice;
pub mod conf;
mod config;
mod device;
mod engine;
#[cfg(test)]
mod fixture;
mod ids;
mod jobs;
mod limits;
mod memory;
mod modify;
mod notify;
mod pool;
mod table;
mod task;

pub use advice::advice;
pub use config::{EngineConfig, SfPool, StaticPfDefaults, UplinkMode, VfDefaults, VfMacs};
pub use device::{
    DeviceEvent, DeviceModel, DeviceState, DeviceWatch, Emulated, Emulation, Place, Profile, Settings, Sf,
    SfKey,
};
pub use engine::{Engine, Stop};
pub use memory::{Forgetful, Memory, Prepared};
pub use notify::Notifier;
