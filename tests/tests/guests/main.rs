//! The bus of a host, driven against real guests of real QEMUs: what is plugged is looked at in the guest. Behind the functions
//! is a back end of the tests' own, which moves no packets.

#![expect(clippy::unwrap_used, reason = "a test that can not go on panics")]

mod common;
mod functions;
mod kept;
mod killed;
mod qmp;
mod vfs;
