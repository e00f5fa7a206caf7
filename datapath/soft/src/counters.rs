//! [`QueueCounters`]: what is counted of each queue, as `virtnet stats` of the vendor's 24.10 lists it.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::shared::{RECORD, add};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $variant:ident,)*) => {
        /// Which number of a record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Counter {
            $($variant,)*
        }

        /// What one queue has counted since the function was made. A worker that is killed takes none of it along.
        ///
        /// Sizes are of Ethernet frames without the virtio-net header and without the check sequence.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct QueueCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl QueueCounters {
            pub(crate) fn read(record: &[AtomicU64; RECORD]) -> Self {
                let get = |counter: Counter| record[counter as usize].load(Ordering::Relaxed);
                Self { $($name: get(Counter::$variant),)* }
            }

            /// Each with its name, in the order above.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Packets of up to 64 bytes.
    octets_64_or_less = Octets64,
    /// Packets of 65 to 127 bytes.
    octets_65_to_127 = Octets127,
    /// Packets of 128 to 255 bytes.
    octets_128_to_255 = Octets255,
    /// Packets of 256 to 511 bytes.
    octets_256_to_511 = Octets511,
    /// Packets of 512 to 1023 bytes.
    octets_512_to_1023 = Octets1023,
    /// Packets of 1024 to 1522 bytes.
    octets_1024_to_1522 = Octets1522,
    /// Packets of 1523 to 2047 bytes.
    octets_1523_to_2047 = Octets2047,
    /// Packets of 2048 to 4095 bytes.
    octets_2048_to_4095 = Octets4095,
    /// Packets of 4096 to 8191 bytes.
    octets_4096_to_8191 = Octets8191,
    /// Packets of 8192 to 9022 bytes.
    octets_8192_to_9022 = Octets9022,
    /// Longer ones, which only segmentation offload makes. The vendor's list has none of these.
    octets_9023_or_more = OctetsMore,
    /// Packets that passed.
    packets = Packets,
    /// Bytes of them.
    total_bytes = Bytes,
    /// Descriptor chains taken from the driver.
    received_desc = Received,
    /// Descriptor chains given back.
    completed_desc = Completed,
    /// Chains that are none: out of the ring, of the wrong direction, indirect where that was not agreed on, or loops; and an
    /// index of the driver's beyond what the ring holds, which stops the queue.
    bad_desc_errors = BadDescriptor,
    /// Chains with more descriptors than the queue may have.
    exceed_max_chain = TooLong,
    /// Buffers that are no memory of the guest's, or too small or too large for a packet.
    invalid_buffer = BadBuffer,
    /// Packets that the TAP did not take or that did not fit, and so were dropped.
    dropped = Dropped,
    /// Packets that may or may not have passed when a worker was killed. They are not sent again.
    in_doubt = InDoubt,
    /// Times the driver's notification woke the worker.
    kicks = Kicks,
    /// Notifications of the driver.
    notifications = Notifications,
    /// Batches in which chains were given back.
    batches = Batches,
    /// Times the queue was stopped since its ring or its memory can't be used.
    stopped = Stopped,
}

impl QueueCounters {
    /// By the names of the vendor's `stats`, with `rx` or `tx` before sizes: queues with even numbers receive.
    pub fn vendor(&self, queue: u16) -> Vec<(String, u64)> {
        let side = if queue.is_multiple_of(2) { "rx" } else { "tx" };
        let name = |name: &str| match name.strip_prefix("octets_") {
            Some(size) => format!("{side}_{size}_octet_packets"),
            None => name.to_owned(),
        };
        self.named().map(|(counter, value)| (name(counter), value)).collect()
    }
}

/// The counters of a queue as its one writer sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally<'a>(pub(crate) &'a [AtomicU64; RECORD]);

impl Tally<'_> {
    #[inline]
    pub(crate) fn count(self, counter: Counter, more: u64) {
        add(&self.0[counter as usize], more);
    }

    /// A packet of this many bytes has passed.
    #[inline]
    pub(crate) fn packet(self, bytes: usize) {
        let size = match bytes {
            ..=64 => Counter::Octets64,
            65..=127 => Counter::Octets127,
            128..=255 => Counter::Octets255,
            256..=511 => Counter::Octets511,
            512..=1023 => Counter::Octets1023,
            1024..=1522 => Counter::Octets1522,
            1523..=2047 => Counter::Octets2047,
            2048..=4095 => Counter::Octets4095,
            4096..=8191 => Counter::Octets8191,
            8192..=9022 => Counter::Octets9022,
            _ => Counter::OctetsMore,
        };
        self.count(size, 1);
        self.count(Counter::Packets, 1);
        self.count(Counter::Bytes, bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Shared;

    #[test]
    fn packets_are_counted_by_size_under_the_vendors_names() {
        let shared = Shared::create("counters", 2).unwrap();
        let tally = Tally(shared.record(1));
        [60, 64, 65, 1522, 1523, 9022, 9023, 65_000].into_iter().for_each(|bytes| tally.packet(bytes));
        let counters = QueueCounters::read(shared.record(1));
        assert_eq!((counters.octets_64_or_less, counters.octets_9023_or_more, counters.packets), (2, 2, 8));
        let vendor = counters.vendor(1);
        assert!(vendor.contains(&("tx_64_or_less_octet_packets".to_owned(), 2)), "{vendor:?}");
        assert!(vendor.contains(&("tx_1024_to_1522_octet_packets".to_owned(), 1)), "{vendor:?}");
        assert!(vendor.contains(&("received_desc".to_owned(), 0)), "{vendor:?}");
        assert!(vendor.len() <= RECORD);
    }
}
