//! What survives what: the host's reboot, a power cycle, the controller's restart at any moment.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt;
use virtnet_model::{
    Change, ErrorKind, EswitchPort, FirmwareValues, HostPower, Mtu, PartError, Target, Uplink,
};
use virtnet_sim::{Effect, Sim, When};

use crate::common::{config, mac, pf, request, rest, rested, state, static_pf, unbind, vf, virtual_function};

/// One static PF with an address of its own, one hot-plugged PF, two VFs.
async fn furnished() -> Sim {
    let sim = rested(&[]).await;
    unbind(&sim, static_pf(&state(&sim).await, 1));
    let change = Change { mac: Some(mac(70)), ..Change::default() };
    sim.controller().modify(&Target::Static(pf(1)), &change).await.unwrap();
    sim.controller().hotplug(&request(0)).await.unwrap();
    sim.write_num_vfs(pf(0), 2).unwrap();
    rest().await;
    sim
}

#[tokio::test(start_paused = true)]
async fn a_restarted_controller_finds_every_function_as_it_was() {
    let sim = furnished().await;
    let before = state(&sim).await;
    let links = sim.links().observe().await.unwrap();
    sim.restart_controller();
    let down = sim.controller().observe().await.unwrap_err();
    assert_eq!(down.kind, ErrorKind::Unavailable);
    rest().await;
    assert_eq!(state(&sim).await, before);
    assert_eq!(sim.links().observe().await.unwrap(), links);
}

#[tokio::test(start_paused = true)]
async fn a_warm_reboot_keeps_pfs_and_takes_vfs() {
    let sim = furnished().await;
    let before = state(&sim).await;
    sim.reboot_host();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let during = state(&sim).await;
    assert_eq!(during.functions.len(), 5);
    for function in during.functions.values() {
        assert_eq!((function.bdf, function.driver.seen, function.driver.in_use), (None, false, false));
    }
    assert_eq!(sim.host().observe().await.unwrap().power, HostPower::Booting);
    rest().await;
    let mut expected = before.functions;
    expected.retain(|id, _| id.vf.is_none());
    let mut after = state(&sim).await.functions;
    // The reboot also bound the driver that a person had unbound.
    for table in [&mut expected, &mut after] {
        for function in table.values_mut() {
            function.driver.in_use = true;
            function.negotiated = Some(function.features.clone());
            function.config_vector = Some(0);
        }
    }
    assert_eq!(after, expected, "same addresses, SFs and settings");
    assert_eq!(sim.host().observe().await.unwrap().num_vfs[&pf(0)], 0);
}

