//! A DPU in software: [`SoftDevice`] is the device of a controller whose functions are back ends of vhost-user in this process, whose
//! representors are TAPs, and whose hosts are QEMU guests, or nothing but sockets.
//!
//! | module | what lives there |
//! |---|---|
//! | `config` | [`SoftConfig`]: the file that says which hosts there are, and how large the device is |
//! | `profile` | what firmware would have of it |
//! | `table` | what is known of functions and SFs, and who is told of it; no waiting in there |
//! | `device` | [`SoftDevice`]: what a controller asks for, done |
//! | `slot` | functions in slots: plugged, unplugged, replaced |
//! | `links` | functions' links, which follow their representors |
//! | `vf` | VFs: opened at the start, in the table as long as their guest has them |
//! | `hosts` | what hosts and drivers do by themselves, taken in |
//! | `queues` | a function's queues as a controller tells of them |
//!
//! # Hosts, and sockets
//! Where a host is configured, a hot-plugged function appears on its bus by QEMU's monitor, and a function that is to have another MAC or
//! MTU is taken out of its slot and put in anew. Where none is, whoever runs a virtual machine connects its front end to the
//! function's socket, which the controller reports; then nothing is known of a bus, and a function is reached when its
//! driver is up. Static PFs are always of the latter kind: QEMU is started with them.
//!
//! So are VFs, and QEMU wants their back ends before any guest makes a VF. What is behind each VF that there can be listens from the start,
//! and offers all that it can, since QEMU's arguments say what of that the guest sees. When the bus tells that the guest has made
//! it, the controller learns of the VF, with the settings that QEMU has for it, and gives it an SF, whose representor it
//! has for as long as it is there.
//!
//! # Tasks
//! There is one for each host, which takes in what its bus tells, and one for each function, which takes in what its driver does. They
//! hold the device weakly and end with it. An operation is a task of its own: it comes to its end though whoever asked for it is gone. Those
//! on one function follow one another.

mod config;
mod device;
mod hosts;
mod links;
mod profile;
mod queues;
mod slot;
mod table;
mod vf;

pub use config::{ConfigError, Mistake, SoftConfig};
pub use device::{SoftDevice, StartError};
pub use virtnet_soft::{Carries, Program};
