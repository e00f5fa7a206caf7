//! Section 1.1: the service, its configuration and its command.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::{Value, json};

use crate::dpu::Dpu;
use crate::firmware::{HOTPLUG, SRIOV};
use crate::list::text;

/// The example without LAG in section 1.1.1.
pub(crate) const PORTS: &str = r#"{
"ib_dev_p0": "mlx5_0",
"ib_dev_p1": "mlx5_1",
"ib_dev_for_static_pf": "mlx5_0",
"is_lag": 0,
"pf_mac": "00:11:22:33:44:55",
"recovery": 1,
"sf_pool_percent": 0,
"sf_pool_force_destroy": 0
}
"#;

/// The example with LAG there.
pub(crate) const LAG: &str = r#"{
"ib_dev_lag": "mlx5_bond_0",
"ib_dev_for_static_pf": "mlx5_bond_0",
"is_lag": 1,
"pf_mac": "00:11:22:33:44:55",
"recovery": 1,
"sf_pool_percent": 0,
"sf_pool_force_destroy": 0
}
"#;

/// MAC and RDMA device of each static PF.
pub(crate) fn static_pfs(dpu: &Dpu) -> Vec<(String, String)> {
    let list = dpu.list();
    let each = |pf: &Value| (text(pf, "net_mac").to_owned(), text(pf, "sf_parent_device").to_owned());
    list.of("static PF").map(each).collect()
}

