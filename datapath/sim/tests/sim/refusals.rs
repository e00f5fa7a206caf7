//! Every refusal of the controller: its kind, and a message that names the setting.

use virtnet_controller::{EngineConfig, UplinkMode};
use virtnet_model::{
    Change, Feature, Features, FunctionId, Generation, HotplugRequest, Mtu, PartError, QueueSize, Refusal,
    Target, Uplink,
};
use virtnet_sim::{Sim, SimConfig};

use crate::common::{
    config, mac, pf, request, rest, rested, sf, state, static_pf, unbind, vf, virtual_function,
};

pub(crate) fn expect<T: std::fmt::Debug>(result: Result<T, PartError>, refusal: Refusal, message: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.refusal(), Some(refusal), "{error}");
    assert!(error.message.contains(message), "{:?} lacks {message:?}", error.message);
}

/// A hot-plug on this firmware, after so many others, and what it is refused with.
struct Case {
    name: &'static str,
    firmware: &'static [&'static str],
    generation: Generation,
    before: u16,
    request: HotplugRequest,
    refusal: Refusal,
    message: &'static str,
}

fn case(
    name: &'static str,
    firmware: &'static [&'static str],
    request: HotplugRequest,
    refusal: Refusal,
    message: &'static str,
) -> Case {
    Case { name, firmware, generation: Generation::Guide, before: 0, request, refusal, message }
}

