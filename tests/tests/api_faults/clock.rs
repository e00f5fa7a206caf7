//! The time of day jumps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::ResourceExt;
use serde_json::json;
use tokio::time::{Instant, sleep};
use virtnet_agent::{Clock, Config, Metrics, Parts};
use virtnet_sim::SimConfig;
use virtnet_tests::faults::Faults;
use virtnet_tests::world::{DPU, LEASES, World};

const DAY: i64 = 24 * 60 * 60;
const DEVICES: usize = 12;

/// Since when each device's conditions are as they are.
async fn since(world: &World) -> BTreeMap<(String, String), Timestamp> {
    let mut times = BTreeMap::new();
    for device in world.list().await.unwrap() {
        for condition in device.status.clone().unwrap().conditions {
            times.insert((device.name_any(), condition.type_), condition.last_transition_time.0);
        }
    }
    times
}

async fn renewed(world: &World) -> Timestamp {
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), LEASES);
    leases.get(DPU).await.unwrap().spec.unwrap().renew_time.unwrap().0
}

async fn edit(world: &World, tag: i64) {
    for index in 0..DEVICES {
        let edit = kube::api::Patch::Merge(json!({"spec": {"port": {"tag": tag}}}));
        world.devices().patch(&format!("hot-{index}"), &Default::default(), &edit).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_is_seen_in_the_lease_alone() {
    let world = World::new(1, SimConfig::default(), Faults::new(1, 0, Vec::new())).await.unwrap();
    let (jump, start) = (Arc::new(AtomicI64::new(0)), Instant::now());
    let epoch: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let jumped = Arc::clone(&jump);
    let now = move || epoch + start.elapsed() + SignedDuration::from_secs(jumped.load(Ordering::Relaxed));
    let config = Config { dpu: DPU.into(), lease_namespace: LEASES.into() };
    let (clock, hands) = (Clock::telling(now.clone()), Parts::from(&world.sim));
    let agent =
        tokio::spawn(virtnet_agent::run(config, world.client.clone(), hands, clock, Metrics::default()));
    for index in 0..DEVICES {
        let spec = json!({"dpu": DPU, "function": {"hotplug": {}}, "port": {"bridge": "ovsbr1"}});
        world.create(&format!("hot-{index}"), spec).await.unwrap();
    }
    assert_eq!(world.until_ready(Duration::from_secs(60)).await.unwrap(), Vec::<String>::new());
    sleep(Duration::from_secs(30)).await;
    let (ready_since, effects) = (since(&world).await, world.sim.counters().effects);

    for (round, to) in (1..).zip([DAY, -DAY, 0, -2 * DAY]) {
        world.writes.take();
        jump.store(to, Ordering::Relaxed);
        sleep(Duration::from_secs(65)).await;
        let (leases, others): (Vec<_>, Vec<_>) =
            world.writes.take().into_iter().partition(|write| write.resource == "leases");
        assert!(others.is_empty(), "written at rest after a jump to {to} s: {others:?}");
        assert!((6..=7).contains(&leases.len()), "renewals in 65 s after a jump to {to} s: {leases:?}");
        assert!(now().duration_since(renewed(&world).await).abs() < SignedDuration::from_secs(11));

        // And once more on the way to what was edited.
        edit(&world, 10 * round).await;
        sleep(Duration::from_millis(50)).await;
        jump.store(to + DAY / 2, Ordering::Relaxed);
        assert_eq!(world.until_ready(Duration::from_secs(60)).await.unwrap(), Vec::<String>::new());
        sleep(Duration::from_secs(30)).await;
        assert_eq!(since(&world).await, ready_since, "no status changed by a jump to {to} s");
    }
    let mut after = world.sim.counters().effects;
    after.insert(virtnet_sim::Effect::SwitchApply, effects[&virtnet_sim::Effect::SwitchApply]);
    assert_eq!(after, effects, "but for the ports' tags");
    agent.abort();
}