/// What `virtnetd check` says of a virtnet.conf.
fn check(conf: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("virtnet.conf");
    std::fs::write(&path, conf).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtnetd"));
    let output = command.arg("check").arg(path).env_remove("JOURNAL_STREAM").output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

pub(crate) fn hotplug(device: &str, mac: &str) -> String {
    format!("virtnet hotplug -i {device} -f 0x0 -m {mac} -t 1500 -n 3 -s 1024")
}

#[test]
fn static_pfs_are_on_port_0_with_the_guides_virtnet_conf() {
    assert_eq!(check(PORTS), (true, String::new()));
    let dpu = Dpu::with_conf(SRIOV, PORTS);
    let wanted = ["00:11:22:33:44:55", "00:11:22:33:44:56", "00:11:22:33:44:57", "00:11:22:33:44:58"];
    assert_eq!(static_pfs(&dpu), wanted.map(|mac| (mac.to_owned(), "mlx5_0".to_owned())));
    assert_eq!(dpu.list().controller()["emulation_manager"], "mlx5_0");
    // SFs of hot-plugged functions are made on either port.
    let first = dpu.run(&hotplug("mlx5_0", "0C:C4:7A:FF:22:93"));
    assert_eq!(first["sf_rep_net_device"], "en3f0pf0sf2000");
    let second = dpu.run(&hotplug("mlx5_1", "0C:C4:7A:FF:22:94"));
    assert_eq!(second["sf_rep_net_device"], "en3f1pf1sf2000");
    assert_eq!(dpu.list().device(text(&second, "vuid"))["sf_parent_device"], "mlx5_1");
}

#[test]
fn all_sfs_are_on_the_bond_with_the_guides_virtnet_conf_for_lag() {
    assert_eq!(check(LAG), (true, String::new()));
    let dpu = Dpu::with_conf(SRIOV, LAG);
    let wanted = ["00:11:22:33:44:55", "00:11:22:33:44:56", "00:11:22:33:44:57", "00:11:22:33:44:58"];
    assert_eq!(static_pfs(&dpu), wanted.map(|mac| (mac.to_owned(), "mlx5_bond_0".to_owned())));
    let list = dpu.until_booted();
    assert_eq!(list.controller()["emulation_manager"], "mlx5_bond_0");
    assert!(list.controller().get("restart_required").is_none(), "{list:?}");
    dpu.run(&hotplug("mlx5_bond_0", "0C:C4:7A:FF:22:93"));
    let why = dpu.refused(&hotplug("mlx5_0", "0C:C4:7A:FF:22:94"));
    assert!(why.contains("no uplink has the RDMA device \"mlx5_0\": there is mlx5_bond_0 (bond)"), "{why}");
    dpu.host("sriov 0 1");
    dpu.until("a VF", |list| list.of("VF").count() == 1);
    assert_eq!(dpu.query("-p 0 -v 0")["sf_parent_device"], "mlx5_bond_0");
}

#[test]
fn the_bond_and_its_ports_exclude_each_other_in_virtnet_conf() {
    let (taken, why) = check(&LAG.replace("\"is_lag\"", "\"ib_dev_p0\": \"mlx5_0\",\n\"is_lag\""));
    assert!(!taken && why.contains("line 4: ib_dev_p0: with is_lag 1 SFs are made on ib_dev_lag"), "{why}");
    let (taken, why) = check(&PORTS.replace("\"ib_dev_p1\": \"mlx5_1\"", "\"ib_dev_lag\": \"mlx5_bond_0\""));
    assert!(
        !taken && why.contains("line 3: ib_dev_lag: without is_lag 1 SFs are made on ib_dev_p0"),
        "{why}"
    );
    let (taken, why) = check(&LAG.replace("static_pf\": \"mlx5_bond_0", "static_pf\": \"mlx5_0"));
    assert!(!taken && why.contains("line 3: ib_dev_for_static_pf: mlx5_0 is not mlx5_bond_0"), "{why}");
}

#[test]
fn virtnet_conf_is_read_at_each_start_and_at_no_other_time() {
    let mut dpu = Dpu::with_conf(SRIOV, PORTS);
    std::fs::write(dpu.conf(), PORTS.replace("44:55", "44:A0")).unwrap();
    assert_eq!(static_pfs(&dpu)[0].0, "00:11:22:33:44:55");
    dpu.stop();
    dpu.start_again();
    let macs: Vec<_> = static_pfs(&dpu).into_iter().map(|(mac, _)| mac).collect();
    assert_eq!(macs, ["00:11:22:33:44:A0", "00:11:22:33:44:A1", "00:11:22:33:44:A2", "00:11:22:33:44:A3"]);
}

#[test]
fn a_percentage_of_pf_total_sf_is_made_beforehand_and_vfs_take_of_it() {
    let conf = PORTS.replace("\"sf_pool_percent\": 0", "\"sf_pool_percent\": 5");
    let dpu = Dpu::with_conf_and_netdevs(SRIOV, &conf);
    let representors = || {
        let links: Value = serde_json::from_str(&dpu.ip("-json link show")).unwrap();
        let names = links.as_array().unwrap().iter().map(|link| text(link, "ifname").to_owned());
        names.filter(|name| name.starts_with("en3f0pf0sf3")).collect::<Vec<_>>()
    };
    let made = dpu.wait("5 % of 508", || {
        let made = representors();
        if made.len() == 508 * 5 / 100 { Ok(made) } else { Err(made) }
    });
    dpu.until_booted();
    dpu.host("sriov 0 2");
    let list = dpu.until("VFs", |list| list.of("VF").count() == 2);
    assert_eq!(list.device("VNETS0D0F0VF2")["sf_rep_net_device"], "en3f0pf0sf3001");
    assert_eq!(representors(), made);
}

#[test]
fn a_percentage_that_pf_total_sf_has_no_room_for_is_told() {
    let conf = PORTS.replace("\"sf_pool_percent\": 0", "\"sf_pool_percent\": 100");
    let little = "mlxconfig -d /dev/mst/mt41686_pciconf0 s PF_TOTAL_SF=10";
    let dpu = Dpu::with_conf(&[SRIOV, &[little]].concat(), &conf);
    let log = dpu.until_logged(
        "sf_pool_percent=100 wants 10 SFs in the pool, and 6 could be made: PF_TOTAL_SF=10 of p0",
    );
    assert!(log.contains("4 static PFs"), "{log}");
    assert_eq!(static_pfs(&dpu).len(), 4);
}

#[test]
fn no_sf_has_a_number_below_1000() {
    let dpu = Dpu::start(SRIOV);
    dpu.until_booted();
    dpu.host("sriov 0 2");
    dpu.run(&hotplug("mlx5_0", "0C:C4:7A:FF:22:93"));
    let list = dpu.until("all of them", |list| list.devices().len() == 4 + 2 + 1);
    let mut numbers: Vec<_> =
        list.devices().iter().map(|device| device["sf_num"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1000, 1001, 1002, 1003, 2000, 3000, 3001]);
    for device in list.devices() {
        assert_eq!(device["sf_rep_net_device"], format!("en3f0pf0sf{}", device["sf_num"]));
    }
    let why = dpu.refused(&format!("{} -u 999", hotplug("mlx5_0", "0C:C4:7A:FF:22:94")));
    assert!(why.contains("numbers below 1000 are other applications'"), "{why}");
}

#[test]
fn nothing_is_emulated_where_the_firmware_says_so() {
    let off = "mlxconfig -d /dev/mst/mt41686_pciconf0 s VIRTIO_NET_EMULATION_ENABLE=0";
    let dpu = Dpu::start(&[SRIOV, &[off]].concat());
    assert!(dpu.list().devices().is_empty());
    let why = dpu.refused(&hotplug("mlx5_0", "0C:C4:7A:FF:22:93"));
    assert!(why.contains("VIRTIO_NET_EMULATION_ENABLE is 0"), "{why}");
}

#[test]
fn the_help_lists_the_guides_commands_of_which_each_has_its_own() {
    let dpu = Dpu::start(HOTPLUG);
    let help = dpu.text("virtnet -h");
    for verb in ["hotplug", "unplug", "list", "query", "modify", "log", "version"] {
        assert!(help.lines().any(|line| line.split_whitespace().next() == Some(verb)), "{verb}: {help}");
        assert!(
            dpu.text(&format!("virtnet {verb} -h")).contains(&format!("Usage: virtnet {verb}")),
            "{verb}"
        );
    }
    for option in ["-h, --help", "-v, --version"] {
        assert!(help.contains(option), "{option}: {help}");
    }
    let log = dpu.text("virtnet log -h");
    assert!(log.contains("-l, --level"), "{log}");
    assert!(log.contains("info, err, debug"), "{log}");
    assert_eq!(dpu.text("virtnet -v"), dpu.text("virtnet --version"));
    assert_eq!(dpu.output("virtnet log").status.code(), Some(2), "-l is required");
}

#[test]
fn the_level_of_the_log_can_be_set_while_the_service_runs() {
    let dpu = Dpu::start(SRIOV);
    dpu.until_booted();
    let make_and_unmake = |vfs: usize| {
        dpu.host(&format!("sriov 0 {vfs}"));
        dpu.until("VFs", |list| list.of("VF").count() == vfs);
        dpu.host("sriov 0 0");
        dpu.until("no VFs", |list| list.of("VF").count() == 0);
    };
    dpu.done("virtnet log -l err");
    make_and_unmake(1);
    dpu.done("virtnet log -l info");
    make_and_unmake(2);
    let log = dpu.until_logged("Unload (2) VFs finished");
    assert!(!log.contains("Unload (1) VFs finished"), "{log}");
    assert!(!log.contains("DEBUG"), "{log}");
    // Something that is of interest to nobody but who looks for a mistake.
    let tell = || {
        let mut client = UnixStream::connect(dpu.socket()).unwrap();
        client.write_all(b"{\"jsonrpc\":\"2.0\",\"method\":\"told\"}\n").unwrap();
    };
    dpu.done("virtnet log --level debug");
    tell();
    dpu.until_logged("DEBUG");
    let output = dpu.output("virtnet log -l loud");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_vf_is_modified_by_its_index_or_by_its_vuid() {
    let dpu = Dpu::start(SRIOV);
    dpu.until_booted();
    dpu.host("sriov 0 1");
    dpu.until("a VF", |list| list.of("VF").count() == 1);
    dpu.unbind("-p 0 -v 0");
    dpu.done("virtnet modify -p 0 -v 0 device -m 0C:C4:7A:FF:22:98");
    let vf = dpu.query("-p 0 -v 0");
    let vuid = text(&vf, "vuid");
    assert_eq!(dpu.list().device(vuid)["net_mac"], "0C:C4:7A:FF:22:98");
    dpu.done(&format!("virtnet modify -u {vuid} device -m 0C:C4:7A:FF:22:99"));
    assert_eq!(dpu.query("-p 0 -v 0")["net_mac"], "0C:C4:7A:FF:22:99");
    assert_eq!(dpu.query(&format!("-u {vuid}")), dpu.query("-p 0 -v 0"));
}

/// Option of `modify`, a value, and where and how the value is shown.
type Setting = (&'static str, &'static str, &'static str, Value);

const BOUND: &str = "Virtio driver should not be loaded";

/// The guide's three steps for each setting: unbind at the guest, modify on the Arm side, bind at the guest.
fn takes_only_while_unbound(dpu: &Dpu, which: &str, settings: &[Setting]) {
    for (option, value, shown, wanted) in settings {
        let before = dpu.until_bound(which);
        let modify = format!("virtnet modify {which} device {option} {value}");
        let why = dpu.refused(&modify);
        assert!(why.contains(BOUND), "{modify}: {why}");
        assert_eq!(dpu.query(which), before, "{modify}");

        let bdf = dpu.unbind(which);
        dpu.done(&modify);
        dpu.host(&format!("bind {bdf}"));
        let after = dpu.until_bound(which);
        assert_eq!(after.pointer(shown), Some(wanted), "{modify}: {after}");
        assert_ne!(before.pointer(shown), Some(wanted), "{modify} changes nothing");
        assert_eq!(after["bdf"], bdf);
    }
}

#[test]
fn five_settings_of_a_hot_plugged_function_need_the_driver_unbound() {
    let dpu = Dpu::start(HOTPLUG);
    dpu.run(&hotplug("mlx5_0", "0C:C4:7A:FF:22:93"));
    takes_only_while_unbound(
        &dpu,
        "-p 0",
        &[
            ("-m", "0C:C4:7A:FF:22:98", "/net_mac", json!("0C:C4:7A:FF:22:98")),
            ("-t", "9000", "/net_mtu", json!(9000)),
            ("-f", "0x100000029", "/supported_features/names", json!(["CSUM", "MTU", "MAC", "VERSION_1"])),
            ("-n", "5", "/num_msix", json!(5)),
            ("-q", "512", "/max_queues_size", json!(512)),
        ],
    );
}

#[test]
fn settings_of_a_vf_need_the_driver_unbound() {
    let dpu = Dpu::start(SRIOV);
    dpu.until_booted();
    dpu.host("sriov 0 1");
    dpu.until("a VF", |list| list.of("VF").count() == 1);
    takes_only_while_unbound(
        &dpu,
        "-p 0 -v 0",
        &[
            ("-m", "0C:C4:7A:FF:22:98", "/net_mac", json!("0C:C4:7A:FF:22:98")),
            ("-t", "9000", "/net_mtu", json!(9000)),
            ("-f", "0x100000029", "/supported_features/names", json!(["CSUM", "MTU", "MAC", "VERSION_1"])),
            ("-n", "3", "/num_msix", json!(3)),
            ("-n", "4", "/max_queues", json!(3)),
            ("-q", "512", "/max_queues_size", json!(512)),
        ],
    );
}

#[test]
fn settings_of_a_static_pf_need_the_driver_unbound_and_its_mtu_stays() {
    let dpu = Dpu::start(SRIOV);
    dpu.until_booted();
    takes_only_while_unbound(
        &dpu,
        "-p 0",
        &[
            ("-m", "0C:C4:7A:FF:22:98", "/net_mac", json!("0C:C4:7A:FF:22:98")),
            ("-f", "0x100000029", "/supported_features/names", json!(["CSUM", "MTU", "MAC", "VERSION_1"])),
            ("-n", "3", "/max_queues", json!(2)),
            ("-q", "512", "/max_queues_size", json!(512)),
        ],
    );
    dpu.unbind("-p 0");
    let why = dpu.refused("virtnet modify -p 0 device -t 9000");
    assert!(why.contains("MTU is invalid"), "{why}");
}

#[test]
fn the_versions_that_run_and_are_installed_are_told() {
    let dpu = Dpu::start(HOTPLUG);
    let version = env!("CARGO_PKG_VERSION");
    let told = dpu.run("virtnet version");
    assert_eq!(told, json!({"Original Controller": version, "Destination Controller": version}));
}

#[test]
fn a_function_that_is_being_moved_appears_as_migrating_and_can_be_tried_again() {
    let dpu = Dpu::start(SRIOV);
    dpu.until_booted();
    dpu.host("sriov 0 2");
    dpu.until("VFs", |list| list.of("VF").count() == 2);
    let bdf = text(&dpu.until_bound("-p 0 -v 0"), "bdf").to_owned();
    dpu.until_bound("-p 0 -v 1");
    dpu.host(&format!("migrate {bdf} true"));
    let list = dpu.until("that it is moved", |list| list.device("VNETS0D0F0VF1")["status"] == "migrating");
    assert_eq!(list.devices().iter().filter(|device| device.get("status").is_some()).count(), 1, "{list:?}");
    assert_eq!(dpu.query("-p 0 -v 0")["status"], "migrating");
    let modify = "virtnet modify -p 0 -v 0 device -t 9000";
    let why = dpu.refused(modify);
    assert!(why.contains("migrating: try again when that has ended"), "{why}");
    dpu.unbind("-p 0 -v 1");
    dpu.done("virtnet modify -p 0 -v 1 device -t 9000");
    dpu.host(&format!("migrate {bdf} false"));
    dpu.until("that it was moved", |list| list.device("VNETS0D0F0VF1").get("status").is_none());
    dpu.unbind("-p 0 -v 0");
    dpu.done(modify);
}
