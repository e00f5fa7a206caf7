//! What these tests share: a bus on a guest, back ends for its slots, and what a guest sees of a function.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;
use virtnet_controller::{Place, Settings};
use virtnet_model::{Feature, Features, Mac, Mtu, QueueSize};
use virtnet_qemu_host::{Backend, Bus, Connection, HostState};
use virtnet_tests::guest::console::Console;
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
        queue_size: QueueSize::try_from(256).unwrap(),
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

/// A virtio-net function as the guest's kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InGuest {
    pub(crate) bdf: String,
    pub(crate) ids: String,
    pub(crate) netdev: String,
    pub(crate) mtu: u16,
}

/// Prints a line for each netdev that is a PCI function: MAC, address, vendor and device, netdev, MTU. By the shell itself: a program for
/// each word would take an emulated processor a second.
const LOOK: &str = r#"
for netdev in /sys/class/net/*; do
    cd -P "$netdev/device/.." 2>/dev/null && read -r vendor <vendor 2>/dev/null || continue
    read -r device <device
    read -r mac <"$netdev/address"
    read -r mtu <"$netdev/mtu"
    echo "$mac ${PWD##*/} $vendor:$device ${netdev##*/} $mtu"
done 2>/dev/null
true"#;

/// The functions that [`LOOK`] found, by MAC. A netdev that goes meanwhile is none.
fn found(output: &str) -> BTreeMap<Mac, InGuest> {
    let one = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [mac, bdf, ids, netdev, mtu] = words[..] else { return None };
        let bdf = bdf.strip_prefix("0000:")?.to_owned();
        let function =
            InGuest { bdf, ids: ids.to_owned(), netdev: netdev.to_owned(), mtu: mtu.parse().ok()? };
        Some((mac.parse().ok()?, function))
    };
    output.lines().filter_map(one).collect()
}

/// The queue pairs that a netdev could have, and the MSI-X vectors that it uses.
pub(crate) async fn queues_and_vectors(console: &mut Console, there: &InGuest) -> (u16, u16) {
    let InGuest { bdf, netdev, .. } = there;
    let command = format!(
        "/usr/bin/ethtool -l {netdev} | awk '/Combined/ {{ print $2; exit }}'; ls /sys/bus/pci/devices/0000:{bdf}/msi_irqs | wc -l"
    );
    let output = console.sh(&command).await.unwrap();
    let mut numbers = output.lines().map(|line| line.trim().parse().unwrap_or_else(|_| panic!("{output}")));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Waits until the guest's netdevs are those of these MACs and no others.
pub(crate) async fn sees(
    console: &mut Console,
    macs: impl IntoIterator<Item = Mac>,
) -> BTreeMap<Mac, InGuest> {
    let macs: Vec<_> = macs.into_iter().collect();
    let all = |output: &str| {
        let found = found(output);
        (found.keys().copied().collect::<Vec<_>>() == macs).then_some(found)
    };
    console.until(LOOK, all).await.unwrap()
}
