//! The agent's writes are put off, refused, or answered late or never.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;
use virtnet_agent::{Clock, Config, Metrics, Parts};
use virtnet_sim::SimConfig;
use virtnet_tests::control_plane::ControlPlane;
use virtnet_tests::faults::Faults;
use virtnet_tests::faulty_way::{Fault, FaultyWay};
use virtnet_tests::world::{DPU, LEASES, World};

use crate::rig::Rig;

/// How often each fault befalls the batch.
const TIMES: usize = 12;

#[tokio::test]
async fn a_batch_becomes_ready_though_its_writes_are_put_off_refused_and_slow() {
    let plane = ControlPlane::shared().await.unwrap();
    let mut rig = Rig::start(&plane, "answers").await;
    for fault in [
        Fault::Answer(StatusCode::TOO_MANY_REQUESTS),
        Fault::Late(Duration::from_secs(3)),
        Fault::Answer(StatusCode::SERVICE_UNAVAILABLE),
        Fault::Answer(StatusCode::CONFLICT),
    ] {
        rig.way.befall(fault, TIMES, is_registration);
        rig.way.befall(fault, TIMES, is_status);
    }
    rig.declare_all().await;
    rig.until_settled().await;
    rig.tag(0, 7).await;
    rig.delete(1).await;
    rig.declare_what_is_left().await;
    rig.check().await;
    assert_eq!(rig.way.left(), 0, "not all faults befell");
}

/// More than the agent writes at once: were they waited for, nothing else could be written.
const UNANSWERED: usize = 40;

#[tokio::test(start_paused = true)]
async fn writes_that_are_never_answered_hold_up_neither_themselves_nor_others() {
    let world = World::new(1, SimConfig::default(), Faults::new(1, 0, Vec::new())).await.unwrap();
    let way = FaultyWay::new(world.client.clone());
    let config = Config { dpu: DPU.into(), lease_namespace: LEASES.into() };
    let agent = virtnet_agent::run(
        config,
        way.client(),
        Parts::from(&world.sim),
        Clock::system(),
        Metrics::default(),
    );
    let agent = tokio::spawn(agent);
    for index in 1..=16 {
        let spec =
            |tag| json!({"dpu": DPU, "function": {"hotplug": {}}, "port": {"bridge": "ovsbr1", "tag": tag}});
        world.create(&format!("hot-{index}"), spec(index)).await.unwrap();
    }
    assert_eq!(world.until_ready(Duration::from_secs(60)).await.unwrap(), Vec::<String>::new());

    way.befall(Fault::Silence, UNANSWERED, is_status);
    for tag in [100, 200, 300] {
        for index in 1..=16 {
            let edit = json!({"spec": {"port": {"tag": tag}}});
            let (name, edit) = (format!("hot-{index}"), kube::api::Patch::Merge(edit));
            world.devices().patch(&name, &Default::default(), &edit).await.unwrap();
        }
        assert_eq!(world.until_ready(Duration::from_secs(300)).await.unwrap(), Vec::<String>::new(), "{tag}");
    }
    assert_eq!(way.left(), 0, "not all faults befell");
    agent.abort();
}

fn is_status(method: &Method, target: &str) -> bool {
    method == Method::PATCH && target.contains("virtnetdevices") && target.contains("/status?")
}

fn is_registration(method: &Method, target: &str) -> bool {
    method == Method::PATCH && target.contains("virtnetdevices") && !target.contains("/status?")
}
