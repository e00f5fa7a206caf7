//! The operator over small fleets: simulated DPUs with an agent each, on the embedded API under a paused clock and on a real
//! kube-apiserver in real time. In one program, so that what waits for real time waits together.

#![expect(clippy::unwrap_used, reason = "the helpers of tests panic to fail as the tests themselves do")]

mod binder;
mod leading;
mod liveness;
mod macs;
mod orders;
mod sets;
mod turmoil;
