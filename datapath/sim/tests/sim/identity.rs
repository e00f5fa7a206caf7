//! How functions are named and numbered: the guide's examples.

use crate::common::{mac, pf, request, rest, rested, sf, state, static_pf, vf, virtual_function};
use virtnet_model::{FunctionId, HotplugRequest, Uplink};

#[tokio::test(start_paused = true)]
async fn static_pfs_are_made_at_start_and_named_as_in_the_guide() {
    let sim = rested(&[]).await;
    let state = state(&sim).await;
    let table: Vec<_> = state
        .functions
        .values()
        .map(|function| {
            let sf = function.sf.as_ref().unwrap();
            format!(
                "{} {} {} {} sf {} on {} {} {} mtu {} queues {}x{} msix {} in use {}",
                function.id,
                function.vuid,
                function.bdf.unwrap(),
                function.mac,
                sf.number,
                sf.parent,
                sf.rdma_device.as_ref().unwrap(),
                sf.representor,
                function.mtu,
                function.max_queues,
                function.max_queue_size,
                function.num_msix,
                function.driver.in_use
            )
        })
        .collect();
    assert_eq!(
        table,
        [
            "PF 0 VNETS0D0F0 85:00.0 00:11:22:33:44:55 sf 1000 on mlx5_0 mlx5_2 en3f0pf0sf1000 mtu 1500 queues 3x256 msix 4 in use true",
            "PF 1 VNETS0D0F1 85:00.1 00:11:22:33:44:56 sf 1001 on mlx5_0 mlx5_3 en3f0pf0sf1001 mtu 1500 queues 3x256 msix 4 in use true",
            "PF 2 VNETS0D0F2 85:00.2 00:11:22:33:44:57 sf 1002 on mlx5_0 mlx5_4 en3f0pf0sf1002 mtu 1500 queues 3x256 msix 4 in use true",
            "PF 3 VNETS0D0F3 85:00.3 00:11:22:33:44:58 sf 1003 on mlx5_0 mlx5_5 en3f0pf0sf1003 mtu 1500 queues 3x256 msix 4 in use true",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_hot_plugged_function_takes_the_lowest_slot_index_and_sf() {
    let sim = rested(&[]).await;
    let controller = sim.controller();
    let mut made = Vec::new();
    for last in 0..3 {
        made.push(controller.hotplug(&request(last)).await.unwrap());
    }
    let names: Vec<_> = made
        .iter()
        .map(|function| {
            format!("{} {} {}", function.id, function.vuid, function.sf.as_ref().unwrap().representor)
        })
        .collect();
    assert_eq!(
        names,
        [
            "PF 4 VNETS1D0F0 en3f0pf0sf2000",
            "PF 5 VNETS2D0F0 en3f0pf0sf2001",
            "PF 6 VNETS3D0F0 en3f0pf0sf2002"
        ]
    );
    controller.unplug(&made[1].target().unwrap()).await.unwrap();
    let again = controller.hotplug(&request(9)).await.unwrap();
    assert_eq!((again.id, &again.vuid), (made[1].id, &made[1].vuid));
    assert_eq!(again.sf.unwrap().number, sf(2001));
    assert_eq!(again.mac, mac(9));
}

#[tokio::test(start_paused = true)]
async fn vfs_count_from_one_in_vuids_and_take_sfs_from_3000() {
    let sim = rested(&[]).await;
    sim.write_num_vfs(pf(2), 2).unwrap();
    rest().await;
    let state = state(&sim).await;
    let first = virtual_function(&state, 2, 0);
    assert_eq!(first.vuid.as_str(), "VNETS0D0F2VF1");
    assert_eq!(first.sf.as_ref().unwrap().representor.as_str(), "en3f0pf0sf3000");
    let second = virtual_function(&state, 2, 1);
    assert_eq!(second.vuid.as_str(), "VNETS0D0F2VF2");
    assert_eq!(second.sf.as_ref().unwrap().number, sf(3001));
    for function in [first, second] {
        assert_eq!(function.mac.octets()[0] & 2, 2, "{} is locally administered", function.mac);
        assert!(function.driver.in_use);
    }
    assert_ne!(first.mac, second.mac);
}

#[tokio::test(start_paused = true)]
async fn the_first_vf_is_at_the_guides_address_and_all_addresses_differ() {
    let sim = rested(&["PF_TOTAL_SF=524"]).await;
    for index in 0..4 {
        sim.write_num_vfs(pf(index), 126).unwrap();
    }
    for last in 0..16 {
        sim.controller().hotplug(&request(last)).await.unwrap();
    }
    rest().await;
    let state = state(&sim).await;
    assert_eq!(virtual_function(&state, 0, 0).bdf.unwrap().to_string(), "85:04.5");
    assert_eq!(virtual_function(&state, 0, 1).bdf.unwrap().to_string(), "85:04.6");
    let addresses: std::collections::BTreeSet<_> =
        state.functions.values().map(|function| function.bdf.unwrap()).collect();
    assert_eq!(addresses.len(), 524);
}

#[tokio::test(start_paused = true)]
async fn numbers_are_counted_by_port_and_the_second_port_has_its_own_names() {
    let sim = rested(&["p1/PF_TOTAL_SF=8"]).await;
    let on_p1 = |last| HotplugRequest { uplink: Uplink::P1, ..request(last) };
    let first = sim.controller().hotplug(&request(0)).await.unwrap().sf.unwrap();
    let second = sim.controller().hotplug(&on_p1(1)).await.unwrap().sf.unwrap();
    assert_eq!((first.number, first.parent.as_str()), (sf(2000), "mlx5_0"));
    assert_eq!((second.number, second.parent.as_str()), (sf(2000), "mlx5_1"));
    assert_eq!(second.representor.as_str(), "en3f1pf1sf2000");
}

#[tokio::test(start_paused = true)]
async fn the_wanted_sf_number_is_given() {
    let sim = rested(&[]).await;
    let made =
        sim.controller().hotplug(&HotplugRequest { sf_number: Some(sf(2077)), ..request(0) }).await.unwrap();
    assert_eq!(made.sf.unwrap().number, sf(2077));
}

#[tokio::test(start_paused = true)]
async fn a_function_has_no_address_before_the_host_has_found_it() {
    let mut config = crate::common::config(&[]);
    config.host_on = false;
    let sim = virtnet_sim::Sim::new(config);
    rest().await;
    let made = sim.controller().hotplug(&request(0)).await.unwrap();
    assert_eq!(made.bdf, None);
    assert!(!made.driver.seen);
    sim.boot_host();
    rest().await;
    let state = state(&sim).await;
    let made = &state.functions[&made.id];
    assert_eq!(made.bdf.unwrap().to_string(), "c0:00.0");
    assert!(made.driver.seen && made.driver.in_use);
    assert_eq!(static_pf(&state, 3).bdf.unwrap().to_string(), "85:00.3");
    assert!(!state.functions.contains_key(&FunctionId::vf(pf(0), vf(0))));
}
