//! What the tests that cross crates share: [`faults`] and [`api_faults`] that strike at a seed's command, and the [`world`]
//! of an API, an agent and a simulated DPU on one thread; and a real [`control_plane`] of
//! Kubernetes, to which [`differential`] holds the embedded API.

pub mod api_faults;
pub mod control_plane;
pub mod differential;
pub mod faults;
mod identities;
pub mod oracle;
pub mod scenario;
pub mod world;
