//! `virtnetd` over a simulated DPU: the parent runs in the test's own process, workers are the program that was built.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod clients;
mod common;
mod ends;
mod inside;
mod program;
mod recovery;
mod store;
mod survival;
mod update;
