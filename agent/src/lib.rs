//! The agent of one DPU: observe, plan, execute, report.

mod agent;
mod api;
mod busy;
mod clock;
mod desired;
mod devices;
mod dpu_object;
mod events;
mod execute;
mod gather;
pub mod http;
mod in_time;
mod key;
mod lease;
mod metrics;
mod observe;
mod plan;
pub mod preview;
mod reconciler;
mod report;
mod retry;
mod status;
mod suspects;
mod words;

pub use agent::{Config, LEASE_NAMESPACE, run};
pub use clock::Clock;
pub use desired::*;
pub use metrics::Metrics;
pub use observe::*;
pub use plan::*;
pub use status::device_status;
pub use words::chain;
