//! What the controller's configuration decides: MACs and features at birth, uplinks, and what a stop leaves.

use virtnet_controller::{EngineConfig, Stop, UplinkMode, VfMacs};
use virtnet_model::{EswitchPort, Feature, Features, FunctionKind, Generation, Mac, Refusal, Uplink};
use virtnet_sim::{Effect, Sim, SimConfig, When};

use crate::common::{config, mac, pf, request, rest, rested, sf, state, static_pf, unbind, virtual_function};
use crate::refusals::expect;

fn parsed(text: &str) -> Mac {
    text.parse().unwrap()
}

fn features(all: &[Feature]) -> Option<Features> {
    Some(all.iter().copied().collect())
}

/// Why the controller doesn't start.
async fn refused(config: SimConfig) -> String {
    let sim = Sim::new(config);
    rest().await;
    sim.controller().observe().await.unwrap_err().message
}

#[tokio::test(start_paused = true)]
async fn static_pfs_and_vfs_are_born_with_what_is_configured() {
    let mut config = config(&[]);
    config.engine.static_pf.mac_base = Some(parsed("00:22:22:33:44:10"));
    config.engine.static_pf.features = features(&[Feature::Status]);
    config.engine.vf.macs = Some(VfMacs { base: parsed("00:22:22:33:55:00"), vfs_per_pf: 2 });
    config.engine.vf.features = features(&[Feature::Mq]);
    let sim = Sim::new(config);
    rest().await;
    sim.write_num_vfs(pf(1), 3).unwrap();
    rest().await;
    let state = state(&sim).await;
    assert_eq!(static_pf(&state, 3).mac, parsed("00:22:22:33:44:13"));
    assert_eq!(static_pf(&state, 3).features.to_string(), "MAC,STATUS,VERSION_1");
    let macs: Vec<_> = (0..3).map(|vf| virtual_function(&state, 1, vf).mac.to_string()).collect();
    assert_eq!(macs[..2], ["00:22:22:33:55:02", "00:22:22:33:55:03"]);
    assert!(macs[2].starts_with("02:"), "beyond vfs_per_pf it is of the controller's making: {}", macs[2]);
    assert_eq!(virtual_function(&state, 1, 0).features.to_string(), "MAC,CTRL_VQ,MQ,VERSION_1");
}

