//! The controller's engine on a simulated DPU, seen through the model's traits and moved by the levers.

mod common;
mod generations;
mod identity;
mod invariants;
mod refusals;
mod survival;
mod vfs;
