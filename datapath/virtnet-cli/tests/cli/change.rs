//! What changes functions: `hotplug`, `unplug`, `modify`, and what they are refused for.

use virtnet_model::{Change, EswitchPort, Features, FunctionKind};
use virtnet_sim::SimConfig;

use crate::world::{World, golden, id};

/// The guide's.
const HOTPLUG: &str = "hotplug -i mlx5_0 -f 0x0 -m 0C:C4:7A:FF:22:93 -t 1500 -n 3 -s 1024";

/// A DPU whose host is off, so that nothing is enumerated or bound.
async fn without_host(firmware: &[&str]) -> World {
    let mut config = SimConfig { host_on: false, ..SimConfig::default() };
    config.set_firmware(firmware).unwrap();
    World::of(config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_hot_plug_makes_a_function_and_tells_of_it() {
    let world = without_host(&[]).await;
    golden("hotplug.json", &world.virtnet(HOTPLUG).ok());
    let made = world.function("VNETS1D0F0").await;
    assert_eq!((made.kind, made.id), (FunctionKind::HotPlug, id(4, None)));
    assert_eq!((made.mtu.get(), made.max_queues, made.max_queue_size.get()), (1500, 3, 1024));
    assert_eq!(made.features, Features::controller_default());
    assert!(!made.transitional);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_plug_takes_port_features_sf_number_and_legacy() {
    let firmware = [
        "VIRTIO_NET_EMULATION_PF_PCI_LAYOUT=1",
        "VIRTIO_EMULATION_HOTPLUG_TRANS=1",
        "VIRTIO_NET_EMULATION_NUM_MSIX=8",
    ];
    let world = without_host(&firmware).await;
    let words = "hotplug --ib_device mlx5_1 --features 0x100000021 --mac 5A:94:07:04:F6:1C --mtu 9000 \
                 --max_queues 5 --max_queue_size 512 --sf_num 2345 --legacy";
    golden("hotplug-all.json", &world.virtnet(words).ok());
    let made = world.function("VNETS1D0F0").await;
    let sf = made.sf.as_ref().unwrap();
    assert_eq!((sf.port, sf.number.get(), sf.parent.as_str()), (EswitchPort::P1, 2345, "mlx5_1"));
    assert_eq!((made.mtu.get(), made.max_queues, made.max_queue_size.get()), (9000, 5, 512));
    assert_eq!(made.features.to_string(), "CSUM,MAC,VERSION_1");
    assert!(made.transitional);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_uplink_is_that_of_the_rdma_device() {
    let mut config = SimConfig { host_on: false, ..SimConfig::default() };
    config.rdma_devices.p0 = "mlx5_2".to_owned();
    let world = World::of(config).await;
    // A service that does not say what is configured.
    world.told.health.lock().unwrap().rdma_devices.clear();
    let named = |name| HOTPLUG.replace("mlx5_0", name);
    // The static PFs tell the name of the first port's device; nothing tells that of the second.
    let there = "there is mlx5_2 (p0) and mlx5_1 (p1)";
    for unknown in ["mlx5_0", "mlx5_bond_0", "p0"] {
        let line = format!("no uplink has the RDMA device {unknown:?}: {there}");
        world.virtnet(&named(unknown)).failed(&line);
    }
    world.virtnet(&named("mlx5_2")).ok();
    assert_eq!(world.function("VNETS1D0F0").await.sf.unwrap().port, EswitchPort::P0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_function_is_on_the_uplink_of_the_rdma_device_that_is_configured() {
    let mut config = SimConfig { host_on: false, ..SimConfig::default() };
    config.set_firmware(&["VIRTIO_NET_EMULATION_NUM_PF=0"]).unwrap();
    let names = &mut config.rdma_devices;
    std::mem::swap(&mut names.p0, &mut names.p1);
    let world = World::of(config).await;
    assert!(world.state().await.functions.is_empty());
    world.virtnet(HOTPLUG).ok();
    let sf = world.function("VNETS1D0F0").await.sf.unwrap();
    assert_eq!((sf.port, sf.parent.as_str()), (EswitchPort::P1, "mlx5_0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_plug_is_refused_in_the_controllers_words() {
    let world = without_host(&[]).await;
    world.virtnet(HOTPLUG).ok();
    world
        .virtnet(HOTPLUG)
        .failed("hot-plug 0c:c4:7a:ff:22:93: MAC 0c:c4:7a:ff:22:93 is in use by VNETS1D0F0 (slot 0)");
    world.virtnet(&HOTPLUG.replace("-n 3", "-n 4").replace(":93", ":94")).failed(
        "hot-plug 0c:c4:7a:ff:22:94: 4 queues need more than 4 MSI-X vectors and have 4 \
             (VIRTIO_NET_EMULATION_NUM_MSIX=4)",
    );
    assert_eq!(world.state().await.functions.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_plugged_function_is_unplugged_by_its_index_or_its_vuid() {
    let world = without_host(&[]).await;
    for words in ["unplug -p 4", "unplug -u VNETS1D0F0"] {
        world.virtnet(HOTPLUG).ok();
        assert!(world.state().await.functions.contains_key(&id(4, None)));
        golden("unplug.json", &world.virtnet(words).ok());
        assert!(!world.state().await.functions.contains_key(&id(4, None)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_hot_plugged_functions_are_unplugged() {
    let world = World::start(&["VIRTIO_NET_EMULATION_NUM_PF=1"]).await;
    world.sim.write_num_vfs(0.try_into().unwrap(), 1).unwrap();
    world.wait_in_use(2).await;
    let why = "only hot-plugged functions can be unplugged";
    world.virtnet("unplug -p 0").failed(&format!("unplug PF 0: {why}"));
    world.virtnet("unplug -u VNETS0D0F0VF1").failed(&format!("unplug VF 0 of PF 0: {why}"));
    world.virtnet("unplug -p 1").failed("there is no PF 1: virtnet list shows what there is");
    world
        .virtnet("unplug -u VNETS1D0F0")
        .failed("nothing has the VUID VNETS1D0F0: virtnet list shows what there is");
    assert_eq!(world.state().await.functions.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_changed_once_the_driver_is_gone() {
    let world = World::start(&["VIRTIO_NET_EMULATION_NUM_PF=1", "VIRTIO_NET_EMULATION_NUM_MSIX=8"]).await;
    world.virtnet(HOTPLUG).ok();
    let words = "modify -p 1 device -m 0C:C4:7A:FF:22:98 -t 9000 -f 0x100000021 -n 6 -q 2048";
    let before = world.wait_in_use(2).await.functions[&id(1, None)].clone();
    world.virtnet(words).failed(
        "modify VNETS1D0F0 (MAC 0c:c4:7a:ff:22:93, SF 2000): Virtio driver should not be loaded: unbind the \
         function from virtio-pci on the host",
    );
    assert_eq!(world.function("VNETS1D0F0").await, before);
    world.unbind("VNETS1D0F0").await;
    golden("modify.json", &world.virtnet(words).ok());
    let after = world.function("VNETS1D0F0").await;
    assert_eq!(after.mac.to_string(), "0c:c4:7a:ff:22:98");
    assert_eq!((after.mtu.get(), after.num_msix, after.max_queue_size.get()), (9000, 6, 2048));
    assert_eq!(after.features.to_string(), "CSUM,MAC,VERSION_1");
    // One setting leaves the others.
    world.virtnet("modify -u VNETS1D0F0 device --mtu 1400").ok();
    let last = world.function("VNETS1D0F0").await;
    assert_eq!((last.mtu.get(), last.mac, last.num_msix), (1400, after.mac, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modification_is_refused_in_the_controllers_words() {
    let world = without_host(&["VIRTIO_NET_EMULATION_NUM_PF=2"]).await;
    world
        .virtnet("modify -p 0 device -t 9000")
        .failed("modify PF 0: MTU is invalid: that of a static PF stays 1500");
    let taken = world.function("VNETS0D0F1").await.mac;
    world
        .virtnet(&format!("modify -p 0 device -m {taken}"))
        .failed(&format!("modify PF 0: MAC {taken} is in use by VNETS0D0F1 (static PF 1)"));
    world.virtnet("modify -p 2 device -t 9000").failed("there is no PF 2: virtnet list shows what there is");
    world.virtnet("modify -p 0 -v 200 device -t 9000").failed(
        "modify VF 200 of PF 0: there are VIRTIO_NET_EMULATION_NUM_PF=2 static PFs with \
         VIRTIO_NET_EMULATION_NUM_VF=126 VFs each, counted from 0; no other PF has VFs",
    );
    assert_eq!(world.function("VNETS0D0F0").await.mtu.get(), 1500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vf_is_made_with_all_that_it_was_told_before_it_was_there() {
    let world = World::start(&["VIRTIO_NET_EMULATION_NUM_PF=1"]).await;
    world.virtnet("modify -p 0 -v 1 device -m 0C:C4:7A:FF:22:98").ok();
    world.virtnet("modify -p 0 -v 1 device -t 9000").ok();
    world.virtnet("modify -p 0 -v 1 device -t 8000 -q 512").ok();
    let place = (0.try_into().unwrap(), 1.try_into().unwrap());
    let wanted = Change {
        mac: Some("0c:c4:7a:ff:22:98".parse().unwrap()),
        mtu: Some(8000.try_into().unwrap()),
        queue_size: Some(512.try_into().unwrap()),
        ..Change::default()
    };
    assert_eq!(world.state().await.prepared.get(&place), Some(&wanted));
    world.virtnet("query -p 0 -v 1").failed(
        "there is no VF 1 of PF 0: the host makes it (sriov_numvfs); it will have MAC 0c:c4:7a:ff:22:98, MTU 8000, \
         queue size 512 then; virtnet list shows what there is",
    );
    world.sim.write_num_vfs(0.try_into().unwrap(), 2).unwrap();
    let vf = &world.wait_in_use(3).await.functions[&id(0, Some(1))];
    assert_eq!(
        (Some(vf.mac), Some(vf.mtu), Some(vf.max_queue_size)),
        (wanted.mac, wanted.mtu, wanted.queue_size)
    );
}
