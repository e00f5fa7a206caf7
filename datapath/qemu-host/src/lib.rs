//! A QEMU guest as the host of a DPU in software: [`Bus`] plugs virtio-net functions into its PCIe root ports by QMP, takes them
//! out, and tells what is there.
//!
//! | module | what lives there |
//! |---|---|
//! | `config` | where QEMU is, which root port is which slot, which functions it was started with |
//! | `features` | what QEMU calls each feature of virtio |
//! | `plan` | the steps that plug a function and that clear a slot; pure |
//! | `command_line` | the arguments by which a QEMU that a person starts has a function |
//! | `pci` | QEMU's tree of PCI devices, read |
//! | `state` | what is known of the host, and what changed from one state to the next; pure |
//! | `observe` | that state, asked for |
//! | `operate` | plug, unplug, replace, link: steps done in order, and undone where one fails |
//! | `follow` | the task that keeps a connection and observes when something happened |
//! | `appear` | when a file or folder that is not there may be |
//! | `bus` | the handle on all of it |
//!
//! # The task and its channels
//! [`Bus::start`] spawns one task. It connects to QEMU's monitor, waits for the socket by inotify where it is not there, and
//! on each event of QEMU's observes again what that may have changed. The state is in a [`tokio::sync::watch`], by which
//! operations wait for what they began; whoever wants every change in order asks for [`Bus::watch`]. An operation is a task of
//! its own, so that one whose caller has gone still comes to its end; operations on one slot follow one another, those on
//! several go side by side.
//!
//! # What QEMU keeps to itself
//! The control queue never reaches a vhost-user back end. What a driver does by it shows as [`RxFilter`]. Whether a driver is up
//! is in the device status, which the back end is told and QEMU's monitor is not: `x-query-virtio-status` exists and is never used
//! here, as it ends the whole guest in some versions. So a back end that has seen a driver come or go calls [`Bus::look`].
//!
//! # What is where
//! A function's slot is the root port that it is in, whatever made it. What this crate made bears names that are told from
//! the slot (`virtnet-s3` and, behind it, `virtnet-s3-net` and `virtnet-s3-chr`), so that it is found again by another process, and what a plug
//! that was cut off has left is known for what it is: a character device whose slot has no function.

mod appear;
mod bus;
mod command_line;
mod config;
mod features;
mod follow;
mod observe;
mod operate;
mod pci;
mod plan;
mod state;

pub use bus::{Bus, BusWatch};
pub use command_line::{Presented, arguments};
pub use config::{Backend, ConfigError, HostConfig};
pub use operate::BusError;
pub use plan::{Step, Unfit};
pub use state::{BusEvent, Connection, HostState, RxFilter, Seen, Unplugging};
