//! What the tests that cross crates share: [`faults`] and [`api_faults`] that strike at a seed's command, and the [`world`]
//! of an API, an agent and a simulated DPU on one thread.

pub mod api_faults;
pub mod faults;
pub mod oracle;
pub mod scenario;
pub mod world;
