//! The agent of one DPU: observe, plan, execute, report.

mod agent;
mod api;
mod busy;
mod desired;
mod devices;
mod dpu_object;
mod execute;
mod gather;
mod key;
mod lease;
mod macs;
mod metrics;
mod observe;
mod plan;
pub mod preview;
mod reconciler;
mod report;
mod retry;
mod rivals;
mod service;
mod statistics;
mod status;
mod suspects;
mod unreached;

pub use agent::{Config, run};
pub use desired::*;
pub use metrics::{Metrics, StepLabels};
pub use observe::*;
pub use plan::*;
pub use service::ControllerKind;
pub use statistics::Statistics;
pub use status::device_status;
pub use unreached::Unreached;
pub use virtnet_client::{Clock, chain};
