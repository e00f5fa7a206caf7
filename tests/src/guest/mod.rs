//! Real guests of real QEMUs, as tests drive them: [`Guest`], with the [`console`] over which commands are run in it, the
//! [`functions`] that it sees, and [`backend`]s that stand behind functions and move no packets.

pub mod backend;
pub mod console;
pub mod functions;
mod machine;

pub use console::Done;
pub use machine::{Guest, Machine, qemu};