fn hotplug_cases() -> Vec<Case> {
    let wanted = request(99);
    let only = |feature| Some([feature].into_iter().collect::<Features>());
    let trans = &["VIRTIO_NET_EMULATION_PF_PCI_LAYOUT=1", "VIRTIO_EMULATION_HOTPLUG_TRANS=1"];
    vec![
        case(
            "emulation off",
            &["VIRTIO_NET_EMULATION_ENABLE=0"],
            wanted.clone(),
            Refusal::EmulationDisabled,
            "hot-plug 02:ff:00:00:00:63: VIRTIO_NET_EMULATION_ENABLE is 0",
        ),
        case(
            "no switch",
            &["PCI_SWITCH_EMULATION_ENABLE=0"],
            wanted.clone(),
            Refusal::NoFreeSlot,
            "PCI_SWITCH_EMULATION_ENABLE is 0",
        ),
        Case {
            before: 16,
            ..case(
                "slots taken",
                &[],
                wanted.clone(),
                Refusal::NoFreeSlot,
                "no free slot: 16 of PCI_SWITCH_EMULATION_NUM_PORT=16 taken",
            )
        },
        Case {
            generation: Generation::Later,
            ..case(
                "many VFs in the later generation",
                &[],
                wanted.clone(),
                Refusal::NoFreeSlot,
                "more than 127 VFs (VIRTIO_NET_EMULATION_NUM_PF=4 with VIRTIO_NET_EMULATION_NUM_VF=126)",
            )
        },
        Case {
            before: 1,
            ..case(
                "SFs spent",
                &["PF_TOTAL_SF=5"],
                wanted.clone(),
                Refusal::SfExhausted,
                "hot-plug 02:ff:00:00:00:63: PF_TOTAL_SF=5 of p0 is spent (0 VFs, 4 static PFs, 1 hot-plugged, 0 of \
                 other applications): raise it with mlxconfig and cold boot",
            )
        },
        Case {
            before: 1,
            ..case(
                "SF number taken",
                &[],
                HotplugRequest { sf_number: Some(sf(2000)), ..wanted.clone() },
                Refusal::SfNumberInUse,
                "SF 2000 of p0 is in use by VNETS1D0F0",
            )
        },
        case(
            "SF number of others",
            &[],
            HotplugRequest { sf_number: Some(sf(999)), ..wanted.clone() },
            Refusal::SfNumberInUse,
            "below 1000",
        ),
        Case {
            before: 1,
            ..case(
                "MAC of a hot-plugged function",
                &[],
                HotplugRequest { mac: mac(0), ..wanted.clone() },
                Refusal::MacInUse,
                "MAC 02:ff:00:00:00:00 is in use by VNETS1D0F0 (slot 0)",
            )
        },
        case(
            "MAC of a static PF",
            &[],
            HotplugRequest { mac: "00:11:22:33:44:57".parse().unwrap(), ..wanted.clone() },
            Refusal::MacInUse,
            "in use by VNETS0D0F2",
        ),
        case(
            "bond without LAG",
            &[],
            HotplugRequest { uplink: Uplink::Bond, ..wanted.clone() },
            Refusal::NoSuchUplink,
            "no uplink bond: there is p0 and p1 (is_lag in virtnet.conf)",
        ),
        case(
            "as many queues as vectors",
            &[],
            HotplugRequest { max_queues: 4, ..wanted.clone() },
            Refusal::QueuesAboveLimit,
            "VIRTIO_NET_EMULATION_NUM_MSIX=4",
        ),
        case(
            "more queues than the device has",
            &["VIRTIO_NET_EMULATION_NUM_MSIX=2000"],
            HotplugRequest { max_queues: 257, ..wanted.clone() },
            Refusal::QueuesAboveLimit,
            "max_virtq=256",
        ),
        case(
            "no queues",
            &[],
            HotplugRequest { max_queues: 0, ..wanted.clone() },
            Refusal::QueuesAboveLimit,
            "at least 1",
        ),
        case(
            "queue too long",
            &[],
            HotplugRequest { queue_size: QueueSize::try_from(8192).unwrap(), ..wanted.clone() },
            Refusal::QueuesAboveLimit,
            "max_queue_size=4096",
        ),
        case(
            "too many vectors",
            &[],
            HotplugRequest { num_msix: Some(5), ..wanted.clone() },
            Refusal::MsixAboveLimit,
            "VIRTIO_NET_EMULATION_NUM_MSIX=4",
        ),
        case(
            "feature not offered",
            &[],
            HotplugRequest { features: only(Feature::GuestTso4), ..wanted.clone() },
            Refusal::FeatureUnsupported,
            "does not offer GUEST_TSO4; it offers CSUM,",
        ),
        case(
            "transitional without its layout",
            &[],
            HotplugRequest { transitional: true, ..wanted.clone() },
            Refusal::TransitionalUnsupported,
            "VIRTIO_NET_EMULATION_PF_PCI_LAYOUT=1, VIRTIO_EMULATION_HOTPLUG_TRANS=1",
        ),
        Case {
            generation: Generation::Later,
            ..case(
                "transitional PF in the later generation",
                trans,
                HotplugRequest { transitional: true, ..wanted.clone() },
                Refusal::TransitionalUnsupported,
                "VIRTIO_NET_EMULATION_VF_PCI_LAYOUT=1",
            )
        },
        case(
            "unknown host",
            &[],
            HotplugRequest { host: Some("web-7".to_owned()), ..wanted },
            Refusal::NoFreeSlot,
            "no slot on host \"web-7\"",
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_refused_hot_plug_names_the_setting_and_changes_nothing() {
    for Case { name, firmware, generation, before, request: wanted, refusal, message } in hotplug_cases() {
        let mut config = config(firmware);
        config.engine.generation = generation;
        let sim = Sim::new(config);
        rest().await;
        for last in 0..before {
            sim.controller().hotplug(&request(last)).await.unwrap();
        }
        rest().await;
        let at_first = (state(&sim).await, sim.links().observe().await.unwrap());
        println!("{name}");
        expect(sim.controller().hotplug(&wanted).await, refusal, message);
        rest().await;
        assert_eq!((state(&sim).await, sim.links().observe().await.unwrap()), at_first, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_the_lag_configuration_hides_is_refused() {
    let engine = EngineConfig { uplinks: UplinkMode::Lag, ..EngineConfig::default() };
    let sim = Sim::new(SimConfig { engine, ..SimConfig::default() });
    rest().await;
    expect(sim.controller().hotplug(&request(0)).await, Refusal::NoSuchUplink, "no uplink p0: there is bond");
    let bonded = HotplugRequest { uplink: Uplink::Bond, ..request(0) };
    let made = sim.controller().hotplug(&bonded).await.unwrap();
    assert_eq!(made.sf.unwrap().parent, "mlx5_bond_0");
    assert_eq!(static_pf(&state(&sim).await, 0).sf.as_ref().unwrap().parent, "mlx5_bond_0");
}

#[tokio::test(start_paused = true)]
async fn sfs_of_other_applications_count() {
    let sim = rested(&["PF_TOTAL_SF=6"]).await;
    for number in [7, 2000] {
        sim.add_foreign_sf(Uplink::P0, sf(number)).unwrap();
    }
    rest().await;
    expect(
        sim.controller().hotplug(&request(0)).await,
        Refusal::SfExhausted,
        "(0 VFs, 4 static PFs, 0 hot-plugged, 2 of other applications)",
    );
    sim.remove_foreign_sf(virtnet_model::EswitchPort::P0, sf(7)).unwrap();
    rest().await;
    let made = sim.controller().hotplug(&request(0)).await.unwrap();
    assert_eq!(made.sf.unwrap().number, sf(2001), "2000 is the other application's");
}

#[tokio::test(start_paused = true)]
async fn transitional_functions_are_as_many_as_the_hosts_io_space_holds() {
    let mut config = config(&["VIRTIO_NET_EMULATION_PF_PCI_LAYOUT=1", "VIRTIO_EMULATION_HOTPLUG_TRANS=1"]);
    config.host_io_space = 3 * 4096;
    let sim = Sim::new(config);
    rest().await;
    assert_eq!(state(&sim).await.limits.transitional.hotplug, 2);
    let legacy = |last| HotplugRequest { transitional: true, ..request(last) };
    for last in 0..2 {
        assert!(sim.controller().hotplug(&legacy(last)).await.unwrap().transitional);
    }
    expect(
        sim.controller().hotplug(&legacy(2)).await,
        Refusal::TransitionalUnsupported,
        "holds 2 transitional functions",
    );
    assert!(!sim.controller().hotplug(&request(2)).await.unwrap().transitional);
}

#[tokio::test(start_paused = true)]
async fn only_hot_plugged_functions_are_unplugged_and_only_by_their_whole_identity() {
    let sim = rested(&[]).await;
    sim.write_num_vfs(pf(0), 1).unwrap();
    rest().await;
    let controller = sim.controller();
    let made = controller.hotplug(&request(0)).await.unwrap();
    let Target::HotPlug { vuid, mac: made_mac, sf: made_sf } = made.target().unwrap() else { unreachable!() };
    let not_it = [
        (
            Target::HotPlug { vuid: vuid.clone(), mac: mac(1), sf: made_sf },
            "VNETS1D0F0 is another function: MAC",
        ),
        (
            Target::HotPlug { vuid: vuid.clone(), mac: made_mac, sf: sf(2001) },
            "VNETS1D0F0 is another function",
        ),
        (
            Target::HotPlug { vuid: "VNETS2D0F0".parse().unwrap(), mac: made_mac, sf: made_sf },
            "nothing has the VUID VNETS2D0F0",
        ),
        (
            Target::HotPlug { vuid: "VNETS0D0F0".parse().unwrap(), mac: made_mac, sf: made_sf },
            "VNETS0D0F0 is not a hot-plugged function",
        ),
    ];
    for (target, message) in not_it {
        expect(controller.unplug(&target).await, Refusal::NoSuchFunction, message);
        let mtu = Change { mtu: Some(Mtu::MAX), ..Change::default() };
        expect(controller.modify(&target, &mtu).await, Refusal::NoSuchFunction, message);
    }
    for target in [Target::Static(pf(0)), Target::Vf(pf(0), vf(0))] {
        expect(controller.unplug(&target).await, Refusal::NotHotPlugged, "only hot-plugged functions");
    }
    assert_eq!(state(&sim).await.functions.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn modifications_want_the_driver_gone() {
    let sim = rested(&["VIRTIO_NET_EMULATION_NUM_MSIX=10"]).await;
    sim.write_num_vfs(pf(0), 1).unwrap();
    let plugged = sim.controller().hotplug(&request(0)).await.unwrap();
    rest().await;
    let changes = [
        Change { mac: Some(mac(50)), ..Change::default() },
        Change { mtu: Some(Mtu::MAX), ..Change::default() },
        Change { features: Some([Feature::Version1].into_iter().collect()), ..Change::default() },
        Change { num_msix: Some(9), ..Change::default() },
        Change { queue_size: Some(QueueSize::try_from(512).unwrap()), ..Change::default() },
    ];
    for (target, id) in
        [(plugged.target().unwrap(), plugged.id), (Target::Vf(pf(0), vf(0)), FunctionId::vf(pf(0), vf(0)))]
    {
        for change in &changes {
            expect(
                sim.controller().modify(&target, change).await,
                Refusal::DriverLoaded,
                "Virtio driver should not be loaded",
            );
        }
        unbind(&sim, &state(&sim).await.functions[&id]);
        for change in &changes {
            // A change of the MAC is one of the target's identity: it is the last to be made.
            if change.mac.is_none() {
                sim.controller().modify(&target, change).await.unwrap();
            }
        }
        let now = state(&sim).await.functions[&id].clone();
        assert_eq!((now.mtu, now.max_queue_size.get()), (Mtu::MAX, 512), "{id}");
        assert_eq!(now.features.to_string(), "MAC,VERSION_1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_so_already_needs_nothing() {
    let sim = rested(&[]).await;
    let now = static_pf(&state(&sim).await, 0).clone();
    let same = Change {
        mac: Some(now.mac),
        mtu: Some(now.mtu),
        features: Some(now.features),
        num_msix: Some(now.num_msix),
        queue_size: Some(now.max_queue_size),
    };
    let before = sim.counters();
    sim.controller().modify(&Target::Static(pf(0)), &same).await.unwrap();
    assert_eq!(
        sim.counters().of(virtnet_sim::Effect::DeviceConfigure),
        before.of(virtnet_sim::Effect::DeviceConfigure)
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_modification_is_refused_for() {
    let sim = rested(&[]).await;
    sim.write_num_vfs(pf(0), 1).unwrap();
    rest().await;
    let controller = sim.controller();
    let (pf0, vf0) = (Target::Static(pf(0)), Target::Vf(pf(0), vf(0)));
    let prepared = Change { mac: Some(mac(7)), ..Change::default() };
    controller.modify(&Target::Vf(pf(1), vf(3)), &prepared).await.unwrap();
    unbind(&sim, virtual_function(&state(&sim).await, 0, 0));
    let none = Change::default;
    let big = QueueSize::try_from(32768).unwrap();
    let cases: Vec<(&Target, Change, Refusal, &str)> = vec![
        (&pf0, Change { mtu: Some(Mtu::MIN), ..none() }, Refusal::MtuFixed, "MTU is invalid"),
        (&vf0, prepared, Refusal::MacInUse, "in use by VNETS0D0F1VF4 (VF 3 of PF 1, prepared)"),
        (
            &vf0,
            Change { mac: Some("00:11:22:33:44:55".parse().unwrap()), ..none() },
            Refusal::MacInUse,
            "VNETS0D0F0",
        ),
        (
            &vf0,
            Change { num_msix: Some(5), ..none() },
            Refusal::MsixAboveLimit,
            "VIRTIO_NET_EMULATION_NUM_MSIX=4",
        ),
        (
            &vf0,
            Change { num_msix: Some(1), ..none() },
            Refusal::QueuesAboveLimit,
            "1 queues need more than 1",
        ),
        (&vf0, Change { queue_size: Some(big), ..none() }, Refusal::QueuesAboveLimit, "max_queue_size=4096"),
        (
            &vf0,
            Change { features: Some([Feature::Rss].into_iter().collect()), ..none() },
            Refusal::FeatureUnsupported,
            "RSS",
        ),
    ];
    for (target, change, refusal, message) in cases {
        expect(controller.modify(target, &change).await, refusal, message);
    }
    let change = Change { mtu: Some(Mtu::MAX), ..none() };
    for (target, refusal, message) in [
        (Target::Static(pf(4)), Refusal::NoSuchFunction, "VIRTIO_NET_EMULATION_NUM_PF=4"),
        (Target::Vf(pf(4), vf(0)), Refusal::NoSuchVf, "no other PF has VFs"),
        (Target::Vf(pf(0), vf(126)), Refusal::NoSuchVf, "VIRTIO_NET_EMULATION_NUM_VF=126"),
    ] {
        expect(controller.modify(&target, &change).await, refusal, message);
    }
}

#[tokio::test(start_paused = true)]
async fn hot_plug_and_unplug_are_refused_during_a_live_update() {
    let sim = rested(&[]).await;
    let made = sim.controller().hotplug(&request(0)).await.unwrap();
    sim.set_updating(true).await.unwrap();
    assert!(state(&sim).await.updating);
    expect(sim.controller().hotplug(&request(1)).await, Refusal::Updating, "a live update is running");
    expect(
        sim.controller().unplug(&made.target().unwrap()).await,
        Refusal::Updating,
        "a live update is running",
    );
    sim.write_num_vfs(pf(0), 1).unwrap();
    rest().await;
    assert_eq!(state(&sim).await.functions.len(), 6, "VFs come and go as before");
    sim.set_updating(false).await.unwrap();
    sim.controller().unplug(&made.target().unwrap()).await.unwrap();
}
