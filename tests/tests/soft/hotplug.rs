//! A guest whose bus the service has: one guest, and one story after another, since each boot takes seconds.

use std::sync::Arc;

use futures::StreamExt;
use serde_json::{Value, json};
use virtnet_model::{Change, Controller, Function, Mtu, Queues, Refusal};
use virtnet_netlink::Namespace;
use virtnet_rpc::method::{self, UpdateStatus};
use virtnet_tests::guest::functions::sees;
use virtnet_tests::guest::{Guest, Machine};

use crate::common::{
    Service, address, begin_pinging, end_pinging, host, install, kill, mac, reaches, request,
};

/// What is sent at most while a process is killed and another takes over, and does not come back: what it had in its hands.
const LOST: u32 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_of_a_guest_live_through_all_that_may_happen() {
    let mut guest = Guest::boot(Machine { ports: 2, ..Machine::default() }).await.unwrap();
    let mut service = Service::off(Arc::new(Namespace::new().unwrap()));
    let device = json!({"hosts": {"guest": host(&guest, 0)}});
    service.on(device.clone()).await;

    let function = comes(&mut guest, &service).await;
    processes_end_and_packets_go_on(&mut guest, &service).await;
    let function = changes_in_its_slot(&mut guest, &service, &function).await;
    goes(&mut guest, &service, &function).await;
    stays_behind_and_is_taken_out(&mut guest, &mut service, &device).await;
    comes_anew_with_its_guest(&mut guest, &mut service).await;
}

/// A function is plugged, and the guest's driver has it.
async fn comes(guest: &mut Guest, service: &Service) -> Function {
    let made = service.client.hotplug(&request(1)).await.unwrap();
    assert_eq!(made.sf.as_ref().unwrap().representor.as_str(), "en3f0pf0sf2000");
    let used = service.until_used(&made.target().unwrap()).await;
    let seen = sees(guest.console().unwrap(), [mac(1)]).await[&mac(1)].clone();
    assert_eq!(used.bdf.unwrap().to_string(), seen.bdf);
    assert_eq!((seen.ids.as_str(), seen.mtu), ("0x1af4:0x1041", 1500));
    let negotiated = used.negotiated.unwrap();
    assert!(
        negotiated.is_subset(&used.features) && negotiated.to_string().contains("VERSION_1"),
        "{negotiated}"
    );
    assert!(!used.features.to_string().contains("CSUM"), "the switch is not said to carry it");

    service.address(&made, "10.1.0.1/24");
    address(guest, &seen, "10.1.0.2/24").await;
    reaches(guest, "10.1.0.1").await;
    let queues = service.client.queues(&made.target().unwrap()).await.unwrap();
    assert_eq!(queues.len(), 3);
    // QEMU keeps the third one, that of control.
    for queue in &queues[..2] {
        assert!(queue.enabled, "{queue:?}");
        assert!(queue.counters.packets.iter().sum::<u64>() >= 2, "{queue:?}");
        assert!(queue.counters.total_bytes >= 2 * 98 && queue.counters.errors() == 0, "{queue:?}");
    }
    made
}

/// Both kinds of workers are killed and renewed, and the guest's driver is not troubled by it.
async fn processes_end_and_packets_go_on(guest: &mut Guest, service: &Service) {
    const CHANGES: &str = "cat /sys/class/net/eth*/carrier_changes";
    let carrier = guest.console().unwrap().sh(CHANGES).await.unwrap();
    begin_pinging(guest, "10.1.0.1").await;

    let mover = service.mover().unwrap();
    kill(mover);
    reaches(guest, "10.1.0.1").await;
    assert_ne!(service.mover().unwrap(), mover);

    let inside: Value = service.client.call(method::DEBUG, &()).await.unwrap();
    let worker = u32::try_from(inside["worker"]["process"].as_u64().unwrap()).unwrap();
    kill(worker);
    reaches(guest, "10.1.0.1").await;
    let state = service.until("another worker serves", |state| !state.functions.is_empty()).await;
    assert!(state.functions.values().all(|function| function.driver.in_use), "{state:?}");

    let before = service.mover().unwrap();
    install(&service.program());
    let mut events = service.client.events();
    service.client.call::<()>(method::UPDATE, &()).await.unwrap();
    let updated = loop {
        let status: UpdateStatus = service.client.call(method::UPDATE_STATUS, &()).await.unwrap();
        if let Some(last) = status.last.filter(|_| !status.running) {
            break last;
        }
        events.next().await;
    };
    assert_eq!(updated.failure, None, "{}", service.log());
    reaches(guest, "10.1.0.1").await;
    assert_ne!(service.mover().unwrap(), before, "packets are moved by the program that was installed");

    let (sent, came) = end_pinging(guest).await;
    assert!(sent > 10 && came > 0 && sent - came <= LOST, "{came} of {sent} came back");
    assert_eq!(guest.console().unwrap().sh(CHANGES).await.unwrap(), carrier, "its driver saw no reset");
}

