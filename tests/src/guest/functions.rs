//! The virtio-net functions that a guest sees: [`sees`], [`InGuest`].

#![expect(clippy::unwrap_used, reason = "a test that can not go on panics")]

use std::collections::{BTreeMap, BTreeSet};

use virtnet_model::Mac;

use crate::guest::console::Console;

/// A virtio-net function as the guest's kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InGuest {
    /// Its address, without the domain.
    pub bdf: String,
    /// Vendor and device, such as `0x1af4:0x1041`.
    pub ids: String,
    /// Its netdev.
    pub netdev: String,
    /// The netdev's MTU in bytes.
    pub mtu: u16,
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
///
/// # Panics
/// Where the guest can't tell.
pub async fn queues_and_vectors(console: &mut Console, there: &InGuest) -> (u16, u16) {
    let InGuest { bdf, netdev, .. } = there;
    let command = format!(
        "/usr/bin/ethtool -l {netdev} | awk '/Combined/ {{ print $2; exit }}'; ls /sys/bus/pci/devices/0000:{bdf}/msi_irqs | wc -l"
    );
    let output = console.sh(&command).await.unwrap();
    let mut numbers = output.lines().map(|line| line.trim().parse().unwrap_or_else(|_| panic!("{output}")));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Waits until the guest's netdevs are those of these MACs and no others.
///
/// # Panics
/// Where they never are.
pub async fn sees(console: &mut Console, macs: impl IntoIterator<Item = Mac>) -> BTreeMap<Mac, InGuest> {
    let macs: BTreeSet<_> = macs.into_iter().collect();
    let all = |output: &str| {
        let found = found(output);
        found.keys().eq(&macs).then_some(found)
    };
    console.until(LOOK, all).await.unwrap()
}
