//! Section 1.3: static PFs and their VFs. `virtnetd host sriov PF N` is the guide's `echo N > …/sriov_numvfs`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::dpu::Dpu;
use crate::firmware::{HOTPLUG, SRIOV};
use crate::list::{List, NO_ADDRESS, is_up, text};

/// VFs that are all there: configured, with addresses and drivers.
fn make_vfs(dpu: &Dpu, pf: usize, count: usize) {
    dpu.host(&format!("sriov {pf} {count}"));
    dpu.until("the VFs with addresses and drivers", |list| {
        let vfs = list.of("VF").filter(|vf| vf["parent_pf_id"] == pf && is_up(vf));
        vfs.count() == count
    });
}

/// Number and RDMA device of the SF behind each VF.
fn sfs(dpu: &Dpu) -> Vec<(u64, String)> {
    let list = dpu.list();
    let each = |vf: &Value| (vf["sf_num"].as_u64().unwrap(), text(vf, "sf_rdma_device").to_owned());
    list.of("VF").map(each).collect()
}

#[test]
fn the_host_makes_vfs_and_the_list_has_the_guides_fields_of_each() {
    let dpu = Dpu::with_netdevs(SRIOV);
    // lspci and ethtool of the guide: there is a static PF, with its driver.
    let list = dpu.until_booted();
    assert_eq!(list.device("VNETS0D0F3")["bdf"], "85:00.3");
    dpu.until_bound("-p 0");
    make_vfs(&dpu, 0, 2);
    dpu.until_bound("-p 0 -v 0");
    let list = dpu.until("netdevs of both", |list| list.of("VF").all(|vf| vf["sf_rep_net_ifindex"].is_u64()));
    let vf = list.device("VNETS0D0F0VF1");
    let wanted = json!({
        "vf_id": 0,
        "parent_pf_id": 0,
        "function_type": "VF",
        "vuid": "VNETS0D0F0VF1",
        "bdf": "85:04.5",
        "sf_num": 3000,
        "sf_parent_device": "mlx5_0",
        "sf_rep_net_device": "en3f0pf0sf3000",
        "sf_rep_net_ifindex": vf["sf_rep_net_ifindex"],
        "sf_rdma_device": "mlx5_6",
        // Four static PFs have the first ones.
        "sf_vhca_id": "0x8",
        "msix_config_vector": "0x0",
        "num_msix": 4,
        "max_queues": 3,
        "max_queues_size": 256,
        "net_mac": vf["net_mac"],
        "net_mtu": 1500,
    });
    for (key, value) in wanted.as_object().unwrap() {
        assert_eq!(&vf[key], value, "{key}: {vf}");
    }
    let second = list.device("VNETS0D0F0VF2");
    for (key, value) in [
        ("vf_id", json!(1)),
        ("bdf", json!("85:04.6")),
        ("sf_num", json!(3001)),
        ("sf_rep_net_device", json!("en3f0pf0sf3001")),
    ] {
        assert_eq!(second[key], value, "{key}: {second}");
    }
    assert_ne!(vf["net_mac"], second["net_mac"]);

    let queried = dpu.until_bound("-p 0 -v 0");
    for (key, value) in vf.as_object().unwrap() {
        assert_eq!(&queried[key], value, "{key}: {queried}");
    }
    assert!(queried["supported_features"]["names"].as_array().unwrap().contains(&json!("VERSION_1")));
    assert!(dpu.text("virtnet query -p 0 -v 0").contains("\"sf_rep_net_device\": \"en3f0pf0sf3000\","));
    dpu.ip("link set dev en3f0pf0sf3000 up");

    dpu.host("sriov 0 0");
    dpu.until("no VFs", |list| list.of("VF").count() == 0);
    let why = dpu.refused("virtnet query -p 0 -v 0");
    assert!(why.contains("there is no VF 0 of PF 0: the host makes it (sriov_numvfs)"), "{why}");
}

#[test]
fn settings_can_be_given_to_a_vf_before_the_host_makes_it() {
    let dpu = Dpu::start(SRIOV);
    dpu.until_booted();
    dpu.done("virtnet modify -p 0 -v 1 device -m 0C:C4:7A:FF:22:98");
    dpu.done("virtnet modify -p 0 -v 1 device -t 9000 -q 512");
    let why = dpu.refused("virtnet query -p 0 -v 1");
    assert!(why.contains("it will have MAC 0c:c4:7a:ff:22:98"), "{why}");
    assert_eq!(dpu.list().of("VF").count(), 0);
    make_vfs(&dpu, 0, 2);
    let vf = dpu.until_bound("-p 0 -v 1");
    assert_eq!(
        (&vf["net_mac"], &vf["net_mtu"], &vf["max_queues_size"]),
        (&json!("0C:C4:7A:FF:22:98"), &json!(9000), &json!(512)),
        "{vf}"
    );
    let other = dpu.query("-p 0 -v 0");
    assert_eq!((&other["net_mtu"], &other["max_queues_size"]), (&json!(1500), &json!(256)), "{other}");
}

