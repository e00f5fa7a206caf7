//! Random operations from a seed: invariants at rest, and the same outcome for the same seed.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use virtnet_model::{
    Change, EswitchPort, FunctionKind, Generation, HotplugRequest, Mtu, QueueSize, Target, Uplink,
};
use virtnet_sim::{Effect, Sim, When};

use crate::common::{config, mac, pf, request, rest, sf, state, vf};
use crate::invariants;

/// A DPU so small that everything runs out.
fn small(seed: u64) -> Sim {
    let mut config = config(&[
        "PF_TOTAL_SF=14",
        "p1/PF_TOTAL_SF=3",
        "PCI_SWITCH_EMULATION_NUM_PORT=5",
        "VIRTIO_NET_EMULATION_NUM_PF=2",
        "VIRTIO_NET_EMULATION_NUM_VF=6",
    ]);
    config.seed = seed;
    config.timing.jitter_percent = 300;
    config.udev_renames = seed.is_multiple_of(2);
    config.engine.generation = if seed.is_multiple_of(3) { Generation::Later } else { Generation::Guide };
    Sim::new(config)
}

async fn operate(sim: &Sim, rng: &mut ChaCha8Rng) {
    let controller = sim.controller();
    let functions = controller.observe().await.map(|state| state.functions).unwrap_or_default();
    let some = |rng: &mut ChaCha8Rng| {
        let index = rng.random_range(0..functions.len().max(1));
        functions.values().nth(index).cloned()
    };
    let some_target = |rng: &mut ChaCha8Rng| match some(rng) {
        Some(made) if made.kind == FunctionKind::HotPlug => made.target().unwrap(),
        _ if rng.random_bool(0.3) => Target::Static(pf(rng.random_range(0..3))),
        _ => Target::Vf(pf(rng.random_range(0..3)), vf(rng.random_range(0..7))),
    };
    // What is refused is refused: only what holds afterwards matters.
    match rng.random_range(0..20) {
        0..4 => {
            let uplink = if rng.random_bool(0.8) { Uplink::P0 } else { Uplink::P1 };
            let sf_number = rng.random_bool(0.2).then(|| sf(rng.random_range(1998..2004)));
            let wanted = HotplugRequest { uplink, sf_number, ..request(rng.random_range(0..12)) };
            drop(controller.hotplug(&wanted).await);
        }
        4..6 => drop(controller.unplug(&some_target(rng)).await),
        6..9 => {
            let change = Change {
                mac: rng.random_bool(0.5).then(|| mac(rng.random_range(0..12))),
                mtu: rng.random_bool(0.3).then_some(Mtu::MAX),
                features: None,
                num_msix: rng.random_bool(0.2).then(|| rng.random_range(0..8)),
                queue_size: rng.random_bool(0.2).then(|| QueueSize::try_from(64).unwrap()),
            };
            drop(controller.modify(&some_target(rng), &change).await);
        }
        9..11 => drop(sim.host().set_num_vfs(pf(rng.random_range(0..2)), rng.random_range(0..8)).await),
        11 => {
            if let Some(bdf) = some(rng).and_then(|made| made.bdf) {
                drop(sim.unbind(bdf));
            }
        }
        12 => {
            if let Some(bdf) = some(rng).and_then(|made| made.bdf) {
                drop(sim.bind(bdf));
            }
        }
        13 => sim.restart_controller(),
        14 if rng.random_bool(0.3) => sim.power_cycle().await,
        14 => sim.reboot_host(),
        15 => drop(sim.add_foreign_sf(Uplink::P0, sf(rng.random_range(1000..3002)))),
        16 => drop(sim.remove_foreign_sf(EswitchPort::P0, sf(rng.random_range(1000..3002)))),
        17 | 18 => {
            let effect = Effect::ALL[rng.random_range(0..Effect::ALL.len())];
            let when = if rng.random_bool(0.5) { When::Before } else { When::After };
            sim.fail_next(effect, when, rng.random_range(1..3));
        }
        _ => tokio::time::sleep(Duration::from_millis(rng.random_range(0..400))).await,
    }
}

/// Runs a seed, and tells all that there is at its end.
async fn run(seed: u64) -> String {
    let sim = small(seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..3 {
        for _ in 0..40 {
            operate(&sim, &mut rng).await;
        }
        rest().await;
        invariants::check(&sim).await;
        let free = state(&sim).await.limits.sfs[&EswitchPort::P0].free();
        let waiting = state(&sim).await.functions.values().filter(|made| made.sf.is_none()).count();
        assert!(free == 0 || waiting == 0, "seed {seed}: {waiting} functions wait beside {free} free SFs");
    }
    format!("{:?} {:?} {:?}", state(&sim).await, sim.links().observe().await.unwrap(), sim.counters())
}

#[tokio::test(start_paused = true)]
async fn invariants_hold_after_random_operations() {
    for seed in 0..300 {
        println!("seed {seed}");
        run(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_has_the_same_outcome_and_another_has_another() {
    for seed in 0..10 {
        assert_eq!(run(seed).await, run(seed).await, "seed {seed}");
    }
    assert_ne!(run(1).await, run(2).await);
}
