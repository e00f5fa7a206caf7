//! What the operator counts, for `/metrics`: the same few series however large the fleet is, at most [`SERIES`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use virtnet_client::is_overtaken;
use virtnet_telemetry::{Probes, Pulse};

use crate::fleet::{Fleet, Readiness};

/// The budget: how many series an operator has at most.
pub const SERIES: usize = 80;

/// The counters; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) pulse: Pulse,
    leads: Gauge,
    pub(crate) watch_cuts: Family<KindLabel, Counter>,
    objects: Family<KindLabel, Gauge>,
    devices: Family<StateLabel, Gauge>,
    unreachable: Gauge,
    plans: Family<ControllerLabel, Histogram>,
    requests: Family<RequestLabels, Counter>,
    is_complete: Arc<AtomicBool>,
}

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct KindLabel {
    pub(crate) kind: &'static str,
}

/// How a device stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// Which controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabel {
    controller: &'static str,
}

/// Which controller, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    controller: &'static str,
    result: &'static str,
}

const CONTROLLERS: [&str; 3] = ["binder", "sets", "liveness"];
const RESULTS: [&str; 4] = ["ok", "overtaken", "refused", "failed"];
const STATES: [&str; 4] = ["Ready", "Waiting", "Unknown", "Unbound"];
const KINDS: [&str; 3] = ["VirtnetDeviceSet", "VirtnetDevice", "Dpu"];

impl Default for Metrics {
    /// Every series is there from the start: what begins with its first event has no increase.
    fn default() -> Self {
        let metrics = Self {
            pulse: Pulse::default(),
            leads: Gauge::default(),
            watch_cuts: Family::default(),
            objects: Family::default(),
            devices: Family::default(),
            unreachable: Gauge::default(),
            // From a millisecond to four seconds.
            plans: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 4.0, 7))),
            requests: Family::default(),
            is_complete: Arc::default(),
        };
        for kind in KINDS {
            drop(metrics.objects.get_or_create(&KindLabel { kind }));
        }
        for kind in KINDS.into_iter().chain(["Lease"]) {
            drop(metrics.watch_cuts.get_or_create(&KindLabel { kind }));
        }
        for state in STATES {
            drop(metrics.devices.get_or_create(&StateLabel { state }));
        }
        for controller in CONTROLLERS {
            drop(metrics.plans.get_or_create(&ControllerLabel { controller }));
            for result in RESULTS {
                drop(metrics.requests.get_or_create(&RequestLabels { controller, result }));
            }
        }
        metrics
    }
}

impl Metrics {
    /// What is served of them. An operator is ready once it knows all objects, whether it leads or not.
    #[must_use]
    pub fn probes(&self) -> Probes {
        let mut registry = Registry::default();
        self.register(registry.sub_registry_with_prefix("virtnet_operator"));
        let is_complete = Arc::clone(&self.is_complete);
        let readiness = move || match is_complete.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err("the objects were not listed yet"),
        };
        Probes::new(registry, self.pulse.clone(), readiness)
    }

    /// Whether this operator leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leads.get() == 1
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("leads", "1 where this operator leads", self.leads.clone());
        registry.register("objects", "Objects that are known", self.objects.clone());
        registry.register("devices", "VirtnetDevices by how they stand", self.devices.clone());
        registry.register("dpus_unreachable", "Dpus whose agent is silent", self.unreachable.clone());
        registry.register("plan_duration_seconds", "How long plans take", self.plans.clone());
        registry.register("requests", "Requests to the API, by controller and result", self.requests.clone());
        registry.register("watch_cuts", "Watches that were cut", self.watch_cuts.clone());
        self.pulse.register(registry);
    }

    /// Whether it leads from now on.
    pub(crate) fn lead(&self, leads: bool) {
        self.leads.set(leads.into());
    }

    /// All that there is was listed.
    pub(crate) fn complete(&self) {
        self.is_complete.store(true, Ordering::Relaxed);
    }

    /// Has a controller plan, where it has cause to, and notes how long that took.
    pub(crate) fn timed(&self, controller: &'static str, plan: impl FnOnce() -> bool) {
        let began = Instant::now();
        if plan() {
            self.plans.get_or_create(&ControllerLabel { controller }).observe(began.elapsed().as_secs_f64());
        }
    }

    /// A request of a controller has ended.
    pub(crate) fn ended<T>(&self, controller: &'static str, result: &kube::Result<T>) {
        let result = match result {
            Ok(_) => "ok",
            Err(kube::Error::Api(status)) if is_overtaken(status) => "overtaken",
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => "refused",
            Err(_) => "failed",
        };
        self.requests.get_or_create(&RequestLabels { controller, result }).inc();
    }

    /// Counts what is known.
    pub(crate) fn count(&self, fleet: &Fleet) {
        let (sets, devices, dpus) = (fleet.sets.all(), fleet.devices.all(), fleet.dpus.all());
        for (kind, count) in KINDS.into_iter().zip([sets.len(), devices.len(), dpus.len()]) {
            set(&self.objects.get_or_create(&KindLabel { kind }), count);
        }
        let mut counts = [0; STATES.len()];
        for device in devices.values() {
            let state = match (&device.readiness, device.dpu()) {
                (Readiness::Ready, Some(_)) => 0,
                (Readiness::Not(_), Some(_)) => 1,
                (Readiness::Unknown(_), Some(_)) => 2,
                (_, None) => 3,
            };
            counts[state] += 1;
        }
        for (state, count) in STATES.into_iter().zip(counts) {
            set(&self.devices.get_or_create(&StateLabel { state }), count);
        }
        set(&self.unreachable, dpus.values().filter(|dpu| dpu.is_unknown).count());
    }
}

fn set(gauge: &Gauge, count: usize) {
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}