#[test]
fn the_log_tells_when_vfs_are_gone_and_their_sfs_are_used_again() {
    let dpu = Dpu::start(SRIOV);
    dpu.until_booted();
    make_vfs(&dpu, 0, 4);
    let before = sfs(&dpu);
    assert_eq!(before.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3000, 3001, 3002, 3003]);
    dpu.host("sriov 0 0");
    let log = dpu.until_logged("PF(0): Unload (4) VFs finished");
    assert_eq!(log.matches("Unload (").count(), 1, "{log}");
    assert_eq!(dpu.list().of("VF").count(), 0);
    // Were they destroyed, the next SF to be made would have the RDMA device of one of them.
    dpu.run("virtnet hotplug -i mlx5_0 -f 0x0 -m 0C:C4:7A:FF:22:93 -t 1500 -n 3 -s 1024");
    let made = dpu.query("-p 4");
    assert!(before.iter().all(|(_, device)| made["sf_rdma_device"] != device.as_str()), "{made}");
    make_vfs(&dpu, 0, 4);
    assert_eq!(sfs(&dpu), before);
    // Those of another PF take them too.
    dpu.host("sriov 0 0");
    dpu.until("no VFs", |list| list.of("VF").count() == 0);
    make_vfs(&dpu, 3, 2);
    assert_eq!(sfs(&dpu), before[..2]);
}

#[test]
fn a_changed_mtu_of_a_port_asks_for_a_restart() {
    let dpu = Dpu::start(SRIOV);
    dpu.until_booted();
    make_vfs(&dpu, 0, 2);
    let asked = |list: &List| list.controller().get("restart_required").cloned();
    let before = dpu.list();
    assert_eq!(asked(&before), None);
    dpu.host("uplink-mtu p0 9000");
    let list = dpu.until("a wish for a restart", |list| asked(list).is_some());
    let why = asked(&list).unwrap();
    let why = why.as_str().unwrap();
    assert!(why.starts_with("the MTU of p0 changed from 1500 to 9000 since the controller started"), "{why}");
    // Functions stay as they are, before and after it.
    assert_eq!(list.devices(), before.devices());
    dpu.hang_up();
    let list = dpu.until("no wish for a restart", |list| asked(list).is_none());
    assert_eq!(list.devices(), before.devices());
}

#[test]
fn the_host_goes_from_one_number_of_vfs_to_another_by_way_of_none() {
    let dpu = Dpu::start(SRIOV);
    dpu.until_booted();
    make_vfs(&dpu, 0, 2);
    assert!(dpu.host_refused("sriov 0 3").contains("Device or resource busy"));
    assert!(dpu.host_refused("sriov 1 127").contains("Numerical result out of range"));
    assert_eq!(dpu.list().of("VF").count(), 2);
    dpu.host("sriov 0 0");
    dpu.until_logged("PF(0): Unload (2) VFs finished");
    make_vfs(&dpu, 0, 3);
}

#[test]
fn hot_plugged_functions_have_no_vfs() {
    let dpu = Dpu::start(HOTPLUG);
    dpu.run("virtnet hotplug -i mlx5_0 -f 0x0 -m 0C:C4:7A:FF:22:93 -t 1500 -n 3 -s 1024");
    dpu.until_bound("-p 0");
    let why = dpu.host_refused("sriov 0 1");
    assert!(why.contains("there is no static PF of this index, and no other has VFs"), "{why}");
    let why = dpu.refused("virtnet modify -p 0 -v 0 device -m 0C:C4:7A:FF:22:98");
    assert!(why.contains("no other PF has VFs"), "{why}");
}

#[test]
fn four_static_pfs_have_125_vfs_each() {
    let dpu = Dpu::start(SRIOV);
    dpu.until_booted();
    for pf in 0..4 {
        dpu.host(&format!("sriov {pf} 125"));
    }
    let list = dpu.until("500 VFs with addresses", |list| {
        list.of("VF").filter(|vf| vf["bdf"] != NO_ADDRESS).count() == 500
    });
    for key in ["vuid", "bdf", "net_mac", "sf_rep_net_device", "sf_rdma_device"] {
        let values: BTreeSet<_> = list.devices().iter().map(|device| text(device, key)).collect();
        assert_eq!(values.len(), 504, "{key}");
    }
    dpu.until_bound("-p 3 -v 124");
    for pf in 0..4 {
        dpu.host(&format!("sriov {pf} 0"));
        dpu.until_logged(&format!("PF({pf}): Unload (125) VFs finished"));
    }
    assert_eq!(dpu.list().devices().len(), 4);
}

#[test]
fn vfs_are_not_transitional() {
    let layout = "mlxconfig -d /dev/mst/mt41686_pciconf0 s VIRTIO_NET_EMULATION_PF_PCI_LAYOUT=1 \
                  VIRTIO_NET_EMULATION_VF_PCI_LAYOUT=1 VIRTIO_EMULATION_HOTPLUG_TRANS=1";
    let dpu = Dpu::start(&[SRIOV, &[layout]].concat());
    dpu.until_booted();
    make_vfs(&dpu, 0, 1);
    assert_eq!(dpu.until_bound("-p 0 -v 0")["transitional"], 0);
    let output = dpu.output("virtnet modify -p 0 -v 1 device -l");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(dpu.query("-p 0")["transitional"], 0, "a static PF is modern too");
}
