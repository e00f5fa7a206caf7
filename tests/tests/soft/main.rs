//! `virtnetd --device soft` with real guests of real QEMUs: functions come and go by its socket, drivers take them, and packets pass
//! between guests and representors, while processes are killed.

#![expect(clippy::unwrap_used, reason = "a test that can not go on panics")]

mod common;
mod declared;
mod hotplug;
mod lab;
mod many;
mod offloads;
mod sockets;
mod traffic;
mod vfs;
