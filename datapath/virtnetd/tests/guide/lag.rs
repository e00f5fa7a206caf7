//! Section 1.1.1 with LAG: the service is stopped, the bond is made, virtnet.conf is written for it, and the service is started.
//! Whoever does it in another order is told what to do, and gets there by doing it.

use crate::dpu::Dpu;
use crate::firmware::SRIOV;
use crate::list::{List, text};
use crate::service::{LAG, PORTS, hotplug, static_pfs};

const FIRST: &str = "0C:C4:7A:FF:22:93";
const SECOND: &str = "0C:C4:7A:FF:22:94";

/// What is to be done where the bond is there and the service is not configured for it.
const CONFIGURE: &str = "the ports are bonded and is_lag is 0: stop the controller, set is_lag to 1, and ib_dev_lag and \
                         ib_dev_for_static_pf to the bond's RDMA device, without ib_dev_p0 and ib_dev_p1, and start it again";

fn write_conf(dpu: &Dpu, conf: &str) {
    std::fs::write(dpu.conf(), conf).unwrap();
}

/// Whether a restart is asked for, and why.
fn asked(list: &List) -> Option<&str> {
    list.controller().get("restart_required").map(|why| why.as_str().unwrap())
}

/// Waits until commands are refused, each with this reason.
fn until_refused(dpu: &Dpu, why: &str) {
    dpu.wait(why, || {
        let output = dpu.output("virtnet list");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let refused = output.status.code() == Some(1) && output.stdout.is_empty() && told.contains(why);
        if refused { Ok(()) } else { Err(output) }
    });
}

/// That all there is lies on the bond, and all that is made.
fn is_on_the_bond(dpu: &Dpu) {
    let list = dpu.until_up_again("static PFs", |list| list.of("static PF").count() == 4);
    assert_eq!(list.controller()["emulation_manager"], "mlx5_bond_0");
    assert_eq!(asked(&list), None);
    let wanted = ["00:11:22:33:44:55", "00:11:22:33:44:56", "00:11:22:33:44:57", "00:11:22:33:44:58"];
    assert_eq!(static_pfs(dpu), wanted.map(|mac| (mac.to_owned(), "mlx5_bond_0".to_owned())));
    for port in ["mlx5_0", "mlx5_1"] {
        let why = dpu.refused(&hotplug(port, FIRST));
        assert!(why.contains("there is mlx5_bond_0 (bond)"), "{why}");
    }
    let reply = dpu.run(&hotplug("mlx5_bond_0", FIRST));
    assert_eq!(reply["sf_rep_net_device"], "en3f0pf0sf2000");
    assert_eq!(dpu.list().device(text(&reply, "vuid"))["sf_parent_device"], "mlx5_bond_0");
    dpu.until_booted();
    dpu.host("sriov 0 1");
    dpu.until("a VF", |list| list.of("VF").count() == 1);
    assert_eq!(dpu.query("-p 0 -v 0")["sf_parent_device"], "mlx5_bond_0");
}

#[test]
fn the_service_is_stopped_the_bond_made_virtnet_conf_written_and_the_service_started() {
    let mut dpu = Dpu::with_conf(SRIOV, PORTS);
    dpu.run(&hotplug("mlx5_0", FIRST));
    assert_eq!(dpu.list().controller()["emulation_manager"], "mlx5_0");
    let why = dpu.refused(&hotplug("mlx5_bond_0", SECOND));
    assert!(why.contains("no uplink has the RDMA device \"mlx5_bond_0\": there is mlx5_0 (p0)"), "{why}");

    dpu.stop();
    dpu.bond_while_stopped(true);
    write_conf(&dpu, LAG);
    dpu.start_again();
    is_on_the_bond(&dpu);

    // And back.
    dpu.stop();
    dpu.bond_while_stopped(false);
    write_conf(&dpu, PORTS);
    dpu.start_again();
    assert!(static_pfs(&dpu).iter().all(|(_, device)| device == "mlx5_0"));
    assert_eq!(dpu.run(&hotplug("mlx5_1", FIRST))["sf_rep_net_device"], "en3f1pf1sf2000");
}

#[test]
fn a_bond_that_is_made_while_the_service_runs_asks_for_the_guides_order() {
    let mut dpu = Dpu::with_conf(SRIOV, PORTS);
    dpu.run(&hotplug("mlx5_0", FIRST));
    dpu.until_booted();
    let before = dpu.list();
    assert_eq!(asked(&before), None);

    dpu.host("bond true");
    let list = dpu.until("what is to be done", |list| asked(list).is_some());
    assert_eq!(asked(&list), Some(format!("since the controller started, {CONFIGURE}").as_str()));
    let there = |list: &List| list.devices().iter().map(|one| one["vuid"].clone()).collect::<Vec<_>>();
    assert_eq!(there(&list), there(&before), "what is there stays");
    let why = dpu.refused(&hotplug("mlx5_0", SECOND));
    assert!(why.contains(CONFIGURE), "{why}");
    dpu.host("sriov 0 1");
    dpu.until_logged("create SF 3000 of p0: since the controller started, the ports are bonded");
    assert_eq!(dpu.list().of("VF").count(), 0);

    // Another worker with the virtnet.conf of before.
    dpu.hang_up();
    until_refused(&dpu, CONFIGURE);

    // As it said.
    dpu.stop();
    dpu.bond_while_stopped(true);
    write_conf(&dpu, LAG);
    dpu.start_again();
    is_on_the_bond(&dpu);
}

#[test]
fn a_service_that_is_configured_for_a_bond_which_is_not_there_serves_once_it_is_made() {
    let dpu = Dpu::with_conf(SRIOV, PORTS);
    write_conf(&dpu, LAG);
    dpu.hang_up();
    until_refused(&dpu, "is_lag is 1 and the ports are not bonded: stop the controller, make the bond");
    dpu.host("bond true");
    let list = dpu.until_up_again("the service", |list| asked(list).is_none());
    assert_eq!(list.of("static PF").count(), 4);
    let reply = dpu.run(&hotplug("mlx5_bond_0", FIRST));
    assert_eq!(dpu.list().device(text(&reply, "vuid"))["sf_parent_device"], "mlx5_bond_0");

    dpu.host("bond false");
    let list = dpu.until("what is to be done", |list| asked(list).is_some());
    let unbonded = "the bond was taken apart: stop the controller, set is_lag to 0, and ib_dev_p0, ib_dev_p1 and \
                    ib_dev_for_static_pf to the ports' RDMA devices, without ib_dev_lag, and start it again";
    assert_eq!(asked(&list), Some(format!("since the controller started, {unbonded}").as_str()));
    let why = dpu.refused(&hotplug("mlx5_bond_0", SECOND));
    assert!(why.contains(unbonded), "{why}");
}
