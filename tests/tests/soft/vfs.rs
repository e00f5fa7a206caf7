//! VFs: a guest is started with a static PF and two VFs of it, by what `virtnet query` says, and makes them by `sriov_numvfs`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::Arc;

use serde_json::{Value, json};
use virtnet_model::{
    Change, Controller, ControllerState, Function, FunctionId, FunctionKind, Mtu, PfId, Refusal, Target, VfId,
};
use virtnet_netlink::Namespace;
use virtnet_tests::guest::functions::{InGuest, sees};
use virtnet_tests::guest::{Guest, Machine};

use crate::common::{Service, address, kill, mac, reaches};
use crate::lab::{BRIDGE, Lab};
use crate::sockets::arguments;

const PF: PfId = PfId::MIN;
/// The MAC that the device gives its first static PF: its own.
const PF_MAC: &str = "02:00:00:00:aa:00";

fn vf(index: u32) -> VfId {
    VfId::try_from(index).unwrap()
}

fn target(index: u32) -> Target {
    Target::Vf(PF, vf(index))
}

/// The VFs that the controller tells of, by their index.
fn vfs(state: &ControllerState) -> Vec<&Function> {
    state.functions.values().filter(|function| function.kind == FunctionKind::Vf).collect()
}

/// A guest that is off and has a log, and the device of which it is the host.
fn host() -> (Guest, Value) {
    let guest = Guest::off(Machine::default()).unwrap();
    let host = json!({
        "qmp": guest.path("qmp"), "trace": guest.path("trace"),
        // As `virtnet query` has QEMU call it.
        "staticPfs": {"0": "vnets0d0f0"},
    });
    (guest, json!({"vfs": 2, "threads": 1, "hosts": {"guest": host}}))
}

/// Switches the guest on with the PF and its VFs, as the controller would have them now.
async fn on(guest: &mut Guest, service: &Service) -> Function {
    let pf = Target::Static(PF);
    let state = service.until("its static PF is there", |state| state.find(&pf).is_some()).await;
    let pf = state.find(&pf).unwrap().clone();
    assert_eq!(pf.vfs.len(), 2);
    assert!(vfs(&state).is_empty(), "no guest has made any");
    guest.arguments(arguments(service, &pf).into_iter().map(OsString::from));
    let trace = guest.path("trace");
    guest.arguments(["-D".into(), trace.into(), "-trace".into(), "enable=pci_update_mappings_*".into()]);
    guest.on().await.unwrap();
    pf
}

/// Has the guest make so many VFs of the PF at this address.
async fn write_num_vfs(guest: &mut Guest, pf: &InGuest, count: u32) {
    let command = format!("echo {count} >/sys/bus/pci/devices/0000:{}/sriov_numvfs", pf.bdf);
    guest.console().unwrap().sh(&command).await.unwrap();
}

