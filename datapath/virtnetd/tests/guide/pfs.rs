//! Section 1.2: hot-plugged functions, modern and transitional.

use serde_json::json;

use crate::dpu::Dpu;
use crate::firmware::{HOTPLUG, SRIOV, TRANSITIONAL};
use crate::list::{List, NO_ADDRESS, is_up, text};

/// The command of section 1.2.2.
const FIRST: &str = "virtnet hotplug -i mlx5_0 -f 0x0 -m 0C:C4:7A:FF:22:93 -t 1500 -n 3 -s 1024";

/// The same with a MAC and a number of queues of one's own.
fn hotplug(last: u8, queues: u16) -> String {
    format!("virtnet hotplug -i mlx5_0 -f 0x0 -m 0C:C4:7A:FF:23:{last:02X} -t 1500 -n {queues} -s 1024")
}

#[test]
fn functions_are_hot_plugged_shown_modified_and_unplugged() {
    let dpu = Dpu::start(HOTPLUG);
    assert!(dpu.list().devices().is_empty());

    // The host's address is in the reply only where the host has found the function that soon.
    let reply = dpu.run(FIRST);
    let wanted = json!({
        "bdf": reply["bdf"],
        "vuid": "VNETS1D0F0",
        "id": 0,
        "transitional": 0,
        "sf_rep_net_device": "en3f0pf0sf2000",
        "mac": "0C:C4:7A:FF:22:93",
    });
    assert_eq!(reply, wanted);
    let found = |list: &List| list.device("VNETS1D0F0")["bdf"] != NO_ADDRESS;
    let list = dpu.until("the address that the host gives", found);
    let bdf = &list.device("VNETS1D0F0")["bdf"];
    assert!(reply["bdf"] == *bdf || reply["bdf"] == NO_ADDRESS, "{reply}: {bdf}");

    // The guide goes on with the second PF and the first.
    let second = dpu.run(&hotplug(1, 3));
    assert_eq!((&second["id"], &second["vuid"]), (&json!(1), &json!("VNETS2D0F0")));
    let device = dpu.until_bound("-p 1");
    for (key, value) in [
        ("pf_id", json!(1)),
        ("function_type", json!("hotplug PF")),
        ("vuid", json!("VNETS2D0F0")),
        ("sf_num", json!(2001)),
        ("sf_parent_device", json!("mlx5_0")),
        ("sf_rep_net_device", json!("en3f0pf0sf2001")),
        ("num_msix", json!(10)),
        ("max_queues", json!(3)),
        ("max_queues_size", json!(1024)),
        ("net_mac", json!("0C:C4:7A:FF:23:01")),
        ("net_mtu", json!(1500)),
        ("transitional", json!(0)),
    ] {
        assert_eq!(device[key], value, "{key}: {device}");
    }
    let list = dpu.list();
    let vuids: Vec<_> = list.of("hotplug PF").map(|device| text(device, "vuid")).collect();
    assert_eq!(vuids, ["VNETS1D0F0", "VNETS2D0F0"]);
    assert_ne!(list.devices()[0]["bdf"], list.devices()[1]["bdf"]);

    dpu.unbind("-p 0");
    dpu.done("virtnet modify -p 0 device -m 0C:C4:7A:FF:22:98");
    assert_eq!(dpu.query("-p 0")["net_mac"], "0C:C4:7A:FF:22:98");

    dpu.done("virtnet unplug -p 1");
    let list = dpu.list();
    assert_eq!(list.devices().len(), 1, "{list:?}");
    assert_eq!(list.device("VNETS1D0F0")["net_mac"], "0C:C4:7A:FF:22:98");
    let why = dpu.refused("virtnet unplug -p 1");
    assert!(why.contains("there is no PF 1"), "{why}");
    dpu.done("virtnet unplug -u VNETS1D0F0");
    assert!(dpu.list().devices().is_empty());
}

#[test]
fn the_representor_of_the_reply_is_a_netdev_that_can_be_brought_up() {
    let dpu = Dpu::with_netdevs(HOTPLUG);
    let reply = dpu.run(FIRST);
    let representor = text(&reply, "sf_rep_net_device");
    let list = dpu.until("its netdev", |list| list.devices()[0].get("sf_rep_net_ifindex").is_some());
    dpu.ip(&format!("link set dev {representor} up"));
    let link: serde_json::Value =
        serde_json::from_str(&dpu.ip(&format!("-json link show dev {representor}"))).unwrap();
    assert_eq!(link[0]["ifindex"], list.devices()[0]["sf_rep_net_ifindex"]);
    assert!(link[0]["flags"].as_array().unwrap().contains(&json!("UP")), "{link}");
    dpu.done("virtnet unplug -p 0");
    assert!(!dpu.ip("link show").contains(representor));
}

