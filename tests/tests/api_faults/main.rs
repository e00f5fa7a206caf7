//! The agent of a simulated DPU under faults of the API: nothing is lost, nothing is written twice, and the DPU's functions
//! are not touched for any of it.

#![expect(clippy::unwrap_used, reason = "the helpers of tests panic to fail as the tests themselves do")]

mod answers;
mod clock;
mod restart;
mod rig;
mod token;
mod watches;
