//! Limits of the guide's generation and of the later one.

use virtnet_model::{Change, ControllerState, EswitchPort, Generation, Refusal, Target};
use virtnet_sim::{Effect, Sim, SimConfig};

use crate::common::{config, pf, request, rest, rested, state, unbind, vf, virtual_function};

fn later(firmware: &[&str]) -> SimConfig {
    let mut config = config(firmware);
    config.engine.generation = Generation::Later;
    config
}

fn msix(num_msix: u16) -> Change {
    Change { num_msix: Some(num_msix), ..Change::default() }
}

#[tokio::test(start_paused = true)]
async fn in_the_guides_generation_504_vfs_and_16_hot_plugged_functions_exist_side_by_side() {
    let sim = rested(&["PF_TOTAL_SF=524"]).await;
    for index in 0..4 {
        sim.write_num_vfs(pf(index), 126).unwrap();
    }
    for last in 0..16 {
        sim.controller().hotplug(&request(last)).await.unwrap();
    }
    rest().await;
    let state = state(&sim).await;
    assert_eq!(state.functions.len(), 524);
    assert!(state.functions.values().all(|function| function.sf.is_some() && function.driver.in_use));
    assert_eq!(state.limits.sfs[&EswitchPort::P0].free(), 0);
    assert_eq!(sim.counters().of(Effect::CreateSf), 524);
}

