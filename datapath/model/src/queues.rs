//! The virtqueues of a function as its device has them: [`QueueState`], and the trait [`Queues`] of a controller that tells of
//! them.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Controller, PartError, Target};

/// The last packet length, in bytes, that each of [`QueueCounters::packets`] counts but the last, which counts longer ones.
pub const PACKET_LENGTHS: [u32; 10] = [64, 127, 255, 511, 1023, 1522, 2047, 4095, 8191, 9022];

/// What a virtqueue is for (virtio 1.2, section 5.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum QueueRole {
    /// The device puts packets into it.
    Receive,
    /// The driver puts packets into it.
    Transmit,
    /// The driver puts commands into it.
    Control,
}

/// A virtqueue as the device has it (virtio 1.2, section 4.1.4.3), and what went through it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueState {
    /// Its index, from 0.
    pub index: u16,
    /// What it is for.
    pub role: QueueRole,
    /// Descriptors.
    pub size: u16,
    /// The driver has set it up.
    pub enabled: bool,
    /// The MSI-X vector that its interrupts have; `None`: the driver has given it none.
    pub vector: Option<u16>,
    /// Where the driver notifies the device, in units of `notify_off_multiplier`.
    pub notify_offset: u16,
    /// The address in the host's memory of the descriptor area; 0 until the driver has set it.
    pub descriptor_area: u64,
    /// That of the driver area (the available ring).
    pub driver_area: u64,
    /// That of the device area (the used ring).
    pub device_area: u64,
    /// How soon the driver is interrupted.
    pub moderation: Moderation,
    /// What went through it: since the driver set it up, or longer where the device counts on.
    pub counters: QueueCounters,
}

/// What went through a virtqueue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueCounters {
    /// Descriptors that the driver made available.
    pub received_desc: u64,
    /// Descriptors that the device has used and given back.
    pub completed_desc: u64,
    /// Descriptors that can't be read as such.
    pub bad_desc_errors: u64,
    /// Completions with an error.
    pub error_cqes: u64,
    /// Chains that are longer than the device takes.
    pub exceed_max_chain: u64,
    /// Buffers that are not in the host's memory, or of the wrong direction or length.
    pub invalid_buffer: u64,
    /// Times that the device looked for descriptors and found some.
    pub batches: u64,
    /// Queues of the device's own that copy for it; 0 where the device copies by itself.
    pub dma_queues: u64,
    /// Bytes of packets, the header of virtio-net left out.
    pub total_bytes: u64,
    /// Packets by their length: up to that of the same place in [`PACKET_LENGTHS`].
    pub packets: [u64; PACKET_LENGTHS.len() + 1],
}

impl QueueCounters {
    /// Counts packets of so many bytes each.
    pub fn count(&mut self, bytes: u32, packets: u64) {
        let place = PACKET_LENGTHS.iter().position(|most| bytes <= *most).unwrap_or(PACKET_LENGTHS.len());
        self.packets[place] += packets;
        self.total_bytes += u64::from(bytes) * packets;
    }

    /// All that went wrong.
    pub fn errors(&self) -> u64 {
        self.bad_desc_errors + self.error_cqes + self.exceed_max_chain + self.invalid_buffer
    }
}

/// From when on the time of [`Moderation::period`] runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PeriodMode {
    /// From the last interrupt on.
    Event,
    /// From the last packet on.
    #[default]
    Completion,
}

/// When the driver is interrupted for what its receive queues got: once so many packets are there, or so much time has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Moderation {
    /// From when on the time runs.
    pub mode: PeriodMode,
    /// The time in microseconds; 0: at once.
    pub period: u16,
    /// The packets; 0: any number.
    pub max_count: u16,
}

/// A controller that tells of queues. An agent decides nothing by them, and only passes on what they have counted.
#[async_trait]
pub trait Queues: Controller {
    /// The queues of a function now: as many as it has, in the order of their indices.
    async fn queues(&self, target: &Target) -> Result<Vec<QueueState>, PartError>;

    /// Sets when a function's driver is interrupted for what it receives; also while the driver has it.
    async fn moderate(&self, target: &Target, moderation: Moderation) -> Result<(), PartError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_by_their_length() {
        let mut counters = QueueCounters::default();
        for bytes in [60, 64, 65, 1522, 1523, 9022, 9023, 9978] {
            counters.count(bytes, 2);
        }
        assert_eq!(counters.packets, [4, 2, 0, 0, 0, 2, 2, 0, 0, 2, 4]);
        assert_eq!(counters.total_bytes, 2 * (60 + 64 + 65 + 1522 + 1523 + 9022 + 9023 + 9978));
        assert_eq!(counters.errors(), 0);
    }
}
