//! `virtnet` as a user has it: each of its commands is run against the controller of a simulated DPU.
//!
//! `tests/golden` has what they print; `UPDATE_GOLDEN=1` writes it anew.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic to fail as the tests themselves do")]

mod change;
mod later;
mod show;
mod usage;
mod world;