#[tokio::test(start_paused = true)]
async fn a_configured_address_that_is_in_use_is_passed_over() {
    let mut config = config(&[]);
    config.engine.vf.macs = Some(VfMacs { base: mac(0), vfs_per_pf: 126 });
    let sim = Sim::new(config);
    rest().await;
    sim.controller().hotplug(&request(1)).await.unwrap();
    sim.write_num_vfs(pf(0), 3).unwrap();
    rest().await;
    let state = state(&sim).await;
    let macs: Vec<_> = (0..3).map(|vf| virtual_function(&state, 0, vf).mac).collect();
    assert_eq!((macs[0], macs[2]), (mac(0), mac(2)));
    assert!(macs[1] != mac(1), "{macs:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_device_can_not_meet_is_refused_at_the_start() {
    let mut wrong = config(&[]);
    wrong.engine.vf.macs = Some(VfMacs { base: mac(0), vfs_per_pf: 127 });
    assert!(refused(wrong).await.contains("vf.vfs_per_pf 127 is above VIRTIO_NET_EMULATION_NUM_VF=126"));

    let mut wrong = config(&[]);
    wrong.engine.vf.macs = Some(VfMacs { base: parsed("fe:ff:ff:ff:ff:00"), vfs_per_pf: 126 });
    let why = refused(wrong).await;
    assert!(
        why.contains("vf.mac_base fe:ff:ff:ff:ff:00 leaves no unicast addresses for 126 VFs on each of 4"),
        "{why}"
    );

    for key in ["static_pf", "vf"] {
        let mut wrong = config(&[]);
        let wanted = features(&[Feature::GuestTso4]);
        match key {
            "vf" => wrong.engine.vf.features = wanted,
            _ => wrong.engine.static_pf.features = wanted,
        }
        let why = refused(wrong).await;
        assert!(why.contains(&format!("{key}.features: the device does not offer GUEST_TSO4")), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_single_port_there_is_no_other() {
    let mut config = config(&[]);
    config.engine =
        EngineConfig { generation: Generation::Later, uplinks: UplinkMode::Single, ..config.engine };
    let sim = Sim::new(config);
    rest().await;
    let limits = state(&sim).await.limits;
    assert_eq!((limits.uplinks, limits.static_uplink), (vec![Uplink::P0], Uplink::P0));
}

#[tokio::test(start_paused = true)]
async fn the_bond_is_made_while_the_controller_is_stopped_and_configured_before_it_starts() {
    let lag = EngineConfig { uplinks: UplinkMode::Lag, ..EngineConfig::default() };
    let sim = rested(&[]).await;
    let before = state(&sim).await;

    // Configured first: there is no bond yet.
    sim.stop_controller(Stop::Restart).await.unwrap();
    sim.start_controller(lag.clone());
    rest().await;
    let why = sim.controller().observe().await.unwrap_err().message;
    assert!(why.contains("is_lag is 1 and the ports are not bonded"), "{why}");

    // Made while it runs: it goes on, and says what is to be done.
    sim.start_controller(EngineConfig::default());
    rest().await;
    assert_eq!(state(&sim).await.restart_required, None);
    sim.set_bonded(true);
    rest().await;
    let why = state(&sim).await.restart_required.unwrap();
    assert!(
        why.contains("the ports are bonded and is_lag is 0: stop the controller, set is_lag to 1"),
        "{why}"
    );

    // Nothing can be made meanwhile, and who asks is told why. What is there stays.
    expect(
        sim.controller().hotplug(&request(0)).await,
        Refusal::NoSuchUplink,
        "stop the controller, set is_lag to 1",
    );
    sim.write_num_vfs(pf(0), 1).unwrap();
    rest().await;
    assert!(state(&sim).await.functions.values().all(|one| one.kind != FunctionKind::Vf || one.sf.is_none()));
    sim.write_num_vfs(pf(0), 0).unwrap();
    rest().await;

    // Started without being configured for it.
    sim.restart_controller();
    rest().await;
    let why = sim.controller().observe().await.unwrap_err().message;
    assert!(why.contains("the ports are bonded and is_lag is 0"), "{why}");

    // In the guide's order.
    sim.stop_controller(Stop::Restart).await.unwrap();
    sim.start_controller(lag);
    rest().await;
    let after = state(&sim).await;
    assert_eq!(after.limits.uplinks, [Uplink::Bond]);
    let mut stay = before.functions;
    for sf in stay.values_mut().filter_map(|function| function.sf.as_mut()) {
        "mlx5_bond_0".clone_into(&mut sf.parent);
    }
    assert_eq!(after.functions, stay, "functions stay");
    assert_eq!(after.restart_required, None);

    sim.set_bonded(false);
    rest().await;
    let why = state(&sim).await.restart_required.unwrap();
    assert!(why.contains("the bond was taken apart: stop the controller, set is_lag to 0"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_can_not_serve_takes_what_was_plugged_with_it_too() {
    let sim = rested(&[]).await;
    for last in 0..3 {
        sim.controller().hotplug(&request(last)).await.unwrap();
    }
    sim.stop_controller(Stop::Restart).await.unwrap();
    sim.start_controller(EngineConfig { uplinks: UplinkMode::Lag, ..EngineConfig::default() });
    rest().await;
    sim.controller().observe().await.unwrap_err();
    sim.fail_next(Effect::DeviceUnplug, When::Before, 1);
    let why = sim.stop_controller(Stop::Service).await.unwrap_err().message;
    assert!(why.starts_with("stop the controller: what is plugged stays: slot 0: "), "{why}");
    sim.start_controller(EngineConfig::default());
    rest().await;
    let after = state(&sim).await;
    assert_eq!(after.functions.values().filter(|one| one.kind == FunctionKind::HotPlug).count(), 1);
    assert_eq!(after.limits.sfs[&EswitchPort::P0].used as usize, after.functions.len());
    sim.controller().hotplug(&request(7)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stopped_service_takes_its_hot_plugged_functions_with_it_and_a_restarted_one_leaves_them() {
    let sim = rested(&[]).await;
    for last in 0..3 {
        sim.controller().hotplug(&request(last)).await.unwrap();
    }
    sim.write_num_vfs(pf(0), 2).unwrap();
    rest().await;
    let full = state(&sim).await.functions;
    assert_eq!(full.len(), 4 + 3 + 2);

    sim.stop_controller(Stop::Restart).await.unwrap();
    sim.controller().observe().await.unwrap_err();
    sim.start_controller(EngineConfig::default());
    rest().await;
    assert_eq!(state(&sim).await.functions, full);

    sim.stop_controller(Stop::Service).await.unwrap();
    let names: Vec<_> =
        sim.links().observe().await.unwrap().into_keys().map(|name| name.to_string()).collect();
    assert!(!names.iter().any(|name| name.contains("sf2")), "SFs go with their functions: {names:?}");
    sim.start_controller(EngineConfig::default());
    rest().await;
    let after = state(&sim).await.functions;
    let kept: Vec<_> =
        full.values().filter(|function| function.kind != FunctionKind::HotPlug).cloned().collect();
    assert_eq!(after.into_values().collect::<Vec<_>>(), kept);
}

#[tokio::test(start_paused = true)]
async fn a_stop_empties_the_pool_where_that_is_configured() {
    for (force_destroy, destroyed) in [(false, 0), (true, 2)] {
        let mut config = config(&[]);
        config.engine.sf_pool.force_destroy = force_destroy;
        let sim = Sim::new(config);
        rest().await;
        sim.write_num_vfs(pf(0), 2).unwrap();
        rest().await;
        sim.write_num_vfs(pf(0), 0).unwrap();
        rest().await;
        sim.stop_controller(Stop::Restart).await.unwrap();
        assert_eq!(sim.counters().of(Effect::DestroySf), destroyed);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_stop_can_not_clear_away_is_told_and_the_rest_is_cleared() {
    let sim = rested(&[]).await;
    for last in 0..3 {
        sim.controller().hotplug(&request(last)).await.unwrap();
    }
    sim.fail_next(Effect::DeviceUnplug, When::Before, 1);
    sim.fail_next(Effect::DestroySf, When::Before, 1);
    let error = sim.stop_controller(Stop::Service).await.unwrap_err();
    assert_eq!(
        error.message,
        "stop the controller: left behind: unplug from slot 0: simulated failure before DeviceUnplug; destroy SF 2001 \
         of p0: it is still there"
    );
    // The next one finds what is left, and clears away what nothing uses.
    sim.start_controller(EngineConfig::default());
    rest().await;
    let after = state(&sim).await;
    assert_eq!(after.functions.len(), 4 + 1);
    assert_eq!(after.limits.sfs[&EswitchPort::P0].used, 5);
    sim.add_foreign_sf(Uplink::P0, sf(2001)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_driver_accepts_of_the_features_what_it_knows() {
    let mut config = config(&["VIRTIO_NET_EMULATION_NUM_MSIX=10"]);
    config.driver_features =
        features(&[Feature::Mac, Feature::Mq, Feature::Status, Feature::Version1]).unwrap();
    let sim = Sim::new(config);
    rest().await;
    let mut wanted = request(0);
    wanted.features = features(&[Feature::Mq, Feature::Status]);
    let made = sim.controller().hotplug(&wanted).await.unwrap();
    assert_eq!(made.features.to_string(), "MAC,STATUS,CTRL_VQ,MQ,VERSION_1", "with what they need");
    assert_eq!(made.negotiated, None, "no driver has it yet");
    rest().await;
    let used = state(&sim).await.functions[&made.id].clone();
    assert_eq!(
        used.negotiated.as_ref().unwrap().to_string(),
        "MAC,STATUS,VERSION_1",
        "MQ is nothing without CTRL_VQ"
    );
    unbind(&sim, &used);
    rest().await;
    assert_eq!(state(&sim).await.functions[&made.id].negotiated, None);
}
