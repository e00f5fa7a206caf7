//! A device without hosts: functions are sockets, and whoever starts a QEMU connects its front end to them.

use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use virtnet_model::{Controller, Function, FunctionKind, Target};
use virtnet_netlink::Namespace;
use virtnet_tests::guest::functions::sees;
use virtnet_tests::guest::{Guest, Machine};
use virtnet_tests::programs::built;

use crate::common::{Service, address, mac, reaches, request};

/// What `virtnet query` says that a QEMU is to be started with for a function.
pub(crate) fn arguments(service: &Service, function: &Function) -> Vec<String> {
    let mut query = Command::new(built("virtnet").unwrap());
    query.arg("--socket").arg(service.folder.path().join("s.sock"));
    let output = query.args(["query", "-u", function.vuid.as_str()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let device = &answer["devices"][0];
    assert_eq!(device["driver_loaded"], false);
    serde_json::from_value(device["qemu_arguments"].clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_is_started_with_sockets_has_their_functions() {
    let mut service = Service::off(Arc::new(Namespace::new().unwrap()));
    service.on(json!({"slots": 1, "staticPfs": 1, "threads": 1})).await;
    let plugged = service.client.hotplug(&request(1)).await.unwrap();
    assert_eq!(plugged.socket.as_deref(), Some(service.sockets().join("slot-0").as_path()));
    assert!(!plugged.driver.in_use && plugged.bdf.is_none());
    let state = service.until("its static PF is there", |state| state.functions.len() == 2).await;
    let fixed =
        state.functions.values().find(|function| function.kind == FunctionKind::Static).unwrap().clone();
    assert_eq!(service.open_sockets(), 2);

    let mut guest = Guest::off(Machine::default()).unwrap();
    for function in [&plugged, &fixed] {
        guest.arguments(arguments(&service, function).into_iter().map(Into::into));
    }
    guest.on().await.unwrap();
    let seen = sees(guest.console().unwrap(), [fixed.mac, mac(1)]).await;
    service.until_used(&plugged.target().unwrap()).await;
    let of_pf = Target::Static(fixed.id.pf);
    service.until_used(&of_pf).await;
    for (function, net) in [(&plugged, 1), (&fixed, 2)] {
        service.address(function, &format!("10.{net}.0.1/24"));
        address(&mut guest, &seen[&function.mac], &format!("10.{net}.0.2/24")).await;
        reaches(&mut guest, &format!("10.{net}.0.1")).await;
    }
    guest.kill().unwrap();
    let unused = service.until("no driver is up", |state| {
        state.functions.values().all(|function| !function.driver.in_use && !function.driver.seen)
    });
    unused.await;
    service.client.unplug(&plugged.target().unwrap()).await.unwrap();
    assert_eq!(service.open_sockets(), 1);
    service.end();
    assert_eq!(service.open_sockets(), 0);
}
