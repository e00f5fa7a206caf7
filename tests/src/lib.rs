//! What the tests that cross crates share: [`faults`] and [`api_faults`] that strike at a seed's command, and the [`world`]
//! of an API, an agent and a simulated DPU on one thread; a [`fleet`] of more of those; a [`faulty_way`] to any API whose faults a test steers; a real
//! [`control_plane`] of Kubernetes, to which [`differential`] holds the embedded API, its [`kubectl`], and the project's
//! [`manifests`] on it; the [`api_counters`] of its server; a [`cluster`] of all that with agents as [`programs`] of their own;
//! real [`guest`]s of real QEMUs; the [`session`]s with kubectl that the documents show, and the browser, [`chromium`], in which the page is looked at.

pub mod api_counters;
pub mod api_faults;
pub mod chromium;
pub mod cluster;
pub mod control_plane;
pub mod differential;
pub mod faults;
pub mod faulty_way;
pub mod fleet;
pub mod fuzz;
pub mod guest;
mod identities;
pub mod kubectl;
pub mod manifests;
pub mod open_vswitch;
pub mod oracle;
pub mod ovsdb_wire;
pub mod ports;
pub mod programs;
pub mod real_world;
pub mod scenario;
pub mod session;
pub mod soft;
pub mod turmoil;
pub mod world;
