//! Birth and teardown of VFs, the pool of SFs, and settings that are given before birth.

use virtnet_controller::SfPool;
use virtnet_model::{Change, EswitchPort, Feature, Features, Mtu, QueueSize, Target};
use virtnet_sim::{Effect, Sim};

use crate::common::{config, mac, pf, request, rest, rested, sf, state, vf, virtual_function};

fn prepared() -> Change {
    Change {
        mac: Some(mac(7)),
        mtu: Some(Mtu::MAX),
        features: Some([Feature::Version1, Feature::Mtu].into_iter().collect()),
        num_msix: None,
        queue_size: Some(QueueSize::try_from(64).unwrap()),
    }
}

#[tokio::test(start_paused = true)]
async fn settings_given_before_birth_are_those_it_is_born_with() {
    let sim = rested(&[]).await;
    let target = Target::Vf(pf(1), vf(1));
    sim.controller().modify(&target, &prepared()).await.unwrap();
    assert_eq!(state(&sim).await.prepared[&(pf(1), vf(1))], prepared());
    sim.write_num_vfs(pf(1), 2).unwrap();
    rest().await;
    let after = state(&sim).await;
    let born = virtual_function(&after, 1, 1);
    assert_eq!((born.mac, born.mtu, born.max_queue_size.get()), (mac(7), Mtu::MAX, 64));
    assert_eq!(born.features.to_string(), "MTU,MAC,VERSION_1");
    assert!(born.driver.in_use, "no rebind was needed");
    assert!(after.prepared.is_empty(), "what was applied is no longer prepared");
    let other = virtual_function(&after, 1, 0);
    assert_eq!((other.mtu, &other.features), (Mtu::DEFAULT, &Features::controller_default()));
}

