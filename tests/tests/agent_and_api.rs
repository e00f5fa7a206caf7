//! The agent when the API is out of reach, when objects leave its DPU, and when others write what is its own to write.

#![expect(clippy::unwrap_used, reason = "a test that can not go on panics")]

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::json;
use virtnet_model::FunctionKind;
use virtnet_sim::{Effect, SimConfig};
use virtnet_tests::faults::Faults;
use virtnet_tests::world::{DPU, World};

const MAC: &str = "02:00:00:00:00:77";

/// A world whose controller takes two seconds to plug a function.
async fn slow_world() -> World {
    world_that_plugs_in(Duration::from_secs(2)).await
}

async fn world_that_plugs_in(latency: Duration) -> World {
    let mut sim = SimConfig::default();
    sim.timing.latency.insert(Effect::DevicePlug, latency);
    World::new(1, sim, Faults::new(1, 0, Vec::new())).await.unwrap()
}

async fn bind(world: &World, name: &str, dpu: &str) {
    let patch = Patch::Merge(json!({"spec": {"dpu": dpu}}));
    world.devices().patch(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Hot-plugged functions, and ports of ours.
async fn left_of_us(world: &World) -> (usize, usize) {
    let functions = world.sim.controller().observe().await.unwrap().functions;
    let ports = world.sim.switch().observe().await.unwrap().ports;
    (
        functions.values().filter(|function| function.kind == FunctionKind::HotPlug).count(),
        ports.values().filter(|port| port.owner().is_some()).count(),
    )
}

async fn declare(world: &World) {
    let spec = json!({"dpu": DPU, "function": {"hotplug": {}}, "mac": MAC, "port": {"bridge": "ovsbr1"}});
    world.create("mover", spec).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_device_given_to_another_dpu_in_the_middle_of_its_hot_plug_leaves_nothing() {
    let world = slow_world().await;
    let agent = tokio::spawn(world.agent());
    declare(&world).await;
    seconds(1).await;
    bind(&world, "mover", "elsewhere").await;
    seconds(30).await;
    assert_eq!(left_of_us(&world).await, (0, 0));
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_device_given_away_while_the_api_was_out_of_reach_leaves_nothing() {
    let world = slow_world().await;
    let agent = tokio::spawn(world.agent());
    declare(&world).await;
    seconds(1).await;
    world.faults.api_is_out(Duration::from_secs(20));
    bind(&world, "mover", "elsewhere").await;
    seconds(19).await;
    assert_eq!(left_of_us(&world).await, (1, 1), "it is kept as last declared");
    seconds(120).await;
    assert_eq!(left_of_us(&world).await, (0, 0));
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_deleted_and_then_given_away_leaves_nothing() {
    let world = slow_world().await;
    let agent = tokio::spawn(world.agent());
    declare(&world).await;
    seconds(1).await;
    world.devices().delete("mover", &Default::default()).await.unwrap();
    bind(&world, "mover", "elsewhere").await;
    seconds(30).await;
    assert_eq!(left_of_us(&world).await, (0, 0));
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_device_that_left_is_looked_up_until_the_api_answers() {
    let world = slow_world().await;
    let agent = tokio::spawn(world.agent());
    declare(&world).await;
    seconds(1).await;
    world.faults.lose_reads(3);
    bind(&world, "mover", "elsewhere").await;
    seconds(120).await;
    assert_eq!(left_of_us(&world).await, (0, 0));
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_device_given_away_and_back_is_plugged_once() {
    let world = slow_world().await;
    let agent = tokio::spawn(world.agent());
    declare(&world).await;
    seconds(1).await;
    bind(&world, "mover", "elsewhere").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    bind(&world, "mover", DPU).await;
    assert_eq!(world.until_ready(Duration::from_secs(60)).await.unwrap(), Vec::<String>::new());
    assert_eq!(left_of_us(&world).await, (1, 1));
    assert_eq!(world.sim.counters().of(Effect::Hotplug), 1);
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_function_that_comes_after_its_step_was_given_up_is_taken_on() {
    let world = world_that_plugs_in(Duration::from_secs(150)).await;
    let agent = tokio::spawn(world.agent());
    declare(&world).await;
    seconds(140).await;
    assert_eq!(left_of_us(&world).await.1, 0);
    assert_eq!(world.until_ready(Duration::from_secs(120)).await.unwrap(), Vec::<String>::new());
    assert_eq!(left_of_us(&world).await, (1, 1));
    assert_eq!(world.sim.counters().of(Effect::DevicePlug), 1, "plugged once");
    agent.abort();
}
