//! The controller's engine on a simulated DPU, seen through the model's traits and moved by the levers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod common;
mod configured;
mod faults;
mod generations;
mod identity;
mod invariants;
mod queues;
mod random;
mod refusals;
mod survival;
mod switch;
mod vfs;
