//! Functions in software, driven by a driver of the tests' own over real TAPs. Needs root.

#![expect(clippy::unwrap_used, reason = "helpers of tests, whose failure is the test's")]

mod control;
mod fuzz;
mod handover;
mod hostile;
mod kills;
mod support;
mod testpmd;
mod traffic;
