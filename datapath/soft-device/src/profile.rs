//! What firmware would have of the device: [`profile`].

use std::collections::BTreeMap;

use virtnet_controller::Profile;
use virtnet_model::{EswitchPort, FirmwareValues, QueueSize};
use virtnet_soft::{Carries, MAX_PAIRS, supported};

use crate::config::SoftConfig;

/// The greatest ring that QEMU's virtio-net has.
const MAX_QUEUE_SIZE: u32 = 1024;
/// Virtqueues that a function can have at most.
pub(crate) const MAX_VIRTQ: u16 = 2 * MAX_PAIRS + 1;
/// SFs beside those of functions: numbers of them that a controller may hold for a moment.
const SPARE_SFS: u32 = 16;

/// The device as a controller takes it over: one port, as many slots, static PFs and VFs as are configured.
pub(crate) fn profile(config: &SoftConfig, carries: Carries) -> Profile {
    let slots = u32::from(config.slots());
    let static_pfs = u32::from(config.static_pfs());
    let values: FirmwareValues = [
        ("VIRTIO_NET_EMULATION_ENABLE", 1),
        ("VIRTIO_NET_EMULATION_NUM_PF", static_pfs),
        ("VIRTIO_NET_EMULATION_NUM_VF", config.vfs.into()),
        ("VIRTIO_NET_EMULATION_NUM_MSIX", config.msix.into()),
        ("VIRTIO_NET_EMULATION_PF_PCI_LAYOUT", 1),
        ("VIRTIO_EMULATION_HOTPLUG_TRANS", 1),
        ("PCI_SWITCH_EMULATION_ENABLE", u32::from(slots > 0)),
        ("PCI_SWITCH_EMULATION_NUM_PORT", slots),
        ("PF_TOTAL_SF", slots + static_pfs * (1 + u32::from(config.vfs)) + SPARE_SFS),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_string()))
    .collect();
    Profile {
        firmware: BTreeMap::from([(EswitchPort::P0, values)]),
        base_mac: config.mac,
        max_virtq: MAX_VIRTQ,
        max_queue_size: max_queue_size(),
        features: supported(carries),
        // One window of 4 KiB for each slot, and the switch's own.
        host_io_space: (slots + 1) * 4096,
        hosts: config
            .hosts
            .iter()
            .map(|(name, host)| (name.clone(), host.slots.keys().copied().collect()))
            .collect(),
    }
}

/// The greatest ring that a function can have.
pub(crate) fn max_queue_size() -> QueueSize {
    QueueSize::try_from(MAX_QUEUE_SIZE).unwrap_or_else(|_| unreachable!("a power of two"))
}

#[cfg(test)]
mod tests {
    use virtnet_model::Feature;

    use super::*;

    #[test]
    fn offloads_are_offered_where_the_switch_carries_them() {
        let config = SoftConfig::parse("{mac: 02:00:00:00:aa:00, sockets: /s, slots: 2}").unwrap();
        let of = |offloads| profile(&config, Carries { offloads });
        assert!(of(true).features.contains(Feature::Csum) && !of(false).features.contains(Feature::Csum));
        assert_eq!(of(false).firmware[&EswitchPort::P0]["PCI_SWITCH_EMULATION_NUM_PORT"], "2");
    }
}