#[tokio::test(start_paused = true)]
async fn later_preparations_replace_earlier_ones_and_an_empty_one_takes_them_back() {
    let sim = rested(&[]).await;
    let target = Target::Vf(pf(0), vf(0));
    let controller = sim.controller();
    controller.modify(&target, &prepared()).await.unwrap();
    let only_mtu = Change { mtu: Some(Mtu::MIN), ..Change::default() };
    controller.modify(&target, &only_mtu).await.unwrap();
    assert_eq!(state(&sim).await.prepared[&(pf(0), vf(0))], only_mtu);
    // The address that was given up is free again.
    controller.hotplug(&request(7)).await.unwrap();
    controller.modify(&target, &Change::default()).await.unwrap();
    assert!(state(&sim).await.prepared.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_reborn_vf_has_the_controllers_settings_and_its_old_address() {
    let sim = rested(&[]).await;
    sim.write_num_vfs(pf(0), 1).unwrap();
    rest().await;
    let first = virtual_function(&state(&sim).await, 0, 0).clone();
    sim.write_num_vfs(pf(0), 0).unwrap();
    rest().await;
    assert_eq!(state(&sim).await.functions.len(), 4);
    sim.write_num_vfs(pf(0), 1).unwrap();
    rest().await;
    assert_eq!(*virtual_function(&state(&sim).await, 0, 0), first);
}

#[tokio::test(start_paused = true)]
async fn the_sf_of_a_destroyed_vf_waits_in_the_pool_and_is_used_again() {
    let sim = rested(&[]).await;
    sim.write_num_vfs(pf(0), 4).unwrap();
    rest().await;
    let made = sim.counters().of(Effect::CreateSf);
    sim.write_num_vfs(pf(0), 0).unwrap();
    rest().await;
    let budget = state(&sim).await.limits.sfs[&EswitchPort::P0];
    assert_eq!((budget.used, budget.free()), (4, 504), "an SF in the pool is free");
    sim.write_num_vfs(pf(1), 3).unwrap();
    rest().await;
    let state = state(&sim).await;
    let numbers: Vec<_> =
        (0..3).map(|vf| virtual_function(&state, 1, vf).sf.as_ref().unwrap().number.get()).collect();
    assert_eq!(numbers, [3000, 3001, 3002]);
    assert_eq!(sim.counters().of(Effect::CreateSf), made);
}

#[tokio::test(start_paused = true)]
async fn a_pooled_sf_makes_room_for_a_hot_plug() {
    let sim = rested(&["PF_TOTAL_SF=6"]).await;
    sim.write_num_vfs(pf(0), 2).unwrap();
    rest().await;
    assert!(sim.controller().hotplug(&request(0)).await.is_err());
    sim.write_num_vfs(pf(0), 0).unwrap();
    rest().await;
    let made = sim.controller().hotplug(&request(0)).await.unwrap();
    assert_eq!(made.sf.unwrap().number, sf(2000));
    let links = sim.links().observe().await.unwrap();
    assert!(!links.contains_key(&"en3f0pf0sf3001".parse().unwrap()), "the highest went");
    assert!(links.contains_key(&"en3f0pf0sf3000".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn vfs_beyond_the_last_sf_exist_without_one_and_get_it_in_order_when_one_frees_up() {
    let sim = rested(&["PF_TOTAL_SF=7"]).await;
    let plugged = sim.controller().hotplug(&request(0)).await.unwrap();
    sim.write_num_vfs(pf(1), 2).unwrap();
    sim.write_num_vfs(pf(0), 2).unwrap();
    rest().await;
    let with_sf = async || -> Vec<String> {
        let functions = state(&sim).await.functions;
        let vfs = functions.into_values().filter(|function| function.id.vf.is_some());
        vfs.map(|function| format!("{} {}", function.id, function.driver.in_use && function.sf.is_some()))
            .collect()
    };
    assert_eq!(
        with_sf().await,
        ["VF 0 of PF 0 true", "VF 1 of PF 0 true", "VF 0 of PF 1 false", "VF 1 of PF 1 false"]
    );
    sim.controller().unplug(&plugged.target().unwrap()).await.unwrap();
    rest().await;
    assert_eq!(
        with_sf().await,
        ["VF 0 of PF 0 true", "VF 1 of PF 0 true", "VF 0 of PF 1 true", "VF 1 of PF 1 false"]
    );
    sim.write_num_vfs(pf(0), 0).unwrap();
    rest().await;
    assert_eq!(with_sf().await, ["VF 0 of PF 1 true", "VF 1 of PF 1 true"]);
}

#[tokio::test(start_paused = true)]
async fn another_number_of_vfs_goes_by_way_of_none() {
    let sim = rested(&[]).await;
    sim.write_num_vfs(pf(0), 2).unwrap();
    rest().await;
    let busy = sim.write_num_vfs(pf(0), 3).unwrap_err();
    assert!(busy.message.contains("Device or resource busy"), "{busy}");
    sim.host().set_num_vfs(pf(0), 3).await.unwrap();
    rest().await;
    assert_eq!(sim.host().observe().await.unwrap().num_vfs[&pf(0)], 3);
    assert_eq!(state(&sim).await.functions.len(), 7);
    let above = sim.host().set_num_vfs(pf(0), 127).await.unwrap_err();
    assert!(above.message.contains("VIRTIO_NET_EMULATION_NUM_VF=126"), "{above}");
    assert_eq!(sim.host().observe().await.unwrap().num_vfs[&pf(0)], 3, "a refusal removes nothing");
    let no_pf = sim.host().set_num_vfs(pf(4), 1).await.unwrap_err();
    assert_eq!(no_pf.refusal(), Some(virtnet_model::Refusal::NoSuchVf));
}

#[tokio::test(start_paused = true)]
async fn vfs_that_go_while_they_are_being_made_leave_nothing_attached() {
    let sim = rested(&[]).await;
    for round in 0..20u64 {
        sim.write_num_vfs(pf(0), 8).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(round)).await;
        sim.write_num_vfs(pf(0), 0).unwrap();
    }
    rest().await;
    let state = state(&sim).await;
    assert_eq!(state.functions.len(), 4);
    assert_eq!(state.limits.sfs[&EswitchPort::P0].free(), 504);
}

#[tokio::test(start_paused = true)]
async fn unbinding_a_static_pf_takes_its_vfs() {
    let sim = rested(&[]).await;
    sim.write_num_vfs(pf(0), 2).unwrap();
    rest().await;
    sim.unbind("85:00.0".parse().unwrap()).unwrap();
    rest().await;
    assert_eq!(state(&sim).await.functions.len(), 4);
    assert_eq!(sim.host().observe().await.unwrap().num_vfs[&pf(0)], 0);
}

#[tokio::test(start_paused = true)]
async fn the_pool_is_filled_at_start_to_its_percentage_and_drained_when_so_configured() {
    let mut config = config(&["PF_TOTAL_SF=100"]);
    config.engine.sf_pool = SfPool { percent: 5, force_destroy: false };
    let sim = Sim::new(config.clone());
    rest().await;
    assert_eq!(sim.counters().of(Effect::CreateSf), 4 + 5);
    sim.write_num_vfs(pf(0), 2).unwrap();
    rest().await;
    assert_eq!(sim.counters().of(Effect::CreateSf), 4 + 5, "VFs take from the pool; it is not filled again");
    sim.restart_controller();
    rest().await;
    assert_eq!(sim.counters().of(Effect::CreateSf), 4 + 5 + 2, "a start fills it");

    config.engine.sf_pool.force_destroy = true;
    let sim = Sim::new(config);
    rest().await;
    sim.restart_controller();
    rest().await;
    assert_eq!(sim.counters().of(Effect::DestroySf), 5);
    assert_eq!(sim.counters().of(Effect::CreateSf), 4 + 5 + 5);
}