/// Waits until drivers have both VFs, with what is behind them.
async fn until_both_are_used(service: &Service) -> [Function; 2] {
    let have_sfs = |state: &ControllerState| vfs(state).iter().filter(|vf| vf.sf.is_some()).count() == 2;
    service.until("both VFs have SFs", have_sfs).await;
    for index in [0, 1] {
        service.until_used(&target(index)).await;
    }
    let state = service.until("both VFs are used", have_sfs).await;
    [0, 1].map(|index| state.functions[&FunctionId::vf(PF, vf(index))].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vfs_come_and_go_as_their_guest_makes_them() {
    let (mut guest, device) = host();
    let mut service = Service::off(Arc::new(Namespace::new().unwrap()));
    service.on(device.clone()).await;
    assert_eq!(service.open_sockets(), 3, "those of the PF and of all VFs that it may have");
    // What is asked for before the guest is on it is started with.
    let change = Change { mac: Some(mac(1)), mtu: Some(Mtu::try_from(1400).unwrap()), ..Change::default() };
    service.client.modify(&target(0), &change).await.unwrap();
    let pf = on(&mut guest, &service).await;
    let macs = [PF_MAC.parse().unwrap(), mac(1), pf.vfs[1].mac];
    let there = sees(guest.console().unwrap(), [macs[0]]).await[&macs[0]].clone();
    let used = service.until_used(&Target::Static(PF)).await;
    assert_eq!(used.bdf.unwrap().to_string(), there.bdf);

    for round in 0..2 {
        write_num_vfs(&mut guest, &there, 2).await;
        let made = until_both_are_used(&service).await;
        let seen = sees(guest.console().unwrap(), macs).await;
        let representors = made.each_ref().map(|function| function.sf.as_ref().unwrap().representor.as_str());
        // Whichever the bus tells of first has the first one.
        assert_eq!(BTreeSet::from(representors), BTreeSet::from(["en3f0pf0sf3000", "en3f0pf0sf3001"]));
        for (index, (function, mac)) in made.iter().zip(&macs[1..]).enumerate() {
            let vf = &seen[mac];
            assert_eq!((function.mac, function.bdf.unwrap().to_string()), (*mac, vf.bdf.clone()));
            assert_eq!((vf.ids.as_str(), vf.mtu), ("0x1af4:0x1041", [1400, 1500][index]));
            assert_eq!(u32::from(function.mtu), u32::from(vf.mtu));
            assert!(function.negotiated.as_ref().unwrap().is_subset(&function.features));
            let net = round * 2 + index;
            service.address(function, &format!("10.{net}.0.1/24"));
            address(&mut guest, vf, &format!("10.{net}.0.2/24")).await;
            reaches(&mut guest, &format!("10.{net}.0.1")).await;
        }
        // Another moves the packets, and QEMU sees no difference.
        kill(service.mover().unwrap());
        reaches(&mut guest, &format!("10.{}.0.1", round * 2)).await;

        let refused = service.client.modify(&target(1), &change).await.unwrap_err();
        assert_eq!(refused.refusal(), Some(Refusal::MacInUse), "{refused}");
        let change = Change { mac: Some(mac(9)), ..Change::default() };
        let refused = service.client.modify(&target(1), &change).await.unwrap_err();
        assert_eq!(refused.refusal(), Some(Refusal::MachineRuns), "{refused}");
        assert!(refused.message.contains("`virtnet query -p 0`"), "{refused}");

        write_num_vfs(&mut guest, &there, 0).await;
        service.until("the VFs are gone", |state| vfs(state).is_empty()).await;
        sees(guest.console().unwrap(), [macs[0]]).await;
    }
    // A service that is killed takes nothing out of the guest: QEMU finds the next one.
    write_num_vfs(&mut guest, &there, 2).await;
    until_both_are_used(&service).await;
    service.kill();
    service.on(device).await;
    let [first, _] = until_both_are_used(&service).await;
    assert_eq!((first.mac, first.mtu), (mac(1), Mtu::try_from(1400).unwrap()));
    service.address(&first, "10.8.0.1/24");
    let seen = sees(guest.console().unwrap(), macs).await;
    address(&mut guest, &seen[&mac(1)], "10.8.0.2/24").await;
    reaches(&mut guest, "10.8.0.1").await;

    guest.kill().unwrap();
    service.until("the VFs are gone with their guest", |state| vfs(state).is_empty()).await;
    service.end();
    assert_eq!(service.open_sockets(), 0);
    for representor in ["en3f0pf0sf1000", "en3f0pf0sf3000", "en3f0pf0sf3001"] {
        assert!(!service.ip(&["link", "show", representor]), "{representor} is left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn declared_vfs_are_ready_once_their_guest_has_made_them() {
    let (mut guest, device) = host();
    let lab = Lab::start(device, false).await;
    let service = &lab.service;
    let declare = async |index: u32, mut spec: Value| {
        spec["function"] = json!({"vf": {"pf": 0, "vf": index}});
        spec["port"] = json!({"bridge": BRIDGE});
        lab.declare(&format!("vf-{index}"), spec).await;
    };
    declare(0, json!({"mac": mac(1), "mtu": 1400})).await;
    declare(1, json!({})).await;
    for name in ["vf-0", "vf-1"] {
        lab.until_not_ready(name, "VfAbsent").await;
    }
    service.until("the settings are handed over", |state| state.prepared.contains_key(&(PF, vf(0)))).await;

    let pf = on(&mut guest, service).await;
    let macs = [PF_MAC.parse().unwrap(), mac(1), pf.vfs[1].mac];
    let there = sees(guest.console().unwrap(), [macs[0]]).await[&macs[0]].clone();
    write_num_vfs(&mut guest, &there, 2).await;
    let seen = sees(guest.console().unwrap(), macs).await;
    let functions = lab.until_ready().await;
    for (index, mac) in macs[1..].iter().enumerate() {
        let function = &functions[&format!("vf-{index}")];
        assert_eq!(function.bdf.as_ref(), Some(&seen[mac].bdf));
        assert_eq!(function.mac.as_ref(), Some(&mac.to_string()));
        // By the bridge's own port: the representor is the switch's.
        assert!(service.ip(&["address", "replace", &format!("10.{index}.0.1/24"), "dev", BRIDGE]));
        assert!(service.ip(&["link", "set", BRIDGE, "up"]));
        address(&mut guest, &seen[mac], &format!("10.{index}.0.2/24")).await;
        reaches(&mut guest, &format!("10.{index}.0.1")).await;
    }
    // What QEMU was started with waits for the guest's end, and says so.
    declare(1, json!({"mac": mac(2)})).await;
    let message = lab.until_not_ready("vf-1", "ReplugPending").await;
    assert!(message.contains("shut it down") && message.contains("`virtnet query -p 0`"), "{message}");
    guest.kill().unwrap();
    service.until("the settings are handed over", |state| state.prepared.contains_key(&(PF, vf(1)))).await;
    for name in ["vf-0", "vf-1"] {
        lab.until_not_ready(name, "VfAbsent").await;
    }

    lab.withdraw(&["vf-0", "vf-1"]).await;
    service.until("nothing is handed over any more", |state| state.prepared.is_empty()).await;
    assert_eq!(lab.ports(), Vec::<String>::new());
}
