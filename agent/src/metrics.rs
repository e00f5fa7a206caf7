//! What the agent counts, for `/metrics`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use virtnet_telemetry::{Probes, Pulse};

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
    /// When the loop last turned.
    pub pulse: Pulse,
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
    /// What is served of them. The agent is ready once the DPU was observed, which waits for the first complete list of
    /// devices.
    pub fn probes(&self) -> Probes {
        let mut registry = Registry::default();
        self.register(&mut registry);
        let observations = self.observations.clone();
        let readiness = move || match observations.get() {
            0 => Err("the devices were not listed yet, or the DPU not observed"),
            _ => Ok(()),
        };
        Probes::new(registry, self.pulse.clone(), readiness)
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
        self.pulse.register(registry);
    }
}