#[test]
fn queues_are_bounded_by_msix_vectors_and_by_max_virtq() {
    // One vector is the configuration's.
    let dpu = Dpu::start(HOTPLUG);
    for queues in [10, 11] {
        let why = dpu.refused(&hotplug(1, queues));
        assert!(why.contains("VIRTIO_NET_EMULATION_NUM_MSIX=10"), "{queues}: {why}");
    }
    dpu.run(&hotplug(1, 9));
    assert_eq!(dpu.query("-p 0")["max_queues"], 9);

    let many = "mlxconfig -d /dev/mst/mt41686_pciconf0 s VIRTIO_NET_EMULATION_NUM_MSIX=1024";
    let dpu = Dpu::start(&[HOTPLUG, &[many]].concat());
    let list = dpu.list();
    let max_virtq = u16::try_from(list.controller()["max_virtq"].as_u64().unwrap()).unwrap();
    let why = dpu.refused(&hotplug(1, max_virtq + 1));
    assert!(why.contains(&format!("max_virtq={max_virtq}")), "{why}");
    dpu.run(&hotplug(1, max_virtq));
    assert_eq!(dpu.query("-p 0")["max_queues"], max_virtq);
}

#[test]
fn sixteen_functions_can_be_hot_plugged_and_no_more() {
    let dpu = Dpu::start(HOTPLUG);
    assert_eq!(dpu.list().controller()["max_hotplug_devices"], 16);
    for last in 0..16 {
        assert_eq!(dpu.run(&hotplug(last, 3))["id"], last);
    }
    let why = dpu.refused(&hotplug(16, 3));
    assert!(why.contains("16 of PCI_SWITCH_EMULATION_NUM_PORT=16 taken"), "{why}");
}

#[test]
fn hot_plugged_functions_go_when_the_controller_is_terminated() {
    let mut dpu = Dpu::start(SRIOV);
    dpu.until_booted();
    let id = dpu.run(FIRST)["id"].clone();
    assert_eq!(id, 4, "after the four static PFs");
    dpu.until_bound("-p 4");
    // Its end tells of whatever is left behind, and is not in good order then.
    let log = dpu.stop();
    assert!(log.contains("the service ends, and hot-plugged functions with it"), "{log}");
    assert!(!log.contains("ERROR") && !log.contains("left behind"), "{log}");
    dpu.start_again();
    let list = dpu.until_booted();
    assert_eq!((list.of("hotplug PF").count(), list.of("static PF").count()), (0, 4), "{list:?}");
    // Its slot, its SF and its MAC are free.
    assert_eq!(dpu.run(FIRST)["sf_rep_net_device"], "en3f0pf0sf2000");
}

#[test]
fn hot_plugged_functions_go_at_a_cold_boot_and_stay_at_a_reboot_of_the_host() {
    let dpu = Dpu::start(SRIOV);
    let booted = dpu.until_booted();
    dpu.run(FIRST);
    let before = dpu.until_bound("-p 4");
    dpu.host("sriov 0 1");
    dpu.until("a VF", |list| list.of("VF").count() == 1);
    dpu.host("reboot");
    dpu.until("no VF, which no reboot leaves", |list| list.of("VF").count() == 0);
    assert_eq!(dpu.until_bound("-p 4"), before);
    dpu.host("power-cycle");
    let list = dpu.until_up_again("static PFs alone, with addresses and drivers", |list| {
        list.devices().len() == 4 && list.of("static PF").all(is_up)
    });
    assert_eq!(list.devices(), booted.devices());
}

#[test]
fn only_hot_plugged_functions_can_be_unplugged() {
    let dpu = Dpu::start(SRIOV);
    let why = dpu.refused("virtnet unplug -p 0");
    assert!(why.contains("only hot-plugged functions can be unplugged"), "{why}");
    assert_eq!(dpu.list().of("static PF").count(), 4);
}

#[test]
fn a_transitional_function_needs_the_guides_firmware() {
    let legacy = format!("{FIRST} -l");
    let dpu = Dpu::start(HOTPLUG);
    let why = dpu.refused(&legacy);
    for key in ["VIRTIO_NET_EMULATION_PF_PCI_LAYOUT=1", "VIRTIO_EMULATION_HOTPLUG_TRANS=1"] {
        assert!(why.contains(key), "{why}");
    }
    assert!(dpu.list().devices().is_empty());

    let dpu = Dpu::start(&[HOTPLUG, &[TRANSITIONAL]].concat());
    let reply = dpu.run(&legacy);
    assert_eq!(reply["transitional"], 1, "{reply}");
    let device = dpu.until_bound("-p 0");
    assert_eq!(device["transitional"], 1, "{device}");
    // Modern ones can still be made beside it.
    assert_eq!(dpu.run(&hotplug(1, 3))["transitional"], 0);
    dpu.done("virtnet unplug -p 0");
    assert_eq!(dpu.run(&format!("{FIRST} --legacy"))["transitional"], 1);
}

#[test]
fn transitional_functions_are_as_many_as_windows_of_the_hosts_io_space() {
    let dpu = Dpu::start(&[HOTPLUG, &[TRANSITIONAL]].concat());
    // (64 KiB - 4 KiB) / 4 KiB
    for last in 0..15 {
        dpu.run(&format!("{} -l", hotplug(last, 3)));
    }
    let why = dpu.refused(&format!("{} -l", hotplug(15, 3)));
    assert!(why.contains("I/O space holds 15 transitional functions"), "{why}");
    assert_eq!(dpu.run(&hotplug(15, 3))["transitional"], 0);
}
