//! A device for unit tests, and a table over it.

use std::collections::BTreeMap;

use virtnet_model::{EswitchPort, Features, Mac, QueueSize, Uplink};

use crate::limits::Bounds;
use crate::table::Table;
use crate::{DeviceState, EngineConfig, Profile};

/// A device with one port and no functions, whose firmware emulates functions with four MSI-X vectors, and says this as well.
pub(crate) fn device(firmware: &[(&str, &str)]) -> DeviceState {
    let plain =
        [("VIRTIO_NET_EMULATION_ENABLE", "1"), ("VIRTIO_NET_EMULATION_NUM_MSIX", "4"), ("PF_TOTAL_SF", "8")];
    let firmware = plain.iter().chain(firmware).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    DeviceState {
        profile: Profile {
            firmware: [(EswitchPort::P0, firmware.collect())].into(),
            base_mac: Mac::local([0; 5]),
            max_virtq: 16,
            max_queue_size: QueueSize::DEFAULT,
            features: Features::controller_default(),
            host_io_space: 0,
            hosts: BTreeMap::new(),
        },
        uplink_mtus: [(Uplink::P0, 1500)].into(),
        functions: BTreeMap::new(),
        sfs: BTreeMap::new(),
    }
}

/// The table of a controller that has just found the device.
pub(crate) fn table(device: DeviceState, config: EngineConfig) -> Table {
    let bounds = Bounds::new(&device, &config).unwrap();
    Table::new(config, bounds, device)
}