#[tokio::test(start_paused = true)]
async fn the_guides_own_number_of_sfs_leaves_16_hot_plugs_without() {
    let sim = rested(&[]).await;
    for index in 0..4 {
        sim.write_num_vfs(pf(index), 126).unwrap();
    }
    rest().await;
    for last in 0..16 {
        let error = sim.controller().hotplug(&request(last)).await.unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::SfExhausted));
        assert!(
            error.message.contains(
                "PF_TOTAL_SF=508 of p0 is spent (504 VFs, 4 static PFs, 0 hot-plugged, 0 of other applications)"
            ),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn in_the_later_generation_more_than_127_vfs_exclude_hot_plug() {
    for (vfs, slots) in [("31", 16), ("32", 0), ("0", 16)] {
        let sim = Sim::new(later(&[&format!("VIRTIO_NET_EMULATION_NUM_VF={vfs}")]));
        rest().await;
        assert_eq!(state(&sim).await.limits.hotplug_slots, slots, "4 PFs with {vfs} VFs");
    }
}

#[tokio::test(start_paused = true)]
async fn in_the_later_generation_the_vectors_of_a_pf_are_fixed() {
    for (generation, refused) in [(Generation::Guide, false), (Generation::Later, true)] {
        let mut config = config(&["VIRTIO_NET_EMULATION_NUM_MSIX=10", "VIRTIO_NET_EMULATION_NUM_VF=4"]);
        config.engine.generation = generation;
        let sim = Sim::new(config);
        rest().await;
        let made = sim.controller().hotplug(&request(0)).await.unwrap();
        rest().await;
        unbind(&sim, &state(&sim).await.functions[&made.id]);
        let result = sim.controller().modify(&made.target().unwrap(), &msix(8)).await;
        let expected = if refused { Some(Refusal::MsixFixed) } else { None };
        assert_eq!(result.err().and_then(|error| error.refusal()), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn in_the_guides_generation_queues_follow_the_vectors_of_what_was_not_hot_plugged() {
    let sim = rested(&["VIRTIO_NET_EMULATION_NUM_MSIX=10", "VIRTIO_NET_EMULATION_NUM_VF=4"]).await;
    let controller = sim.controller();
    // One that the host is yet to make is born with what it was promised.
    controller.modify(&Target::Vf(pf(0), vf(1)), &msix(4)).await.unwrap();
    sim.write_num_vfs(pf(0), 2).unwrap();
    let made = controller.hotplug(&request(0)).await.unwrap();
    rest().await;
    let before = state(&sim).await;
    let of = |state: &ControllerState, target: &Target| {
        state.find(target).map(|function| (function.num_msix, function.max_queues))
    };
    assert_eq!(of(&before, &Target::Vf(pf(0), vf(1))), Some((4, 3)));
    let targets = [Target::Static(pf(1)), Target::Vf(pf(0), vf(0))];
    for target in &targets {
        assert_eq!(of(&before, target), Some((10, 9)));
        unbind(&sim, before.find(target).unwrap());
        for (vectors, queues) in [(3, 2), (7, 6), (10, 9)] {
            controller.modify(target, &msix(vectors)).await.unwrap();
            assert_eq!(of(&state(&sim).await, target), Some((vectors, queues)), "{target}");
        }
        let error = controller.modify(target, &msix(11)).await.unwrap_err();
        assert_eq!(error.refusal(), Some(Refusal::MsixAboveLimit), "{error}");
    }
    // Whoever hot-plugs says how many queues, and keeps them.
    let plugged = made.target().unwrap();
    unbind(&sim, before.find(&plugged).unwrap());
    let few = made.max_queues;
    controller.modify(&plugged, &msix(few + 1)).await.unwrap();
    assert_eq!(of(&state(&sim).await, &plugged), Some((few + 1, few)));
    let error = controller.modify(&plugged, &msix(few)).await.unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::QueuesAboveLimit), "{error}");
}

#[tokio::test(start_paused = true)]
async fn in_the_later_generation_vfs_of_a_pf_share_their_vectors() {
    let sim = Sim::new(later(&["VIRTIO_NET_EMULATION_NUM_VF=4", "VIRTIO_NET_EMULATION_NUM_VF_MSIX=6"]));
    rest().await;
    sim.write_num_vfs(pf(0), 2).unwrap();
    rest().await;
    let before = state(&sim).await;
    assert_eq!(before.limits.vf_msix, 24, "all that the pool has");
    for index in 0..2 {
        let function = virtual_function(&before, 0, index);
        assert_eq!((function.num_msix, function.max_queues), (6, 5));
        unbind(&sim, function);
    }
    let target = |index| Target::Vf(pf(0), vf(index));
    let controller = sim.controller();
    let error = controller.modify(&target(0), &msix(8)).await.unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::MsixAboveLimit));
    assert!(
        error.message.contains("pool of 24 (VIRTIO_NET_EMULATION_NUM_VF_MSIX=6 for each VF) has 6 left"),
        "{error}"
    );
    controller.modify(&target(1), &msix(4)).await.unwrap();
    controller.modify(&target(0), &msix(8)).await.unwrap();
    let after = state(&sim).await;
    assert_eq!(virtual_function(&after, 0, 1).max_queues, 3, "queues follow vectors");
    assert_eq!(virtual_function(&after, 0, 0).max_queues, 7);
    // A VF that is yet to come holds its share too, until it is promised less.
    assert!(controller.modify(&target(0), &msix(9)).await.is_err());
    controller.modify(&target(3), &msix(5)).await.unwrap();
    controller.modify(&target(0), &msix(9)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn in_the_later_generation_vfs_wait_for_the_end_of_a_live_update() {
    let sim = Sim::new(later(&[]));
    rest().await;
    sim.set_updating(true).await.unwrap();
    sim.write_num_vfs(pf(0), 2).unwrap();
    rest().await;
    assert_eq!(state(&sim).await.functions.len(), 4);
    sim.set_updating(false).await.unwrap();
    rest().await;
    assert_eq!(state(&sim).await.functions.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn vfs_are_transitional_where_the_later_generations_firmware_says_so() {
    for (generation, transitional) in [(Generation::Guide, false), (Generation::Later, true)] {
        let mut config = config(&["VIRTIO_NET_EMULATION_VF_PCI_LAYOUT=1"]);
        config.engine.generation = generation;
        let sim = Sim::new(config);
        rest().await;
        sim.write_num_vfs(pf(0), 1).unwrap();
        rest().await;
        let state = state(&sim).await;
        assert_eq!(state.limits.transitional.vf, transitional);
        assert_eq!(virtual_function(&state, 0, 0).transitional, transitional);
    }
}

#[tokio::test(start_paused = true)]
async fn without_emulation_there_is_nothing() {
    let sim = rested(&["VIRTIO_NET_EMULATION_ENABLE=0"]).await;
    let state = state(&sim).await;
    assert!(state.functions.is_empty() && !state.limits.emulation);
}
