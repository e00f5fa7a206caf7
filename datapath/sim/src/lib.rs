//! A DPU and its host in memory: [`Sim`].
//!
//! It has the levers of real hardware and no more. The controller in it is the real engine of `virtnet-controller`,
//! over a device of this crate; Open vSwitch, netdevs, firmware and host are models of what their users can observe.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use virtnet_sim::{Sim, SimConfig};
//!
//! let mut config = SimConfig::default();
//! config.set_firmware(&["VIRTIO_NET_EMULATION_NUM_PF=1"])?;
//! let sim = Sim::new(config);
//! tokio::time::sleep(Duration::from_secs(1)).await;
//! let state = sim.controller().observe().await?;
//! let function = state.functions.values().next().ok_or("no function")?;
//! assert_eq!(function.vuid.as_str(), "VNETS0D0F0");
//! assert!(function.driver.in_use);
//! # Ok(())
//! # }
//! ```
//!
//! # What passes by itself
//! One task per DPU, the clock, lets scheduled things happen: the host boots, finds functions and binds drivers;
//! representors appear and are renamed; services start. Another is the controller's, and one passes on its events.
//!
//! # What survives what
//! | | functions | VFs | SFs | firmware | Open vSwitch |
//! |---|---|---|---|---|---|
//! | the controller restarts | stay | stay | stay | | |
//! | the host reboots | stay, without an address for a while | gone | go to the pool | | |
//! | power cycle | static PFs are new, hot-plugged ones gone | gone | gone | next values in force | the database stays |
//! | Open vSwitch restarts | | | | | ports are numbered anew |

mod config;
mod controller;
mod device;
mod effect;
mod firmware;
mod host;
mod levers;
mod links;
mod queues;
mod shared;
mod sim;
mod switch;
mod world;

pub use config::{SimConfig, Timing};
pub use effect::{Counters, Effect, Hook, Part, When};
pub use firmware::{FirmwareConfig, FirmwareError};
pub use queues::Misuse;
pub use sim::Sim;