/// Another MAC and MTU, once no driver has it: QEMU fixes both when it makes a device.
async fn changes_in_its_slot(guest: &mut Guest, service: &Service, function: &Function) -> Function {
    let change = Change { mac: Some(mac(7)), mtu: Some(Mtu::try_from(4000).unwrap()), ..Change::default() };
    let refused = service.client.modify(&function.target().unwrap(), &change).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::DriverLoaded), "{refused}");
    let used = service.until_used(&function.target().unwrap()).await;
    let unbind = format!("echo 0000:{} >/sys/bus/pci/drivers/virtio-pci/unbind", used.bdf.unwrap());
    guest.console().unwrap().sh(&unbind).await.unwrap();
    let idle = service.until("no driver has it", |state| {
        state.find(&function.target().unwrap()).is_some_and(|function| !function.driver.in_use)
    });
    idle.await;
    service.client.modify(&function.target().unwrap(), &change).await.unwrap();
    let changed = Function { mac: mac(7), ..function.clone() };
    let used = service.until_used(&changed.target().unwrap()).await;
    let seen = sees(guest.console().unwrap(), [mac(7)]).await[&mac(7)].clone();
    assert_eq!((seen.mtu, used.mtu.get()), (4000, 4000));
    assert_eq!(seen.bdf, used.bdf.unwrap().to_string());
    address(guest, &seen, "10.1.0.2/24").await;
    reaches(guest, "10.1.0.1").await;
    used
}

/// It is unplugged, beside one that stays until it is its turn.
async fn goes(guest: &mut Guest, service: &Service, function: &Function) {
    let second = service.client.hotplug(&request(2)).await.unwrap();
    sees(guest.console().unwrap(), [mac(2), mac(7)]).await;
    service.client.unplug(&function.target().unwrap()).await.unwrap();
    sees(guest.console().unwrap(), [mac(2)]).await;
    assert!(!service.ip(&["link", "show", "en3f0pf0sf2000"]), "its representor goes with it");
    assert!(service.ip(&["link", "show", "en3f0pf0sf2001"]));
    service.client.unplug(&second.target().unwrap()).await.unwrap();
    sees(guest.console().unwrap(), []).await;
    assert_eq!(service.open_sockets(), 0);
}

/// A service that is killed leaves its functions in the guest; the next one takes them out. One that ends takes them out itself.
async fn stays_behind_and_is_taken_out(guest: &mut Guest, service: &mut Service, device: &Value) {
    service.client.hotplug(&request(3)).await.unwrap();
    sees(guest.console().unwrap(), [mac(3)]).await;
    service.kill();
    service.on(device.clone()).await;
    sees(guest.console().unwrap(), []).await;
    // And where the same slot is wanted at once it need not be waited for.
    service.client.hotplug(&request(4)).await.unwrap();
    sees(guest.console().unwrap(), [mac(4)]).await;
    service.kill();
    service.on(device.clone()).await;
    service.client.hotplug(&request(5)).await.unwrap();
    sees(guest.console().unwrap(), [mac(5)]).await;
    service.end();
    sees(guest.console().unwrap(), []).await;
    assert_eq!(service.open_sockets(), 0);
    service.on(device.clone()).await;
}

/// A guest that is switched off and on again has its functions again.
async fn comes_anew_with_its_guest(guest: &mut Guest, service: &mut Service) {
    let made = service.client.hotplug(&request(6)).await.unwrap();
    service.until_used(&made.target().unwrap()).await;
    guest.kill().unwrap();
    let gone = service.until("it has no address", |state| {
        state
            .find(&made.target().unwrap())
            .is_some_and(|function| function.bdf.is_none() && !function.driver.in_use)
    });
    gone.await;
    guest.on().await.unwrap();
    service.until_used(&made.target().unwrap()).await;
    sees(guest.console().unwrap(), [mac(6)]).await;
    guest.kill().unwrap();
    // Nothing is in the slots of a guest that is off.
    service.client.unplug(&made.target().unwrap()).await.unwrap();
    service.end();
}
