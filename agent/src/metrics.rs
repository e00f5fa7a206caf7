//! What the agent counts, for `/metrics`.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

/// The counters; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Events of the watch of devices: what a list had and what changed since.
    pub watch_events: Counter,
    /// Observations of the whole DPU.
    pub observations: Counter,
    /// Steps that ended, by what they did and how they ended.
    pub steps: Family<StepLabels, Counter>,
    /// Transactions sent to Open vSwitch.
    pub transactions: Counter,
    /// Writes of a device's status.
    pub status_writes: Counter,
    /// Devices of this DPU.
    pub devices: Gauge<i64, std::sync::atomic::AtomicI64>,
    /// Devices that are Ready.
    pub ready: Gauge<i64, std::sync::atomic::AtomicI64>,
    /// When the loop last turned, in seconds since the epoch.
    pub turned: Gauge<u64, AtomicU64>,
    /// The same by a clock that never jumps, for who judges how long ago that was.
    turned_at: Arc<Mutex<Option<Instant>>>,
}

/// Labels of a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StepLabels {
    /// What it did: the reason of its Event.
    pub step: &'static str,
    /// `ok` or `failed`.
    pub result: &'static str,
}

impl Metrics {
    /// The loop turned, at this time of day.
    pub(crate) fn turn(&self, now: Timestamp) {
        self.turned.set(u64::try_from(now.as_second()).unwrap_or_default());
        *self.turned_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago the loop last turned; `None`: it has not yet.
    pub(crate) fn since_turn(&self) -> Option<Duration> {
        let turned_at = *self.turned_at.lock().unwrap_or_else(PoisonError::into_inner);
        turned_at.map(|at| at.elapsed())
    }

    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("virtnet_agent");
        registry.register("watch_events", "Events of the watch of devices", self.watch_events.clone());
        registry.register("observations", "Observations of the whole DPU", self.observations.clone());
        registry.register("steps", "Steps that ended, by kind and result", self.steps.clone());
        registry.register(
            "switch_transactions",
            "Transactions sent to Open vSwitch",
            self.transactions.clone(),
        );
        registry.register("status_writes", "Writes of a device's status", self.status_writes.clone());
        registry.register("devices", "Devices of this DPU", self.devices.clone());
        registry.register("devices_ready", "Devices that are Ready", self.ready.clone());
        registry.register("turned_timestamp_seconds", "When the loop last turned", self.turned.clone());
    }
}
