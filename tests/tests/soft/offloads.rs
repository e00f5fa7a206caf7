//! Checksums and segmentation: offered where the switch carries them, and refused by name where it does not.

use serde_json::{Value, json};
use virtnet_tests::guest::functions::sees;
use virtnet_tests::guest::{Guest, Machine};

use crate::common::{address, host, mac, reaches};
use crate::lab::{BRIDGE, Lab};
use crate::traffic::{measure, offloads};

/// A function of a guest that offers this much beyond what each has.
fn spec(host: &str, number: u8) -> Value {
    json!({
        "function": {"hotplug": {"host": host}}, "mac": mac(number), "port": {"bridge": BRIDGE},
        "features": [
            "MAC", "MTU", "STATUS", "MRG_RXBUF", "CSUM", "GUEST_CSUM", "GUEST_TSO4", "GUEST_TSO6", "HOST_TSO4", "HOST_TSO6"
        ],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offloads_are_carried_from_guest_to_guest() {
    let machine = || Machine { ports: 1, ..Machine::default() };
    let mut guests = Guest::boot_all([machine(), machine()]).await.unwrap();
    let lab = Lab::start(json!({"hosts": {"a": host(&guests[0], 0), "b": host(&guests[1], 1)}}), true).await;
    for (host, number) in [("a", 1), ("b", 2)] {
        lab.declare(host, spec(host, number)).await;
    }
    lab.until_ready().await;
    for (number, guest) in (1..).zip(&mut guests) {
        let there = sees(guest.console().unwrap(), [mac(number)]).await.remove(&mac(number)).unwrap();
        assert_eq!(offloads(guest, &there).await.len(), 2, "all are on");
        address(guest, &there, &format!("10.1.0.{number}/24")).await;
    }
    let [a, b] = &mut guests;
    reaches(a, "10.1.0.2").await;
    measure(a, b, "10.1.0.2").await;
    lab.withdraw(&["a", "b"]).await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offloads_that_the_switch_does_not_carry_are_refused_by_name() {
    let guest = Guest::off(Machine { ports: 1, ..Machine::default() }).unwrap();
    let lab = Lab::start(json!({"hosts": {"a": host(&guest, 0)}}), false).await;
    lab.declare("a", spec("a", 1)).await;
    let message = lab.until_not_ready("a", "FeatureUnsupported").await;
    assert!(
        message.contains("CSUM") && message.contains("HOST_TSO4") && !message.contains("MRG_RXBUF"),
        "{message}"
    );
    lab.withdraw(&["a"]).await;
    lab.end().await;
}
