//! Guests that do not let a function go when they are asked.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;
use virtnet_controller::Place;
use virtnet_qemu_host::{Bus, BusError, BusEvent, HostState};
use virtnet_tests::guest::{Guest, Machine};

use crate::common::{LIMIT, backend, connected, mac, sees, settings, until};

/// How long a guest is given here that has no intention.
const SHORT: Duration = Duration::from_millis(200);

fn asked(state: &HostState) -> Option<u32> {
    Some(state.functions.get(&Place::Slot(0))?.unplugging.as_ref()?.asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "now and then QEMU stands still over the tests' own back end, and why is not known: `make soak-guests` runs it"]
async fn a_guest_that_keeps_a_function_is_waited_for_and_reported() {
    // Its kernel does not look at requests to let something go, nor at what comes.
    let machine = Machine { ports: 1, kernel: "acpiphp.disable=1".to_owned(), ..Machine::default() };
    let mut guest = Guest::boot(machine).await.unwrap();
    let bus = connected(guest.config()).await;
    let (listening, backend) = backend(&guest, 0);
    bus.plug(0, &settings(1), &backend, true).await.unwrap();
    guest.console().unwrap().sh("echo 1 >/sys/bus/pci/rescan").await.unwrap();
    sees(guest.console().unwrap(), [mac(1)]).await;

    // It refuses; each request is told, and none waits longer than it was to.
    for times in 1..=2 {
        let kept = bus.unplug(0, SHORT).await.unwrap_err();
        assert!(matches!(kept, BusError::Kept { slot: 0, asked: 1, .. }), "{times}: {kept}");
        let state = bus.state().borrow().clone();
        assert!(asked(&state).is_some(), "{state:?}");
    }
    let other = bus.replace(0, &settings(2), &backend, true, SHORT).await.unwrap_err();
    assert!(matches!(other, BusError::Kept { .. }), "{other}");
    sees(guest.console().unwrap(), [mac(1)]).await;
    assert_eq!(listening.told().borrow().connected, 1, "the function that is kept has its back end");

    // A guest that boots anew has let go of it, whether or not anybody waits. What was behind it goes too.
    let mut watch = bus.watch();
    guest.control().unwrap().execute("system_reset", json!({})).await.unwrap();
    let gone = async {
        while let Some(event) = watch.events.recv().await {
            if event == BusEvent::Function(Place::Slot(0), None) {
                return;
            }
        }
        panic!("the watch has ended");
    };
    timeout(LIMIT, gone).await.unwrap();
    let mut told = listening.told();
    timeout(LIMIT, told.wait_for(|told| told.connected == 0)).await.unwrap().unwrap();
    guest.rebooted().await.unwrap();
    bus.plug(0, &settings(2), &backend, true).await.unwrap();
    guest.console().unwrap().sh("echo 1 >/sys/bus/pci/rescan").await.unwrap();
    sees(guest.console().unwrap(), [mac(2)]).await;
}

/// A guest that stands still is asked again, and lets the only function that there is, in slot 0, go when it goes on.
pub(crate) async fn stands_still(guest: &mut Guest, bus: &Arc<Bus>) {
    guest.control().unwrap().execute("stop", json!({})).await.unwrap();
    let unplug = tokio::spawn({
        let bus = Arc::clone(bus);
        async move { bus.unplug(0, LIMIT).await }
    });
    let state = until(bus, "asked again", |state| asked(state) >= Some(2)).await;
    assert!(state.functions.contains_key(&Place::Slot(0)));
    assert!(!unplug.is_finished());
    // Whoever gives up waiting does not stop it.
    unplug.abort();
    guest.control().unwrap().execute("cont", json!({})).await.unwrap();
    until(bus, "gone", |state| state.functions.is_empty()).await;
    sees(guest.console().unwrap(), []).await;
}
