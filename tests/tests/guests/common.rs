//! What these tests share: a bus on a guest, and back ends for its slots.

use std::time::Duration;

use tokio::time::timeout;
use virtnet_controller::{Place, Settings};
use virtnet_model::{Feature, Features, Mac, Mtu, QueueSize};
use virtnet_qemu_host::{Backend, Bus, Connection, HostState};
pub(crate) use virtnet_tests::guest::functions::{queues_and_vectors, sees};
use virtnet_tests::guest::{Guest, backend};

/// Far longer than anything takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// What functions here offer: what their back end has.
pub(crate) fn features() -> Features {
    use Feature::*;
    [Csum, GuestCsum, Mtu, Mac, MrgRxbuf, Status, CtrlVq, CtrlRx, Mq, CtrlMacAddr, Version1]
        .into_iter()
        .collect()
}

pub(crate) fn mac(number: u8) -> Mac {
    Mac::local([0, 0, 0, 1, number])
}

pub(crate) fn settings(number: u8) -> Settings {
    Settings {
        mac: mac(number),
        mtu: Mtu::DEFAULT,
        max_queues: 3,
        queue_size: QueueSize::DEFAULT,
        num_msix: 4,
        features: features(),
        transitional: false,
    }
}

/// A back end for a slot of a guest, and how the bus is told of it.
pub(crate) fn backend(guest: &Guest, slot: u16) -> (backend::Backend, Backend) {
    let listening = backend::Backend::listen(&guest.path(&format!("s{slot}"))).unwrap();
    let backend = Backend { socket: listening.path().to_owned(), reconnect: None };
    (listening, backend)
}

/// Waits until the state of a host is such, and returns it.
pub(crate) async fn until(bus: &Bus, what: &str, wanted: impl Fn(&HostState) -> bool) -> HostState {
    let mut state = bus.state();
    let found = timeout(LIMIT, state.wait_for(|state| wanted(state))).await;
    match found {
        Ok(found) => found.unwrap().clone(),
        Err(_) => panic!("{what}: it never was so: {:#?}", *bus.state().borrow()),
    }
}

/// A bus that is connected to its guest.
pub(crate) async fn connected(config: virtnet_qemu_host::HostConfig) -> Bus {
    let bus = Bus::start(config).unwrap();
    until(&bus, "connected", |state| matches!(state.connection, Connection::Up { .. })).await;
    bus
}

/// The functions in slots, by their slot.
pub(crate) fn slots(state: &HostState) -> Vec<u16> {
    let slots = state.functions.keys().filter_map(|place| match place {
        Place::Slot(slot) => Some(*slot),
        Place::Static(_) | Place::Vf(..) => None,
    });
    slots.collect()
}
