//! Two guests with four functions each, all of them declared: a transitional one, one of four queue pairs, one of a large MTU, one on a
//! VLAN. The guests reach each other through the bridge, and what is edited takes effect.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use virtnet_crds::FunctionStatus;
use virtnet_model::Mac;
use virtnet_tests::guest::functions::{InGuest, queues_and_vectors, sees};
use virtnet_tests::guest::{Guest, Machine};

use crate::common::{address, host, mac, reaches};
use crate::lab::{BRIDGE, Lab};
use crate::traffic::{does_not_reach, measure, offloads, reaches_with};

/// The functions that each guest gets: the name's end, and what is special about it.
fn kinds() -> [(&'static str, Value); 4] {
    [
        ("transitional", json!({"function": {"hotplug": {"transitional": true}}})),
        ("queues", json!({"queues": {"max": 9, "size": 256}})),
        ("large", json!({"mtu": 9000, "rebindPolicy": "Always"})),
        ("vlan", json!({"port": {"bridge": BRIDGE, "tag": 100}})),
    ]
}

/// The MAC of a guest's function: of both of a kind, the last digits are next to each other.
fn mac_of(guest: usize, kind: usize) -> Mac {
    mac(u8::try_from(10 * (kind + 1) + guest + 1).unwrap())
}

/// Its address, on a network of its kind.
fn ip_of(guest: usize, kind: usize) -> String {
    format!("10.1.{}.{}", kind + 1, guest + 1)
}

/// The functions as a guest sees them, in the order of their kinds.
async fn seen(guest: &mut Guest, number: usize) -> Vec<InGuest> {
    let macs: Vec<_> = (0..kinds().len()).map(|kind| mac_of(number, kind)).collect();
    let mut seen = sees(guest.console().unwrap(), macs.iter().copied()).await;
    macs.iter().map(|mac| seen.remove(mac).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn declared_functions_are_ready_and_guests_reach_each_other() {
    let machine = || Machine { ports: 4, ..Machine::default() };
    let mut guests = Guest::boot_all([machine(), machine()]).await.unwrap();
    let lab = Lab::start(json!({"hosts": {"a": host(&guests[0], 0), "b": host(&guests[1], 4)}}), false).await;
    for (number, host) in ["a", "b"].into_iter().enumerate() {
        for (kind, (name, special)) in kinds().into_iter().enumerate() {
            let mut spec = json!({
                "mac": mac_of(number, kind), "function": {"hotplug": {}}, "port": {"bridge": BRIDGE}
            });
            spec.as_object_mut().unwrap().extend(special.as_object().unwrap().clone());
            spec["function"]["hotplug"]["host"] = json!(host);
            lab.declare(&format!("{host}-{name}"), spec).await;
        }
    }
    let functions = lab.until_ready().await;

    let mut there = Vec::new();
    for (number, host) in ["a", "b"].into_iter().enumerate() {
        let seen = seen(&mut guests[number], number).await;
        are_as_declared(&mut guests[number], host, &seen, &functions).await;
        for (kind, function) in seen.iter().enumerate() {
            address(&mut guests[number], function, &format!("{}/24", ip_of(number, kind))).await;
        }
        there.push(seen);
    }
    let [a, b] = &mut guests;
    for kind in 0..kinds().len() {
        reaches(a, &ip_of(1, kind)).await;
        reaches(b, &ip_of(0, kind)).await;
    }
    reaches_with(a, &ip_of(1, 2), 8900).await;
    for kind in [1, 2] {
        measure(a, b, &ip_of(1, kind)).await;
    }
    links_go_down_and_up(a, &lab, &there[0][0]).await;
    vlans_are_apart(a, b, &lab, &there[0][3], &there[1][0]).await;
    an_mtu_is_edited(a, b, &lab).await;

    let names: Vec<_> = functions.keys().map(String::as_str).collect();
    lab.withdraw(&names).await;
    for guest in &mut guests {
        sees(guest.console().unwrap(), []).await;
    }
    lab.end().await;
}

/// Status and guest tell the same of a guest's functions, and it is what was declared.
async fn are_as_declared(
    guest: &mut Guest,
    host: &str,
    seen: &[InGuest],
    functions: &BTreeMap<String, FunctionStatus>,
) {
    for ((name, _), there) in kinds().iter().zip(seen) {
        let told = &functions[&format!("{host}-{name}")];
        assert_eq!(told.bdf.as_ref(), Some(&there.bdf), "{name}");
        assert_eq!(told.mtu, Some(there.mtu), "{name}");
        let ids = if told.transitional { "0x1af4:0x1000" } else { "0x1af4:0x1041" };
        assert_eq!(there.ids, ids, "{name}");
        assert_eq!(told.transitional, *name == "transitional");
        assert_eq!(offloads(guest, there).await, Vec::<String>::new(), "the switch carries none");
    }
    assert_eq!((seen[0].mtu, seen[2].mtu), (1500, 9000));
    let queues = &seen[1];
    let console = guest.console().unwrap();
    assert_eq!(queues_and_vectors(console, queues).await.0, 4);
    // As many as there are, whatever the number of its processors.
    console.sh(&format!("/usr/bin/ethtool -L {} combined 4", queues.netdev)).await.unwrap();
}

/// A link that is declared down is down for the driver, and nothing else is another.
async fn links_go_down_and_up(guest: &mut Guest, lab: &Lab, there: &InGuest) {
    for (state, carrier) in [("Down", "0"), ("Up", "1")] {
        lab.edit("a-transitional", json!({"linkState": state})).await;
        let command = format!("cat /sys/class/net/{}/carrier", there.netdev);
        let told = |output: &str| (output.trim() == carrier).then_some(());
        guest.console().unwrap().until(&command, told).await.unwrap();
    }
    reaches(guest, &ip_of(1, 0)).await;
}

/// What is on a VLAN reaches what is on it alone, and what is on none once it is taken off it.
async fn vlans_are_apart(a: &mut Guest, b: &mut Guest, lab: &Lab, tagged: &InGuest, untagged: &InGuest) {
    address(a, tagged, "10.2.0.1/24").await;
    address(b, untagged, "10.2.0.2/24").await;
    // Whoever is asked for an address that another netdev of the same guest has does not answer.
    b.console().unwrap().sh("sysctl -q -w net.ipv4.conf.all.arp_ignore=1").await.unwrap();
    reaches(a, &ip_of(1, 3)).await;
    does_not_reach(a, "10.2.0.2").await;
    lab.edit("a-vlan", json!({"port": {"tag": null}})).await;
    reaches(a, "10.2.0.2").await;
    lab.edit("a-vlan", json!({"port": {"tag": 100}})).await;
    reaches(a, &ip_of(1, 3)).await;
}

/// An MTU that is edited has the function plugged anew into its slot.
async fn an_mtu_is_edited(a: &mut Guest, b: &mut Guest, lab: &Lab) {
    for host in ["a", "b"] {
        lab.edit(&format!("{host}-large"), json!({"mtu": 4000})).await;
    }
    for (number, guest) in [(0, &mut *a), (1, &mut *b)] {
        let function = seen(guest, number).await.remove(2);
        assert_eq!(function.mtu, 4000);
        address(guest, &function, &format!("{}/24", ip_of(number, 2))).await;
    }
    for (name, function) in lab.until_ready().await.iter().filter(|(name, _)| name.ends_with("large")) {
        assert_eq!(function.mtu, Some(4000), "{name}");
    }
    reaches_with(a, &ip_of(1, 2), 3900).await;
}
