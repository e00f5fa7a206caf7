//! [`Pulse`]: when a loop last turned, so that one that hangs can be told from one with nothing to do.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

/// The turns of a loop; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// When it last turned, in seconds since the epoch.
    turned: Gauge<u64, AtomicU64>,
    /// The same by a clock that never jumps, for who judges how long ago that was.
    turned_at: Arc<Mutex<Option<Instant>>>,
}

impl Pulse {
    /// How often a loop turns at least.
    pub const BEAT: Duration = Duration::from_secs(10);

    /// The loop turned, at this time of day.
    pub fn turn(&self, now: Timestamp) {
        self.turned.set(u64::try_from(now.as_second()).unwrap_or_default());
        *self.turned_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago the loop last turned; `None`: it has not yet.
    #[must_use]
    pub fn since_turn(&self) -> Option<Duration> {
        let turned_at = *self.turned_at.lock().unwrap_or_else(PoisonError::into_inner);
        turned_at.map(|at| at.elapsed())
    }

    /// Registers `turned_timestamp_seconds`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("turned_timestamp_seconds", "When the loop last turned", self.turned.clone());
    }
}
