//! What the queues of a simulated DPU's functions have counted, as metrics, and how long a controller is asked for it.

#![expect(clippy::unwrap_used, reason = "a test that can not go on panics")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::time::{Instant, sleep};
use virtnet_agent::Statistics;
use virtnet_model::{
    Bdf, Change, Controller, ControllerState, Events, Function, HotplugRequest, Moderation, PartError,
    QueueState, Queues, Target,
};
use virtnet_sim::{Sim, SimConfig};

/// A simulated DPU at rest: drivers have its four static PFs.
async fn dpu() -> (Sim, Vec<Bdf>) {
    let sim = Sim::new(SimConfig::default());
    sleep(Duration::from_secs(60)).await;
    let state = sim.controller().observe().await.unwrap();
    let used: Vec<_> = state.functions.values().filter(|function| function.driver.in_use).collect();
    assert_eq!(used.len(), 4);
    (sim, used.into_iter().filter_map(|function| function.bdf).collect())
}

/// What is served after the controller was asked.
async fn served(statistics: &Statistics) -> String {
    let mut registry = Registry::default();
    statistics.register(&mut registry);
    statistics.refresh().await;
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

/// The series of a family that are not 0.
fn counted<'a>(text: &'a str, family: &str) -> Vec<&'a str> {
    let family = format!("virtnet_function_{family}");
    text.lines()
        .filter(|line| line.starts_with(&family) && !line.ends_with(" 0") && !line.ends_with(" 0.0"))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn what_went_through_queues_is_served() {
    let (sim, used) = dpu().await;
    let statistics = Statistics::new(sim.queues());
    assert_eq!(counted(&served(&statistics).await, "packet_bytes_count"), [""; 0]);
    sim.traffic(used[0], 1, 60, 300).unwrap();
    sim.traffic(used[0], 1, 1500, 2).unwrap();
    let text = served(&statistics).await;
    let queue = r#"vuid="VNETS0D0F0",representor="en3f0pf0sf1000",queue="1",role="transmit""#;
    assert_eq!(
        counted(&text, "packet_bytes_sum"),
        [format!("virtnet_function_packet_bytes_sum{{{queue}}} 21000.0")]
    );
    let packets = counted(&text, "packet_bytes_bucket");
    assert_eq!(packets.len(), 11, "{packets:?}");
    for (most, count) in [("64.0", 300), ("1023.0", 300), ("1522.0", 302), ("+Inf", 302)] {
        let bucket = format!(r#"virtnet_function_packet_bytes_bucket{{le="{most}",{queue}}} {count}"#);
        assert!(packets.contains(&bucket.as_str()), "{packets:?}");
    }
    let completed = format!(r#"virtnet_function_descriptors_total{{{queue},state="completed"}} 302"#);
    assert!(text.contains(&completed), "{text}");
    assert!(text.contains("\nvirtnet_function_untold 0\n"), "{text}");
}

/// A controller that never tells of one function's queues.
#[derive(Debug)]
struct Silent {
    of: Target,
    others: Arc<dyn Queues>,
}

#[async_trait]
impl Controller for Silent {
    async fn observe(&self) -> Result<ControllerState, PartError> {
        self.others.observe().await
    }

    async fn hotplug(&self, request: &HotplugRequest) -> Result<Function, PartError> {
        self.others.hotplug(request).await
    }

    async fn unplug(&self, target: &Target) -> Result<(), PartError> {
        self.others.unplug(target).await
    }

    async fn modify(&self, target: &Target, change: &Change) -> Result<(), PartError> {
        self.others.modify(target, change).await
    }

    fn events(&self) -> Events {
        self.others.events()
    }
}

#[async_trait]
impl Queues for Silent {
    async fn queues(&self, target: &Target) -> Result<Vec<QueueState>, PartError> {
        if *target == self.of {
            std::future::pending::<()>().await;
        }
        self.others.queues(target).await
    }

    async fn moderate(&self, target: &Target, moderation: Moderation) -> Result<(), PartError> {
        self.others.moderate(target, moderation).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_does_not_tell_of_one_function_keeps_no_other_back() {
    let (sim, _) = dpu().await;
    let state = sim.controller().observe().await.unwrap();
    let first = state.functions.values().next().unwrap();
    let silent = Silent { of: Target::Static(first.id.pf), others: sim.queues() };
    let begun = Instant::now();
    let text = served(&Statistics::new(Arc::new(silent))).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    assert!(text.contains("\nvirtnet_function_untold 1\n"), "{text}");
    let told = |function: &&Function| text.contains(&format!("vuid=\"{}\"", function.vuid));
    assert_eq!(state.functions.values().filter(told).count(), 3, "{text}");
}
