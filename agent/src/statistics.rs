//! [`Statistics`]: what went through the queues of this DPU's functions, as metrics. The controller is asked when they are served, and at
//! no other time.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::iter;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use virtnet_model::{Function, PACKET_LENGTHS, QueueCounters, QueueRole, QueueState, Queues};
use virtnet_telemetry::Probes;

/// How many functions are asked for at once.
const AT_ONCE: usize = 8;
/// How long the controller is asked for: half of what Prometheus waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the functions' queues have counted; clones share it.
#[derive(Clone)]
pub struct Statistics {
    controller: Arc<dyn Queues>,
    last: Arc<Mutex<Counted>>,
}

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statistics").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Counted {
    queues: Vec<(Labels, QueueCounters)>,
    /// Functions that a driver has and that the controller told nothing of.
    untold: usize,
}

/// Labels of a queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct Labels {
    vuid: String,
    representor: String,
    queue: u16,
    /// What the host does by it: `receive`, `transmit` or `control`.
    role: &'static str,
}

impl Statistics {
    /// Those of the functions of a controller.
    pub fn new(controller: Arc<dyn Queues>) -> Self {
        Self { controller, last: Arc::default() }
    }

    /// Serves them among what is served.
    pub fn serve_with(&self, probes: &mut Probes) {
        self.register(&mut probes.registry);
        let statistics = self.clone();
        probes.refresh = Box::new(move || {
            let statistics = statistics.clone();
            Box::pin(async move { statistics.refresh().await })
        });
    }

    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.sub_registry_with_prefix("virtnet_function").register_collector(Box::new(self.clone()));
    }

    /// Asks the controller, for five seconds at most.
    pub async fn refresh(&self) {
        // Where it is not reached nothing is known, not even of how many functions.
        let mut counted = Counted::default();
        let ask = async {
            let state = match self.controller.observe().await {
                Ok(state) => state,
                Err(error) => return tracing::debug!("asking for the functions: {error}"),
            };
            let functions: Vec<_> =
                state.functions.into_values().filter(|function| function.driver.in_use).collect();
            counted.untold = functions.len();
            let mut answers = iter(functions)
                .map(|function| async move { self.of(&function).await })
                .buffer_unordered(AT_ONCE);
            while let Some(queues) = answers.next().await {
                if let Some(queues) = queues {
                    counted.untold -= 1;
                    counted.queues.extend(queues);
                }
            }
        };
        // What was told until then is served.
        let _ = tokio::time::timeout(PATIENCE, ask).await;
        counted.queues.sort_by(|(a, _), (b, _)| a.cmp(b));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = counted;
    }

    /// The queues that a function's driver has set up; `None`: they were not told.
    async fn of(&self, function: &Function) -> Option<Vec<(Labels, QueueCounters)>> {
        let representor = function.sf.as_ref().map(|sf| sf.representor.to_string()).unwrap_or_default();
        let queues = match self.controller.queues(&function.target()?).await {
            Ok(queues) => queues,
            Err(error) => {
                tracing::debug!("asking for the queues of {}: {error}", function.vuid);
                return None;
            }
        };
        let labels = |queue: &QueueState| Labels {
            vuid: function.vuid.to_string(),
            representor: representor.clone(),
            queue: queue.index,
            role: match queue.role {
                QueueRole::Receive => "receive",
                QueueRole::Transmit => "transmit",
                QueueRole::Control => "control",
            },
        };
        let enabled = queues.into_iter().filter(|queue| queue.enabled);
        Some(enabled.map(|queue| (labels(&queue), queue.counters)).collect())
    }
}

/// A kind of what is counted once for each queue: the label's value, and the number.
type Kind = (&'static str, fn(&QueueCounters) -> u64);

/// Of `descriptors`, by what was done to them.
const DESCRIPTORS: [Kind; 2] =
    [("received", |all| all.received_desc), ("completed", |all| all.completed_desc)];
/// Of `errors`, by their kind.
const ERRORS: [Kind; 4] = [
    ("bad_descriptor", |all| all.bad_desc_errors),
    ("error_completion", |all| all.error_cqes),
    ("exceeded_max_chain", |all| all.exceed_max_chain),
    ("invalid_buffer", |all| all.invalid_buffer),
];

impl Collector for Statistics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Counted { queues, untold } = &*self.last.lock().unwrap_or_else(PoisonError::into_inner);

        let help = "Packets by their length in bytes";
        let mut packets = encoder.encode_descriptor("packet_bytes", help, None, MetricType::Histogram)?;
        for (labels, QueueCounters { packets: by_length, total_bytes, .. }) in queues {
            let lengths = PACKET_LENGTHS.into_iter().map(f64::from).chain([f64::INFINITY]);
            let buckets: Vec<_> = lengths.zip(by_length.iter().copied()).collect();
            // A float is what a sum is here; it is exact up to 2^53.
            let sum = *total_bytes as f64;
            let count = by_length.iter().sum();
            packets.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        for (name, label, help, kinds) in [
            (
                "descriptors",
                "state",
                "Descriptors that the driver made available, and that were given back",
                &DESCRIPTORS[..],
            ),
            ("errors", "kind", "What went wrong with descriptors and packets", &ERRORS),
        ] {
            let mut counters = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, counted) in queues {
                for (kind, number) in kinds {
                    let labels = (labels.clone(), [(label, *kind)]);
                    ConstCounter::new(number(counted)).encode(counters.encode_family(&labels)?)?;
                }
            }
        }
        let help = "Times that descriptors were looked for and found";
        let mut batches = encoder.encode_descriptor("batches", help, None, MetricType::Counter)?;
        for (labels, counted) in queues {
            ConstCounter::new(counted.batches).encode(batches.encode_family(labels)?)?;
        }
        let help = "Queues of the device's own that copy for a queue";
        let mut dma = encoder.encode_descriptor("dma_queues", help, None, MetricType::Gauge)?;
        for (labels, counted) in queues {
            let number = i64::try_from(counted.dma_queues).unwrap_or(i64::MAX);
            ConstGauge::new(number).encode(dma.encode_family(labels)?)?;
        }
        let help = "Functions that a driver has and whose queues the controller did not tell of in time";
        let untold = ConstGauge::new(i64::try_from(*untold).unwrap_or(i64::MAX));
        untold.encode(encoder.encode_descriptor("untold", help, None, MetricType::Gauge)?)
    }
}
