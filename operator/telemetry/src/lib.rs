//! What every program of virtnet tells of itself.
//!
//! | module | what lives there |
//! |---|---|
//! | `http` | [`serve`]: `/healthz`, `/readyz` and `/metrics` |
//! | `logs` | [`LogArguments`]: what is logged, and how, to the standard error; [`LogLevel`] changes it |
//! | `pulse` | [`Pulse`]: when a loop last turned |

mod http;
mod logs;
mod pulse;

pub use http::{Probes, serve};
pub use logs::{LogArguments, LogLevel};
pub use pulse::Pulse;