#[tokio::test(start_paused = true)]
async fn a_power_cycle_takes_all_but_new_static_pfs_and_brings_the_next_firmware() {
    let sim = furnished().await;
    let values: FirmwareValues = [("VIRTIO_NET_EMULATION_NUM_PF".to_owned(), "2".to_owned())].into();
    sim.firmware().set(EswitchPort::P0, &values).await.unwrap();
    rest().await;
    let firmware = sim.firmware().observe().await.unwrap();
    assert_eq!(firmware[&EswitchPort::P0].current["VIRTIO_NET_EMULATION_NUM_PF"], "4");
    assert_eq!(firmware[&EswitchPort::P0].next_boot["VIRTIO_NET_EMULATION_NUM_PF"], "2");
    assert_eq!(state(&sim).await.limits.static_pfs, 4);
    sim.power_cycle().await;
    assert!(sim.controller().observe().await.is_err());
    assert!(sim.switch().observe().await.is_err());
    assert!(sim.links().observe().await.is_err());
    rest().await;
    let after = state(&sim).await;
    let vuids: Vec<_> = after.functions.values().map(|function| function.vuid.as_str()).collect();
    assert_eq!(vuids, ["VNETS0D0F0", "VNETS0D0F1"]);
    assert_eq!(static_pf(&after, 1).mac.to_string(), "00:11:22:33:44:56", "volatile");
    assert!(static_pf(&after, 1).driver.in_use);
    let representors: Vec<_> =
        sim.links().observe().await.unwrap().into_keys().map(|name| name.to_string()).collect();
    assert_eq!(representors, ["en3f0pf0sf1000", "en3f0pf0sf1001", "p0", "p1"]);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_off_loses_vfs_and_answers_no_sriov() {
    let sim = furnished().await;
    sim.shut_down_host();
    rest().await;
    assert_eq!(state(&sim).await.functions.len(), 5);
    assert_eq!(sim.host().observe().await.unwrap().power, HostPower::Off);
    assert_eq!(sim.host().set_num_vfs(pf(0), 1).await.unwrap_err().kind, ErrorKind::Unavailable);
    sim.boot_host();
    rest().await;
    sim.host().set_num_vfs(pf(0), 1).await.unwrap();
    rest().await;
    assert!(virtual_function(&state(&sim).await, 0, 0).driver.in_use);
}

#[tokio::test(start_paused = true)]
async fn vfs_made_while_no_controller_ran_are_configured_when_one_does() {
    let sim = rested(&[]).await;
    sim.restart_controller();
    sim.write_num_vfs(pf(0), 3).unwrap();
    rest().await;
    assert!(virtual_function(&state(&sim).await, 0, 2).driver.in_use);
}

#[tokio::test(start_paused = true)]
async fn a_changed_uplink_mtu_wants_a_restart_and_a_restart_satisfies_it() {
    let sim = rested(&[]).await;
    assert_eq!(state(&sim).await.restart_required, None);
    sim.set_uplink_mtu(Uplink::P0, 9000);
    rest().await;
    let why = state(&sim).await.restart_required.unwrap();
    assert!(why.contains("the MTU of p0 changed from 1500 to 9000"), "{why}");
    sim.restart_controller();
    rest().await;
    assert_eq!(state(&sim).await.restart_required, None);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_cut_off_goes_on_and_is_back_with_an_event() {
    use futures::StreamExt;
    let sim = rested(&[]).await;
    sim.cut_off_controller(Duration::from_secs(5));
    assert_eq!(sim.controller().hotplug(&request(0)).await.unwrap_err().kind, ErrorKind::Unavailable);
    let mut events = sim.controller().events();
    events.next().await.unwrap();
    assert_eq!(state(&sim).await.functions.len(), 4);
}

/// A load of every operation; failures are the callers' to try again.
async fn load(sim: &Sim) -> Result<(), PartError> {
    let controller = sim.controller();
    for last in 0..3 {
        let present = controller.observe().await?.functions.into_values().find(|made| made.mac == mac(last));
        if present.is_none() {
            controller.hotplug(&request(last)).await?;
        }
    }
    sim.host().set_num_vfs(pf(0), 3).await?;
    if controller.observe().await?.functions.values().all(|made| made.id.pf != pf(1) || made.id.vf.is_none())
    {
        let prepared = Change { mtu: Some(Mtu::MAX), ..Change::default() };
        controller.modify(&Target::Vf(pf(1), vf(0)), &prepared).await?;
    }
    sim.host().set_num_vfs(pf(1), 1).await?;
    let functions = controller.observe().await?.functions;
    if let Some(second) = functions.into_values().find(|made| made.mac == mac(1)) {
        controller.unplug(&second.target().unwrap()).await?;
    }
    sim.host().set_num_vfs(pf(0), 0).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

const DEVICE_EFFECTS: [Effect; 5] =
    [Effect::CreateSf, Effect::DestroySf, Effect::DevicePlug, Effect::DeviceUnplug, Effect::DeviceConfigure];

/// Kills the controller at its `at`th crossing of a side of an effect. False: there are not so many.
async fn killed_at(at: u32) -> bool {
    let sim = Sim::new(config(&[]));
    let crossings = Arc::new(AtomicU32::new(0));
    let (count, handle) = (Arc::clone(&crossings), sim.clone());
    sim.set_hook(Some(Arc::new(move |effect: Effect, _: When| {
        if DEVICE_EFFECTS.contains(&effect) && count.fetch_add(1, Ordering::Relaxed) == at {
            handle.restart_controller();
        }
    })));
    let mut attempts = 0;
    while let Err(error) = load(&sim).await {
        attempts += 1;
        assert!(attempts < 10, "killed at crossing {at}: {error}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    rest().await;
    sim.set_hook(None);
    crate::invariants::check(&sim).await;
    let state = state(&sim).await;
    let macs: Vec<_> =
        state.functions.values().filter(|made| made.id.pf.get() >= 4).map(|made| made.mac).collect();
    assert_eq!(macs, [mac(0), mac(2)], "killed at crossing {at}: plugged once each");
    assert!(virtual_function(&state, 1, 0).sf.is_some());
    let sfs = state.limits.sfs[&EswitchPort::P0];
    assert_eq!(sfs.used, 4 + 2 + 1);
    let representors = sim.links().observe().await.unwrap();
    let below_the_pool = representors.keys().filter(|name| name.as_str().contains("sf2")).count();
    assert_eq!(below_the_pool, 2, "killed at crossing {at}: no SF leaks: {representors:?}");
    crossings.load(Ordering::Relaxed) > at
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_on_any_side_of_any_effect_leaves_nothing_behind_and_loses_nothing() {
    let mut at = 0;
    while killed_at(at).await {
        at += 1;
    }
    assert!(at >= 40, "only {at} crossings");
}

#[tokio::test(start_paused = true)]
async fn a_hot_plug_whose_caller_is_gone_is_reported_until_its_function_is_there() {
    let sim = rested(&[]).await;
    let controller = sim.controller();
    let asked = request(0);
    let mut call = controller.hotplug(&asked);
    assert!(futures::poll!(&mut call).is_pending());
    drop(call);
    assert_eq!(state(&sim).await.plugging, BTreeSet::from([asked.mac]));
    let mut events = controller.events();
    loop {
        let state = state(&sim).await;
        let is_there = state.functions.values().any(|function| function.mac == asked.mac);
        assert!(is_there || state.plugging.contains(&asked.mac), "it is neither there nor to come");
        if is_there && state.plugging.is_empty() {
            break;
        }
        events.next().await.unwrap();
    }
    let refused = controller.hotplug(&asked).await.unwrap_err();
    assert_eq!(state(&sim).await.plugging, BTreeSet::new(), "{refused}");
}
