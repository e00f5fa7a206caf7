//! The virtqueues of the simulated functions: what the host's driver sets up of them, and what goes through them.

use std::collections::BTreeMap;

use virtnet_controller::{Place, Settings};
use virtnet_model::{
    Bdf, Feature, Features, Moderation, PartError, QueueCounters, QueueRole, QueueState, Refusal,
};

use crate::world::World;

/// Where the host's memory for rings begins, and how much of it each address on its bus has.
const RINGS: u64 = 4 << 30;
const RINGS_EACH: u64 = 64 << 20;
/// What a ring begins at a multiple of.
const PAGE: u64 = 4096;
const CACHE_LINE: u64 = 64;
/// The vector that a driver gives to changes of the configuration; those of its queues follow.
pub(crate) const CONFIG_VECTOR: u16 = 0;
/// Bytes of an Ethernet header, and of one with a VLAN tag.
const HEADER: u32 = 14;
const TAGGED_HEADER: u32 = 18;

/// Something that a driver does wrongly with a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// A descriptor that says nothing.
    BadDescriptor,
    /// A chain that is longer than the device takes.
    LongChain,
    /// A buffer outside the host's memory.
    BadBuffer,
}

/// The queues of one function.
#[derive(Debug, Default)]
pub(crate) struct FunctionQueues {
    moderation: Moderation,
    /// Those that the driver has set up, by index.
    set_up: BTreeMap<u16, QueueState>,
}

/// Which queues a function has (virtio 1.2, section 5.1.2): pairs, and after them that for commands.
#[derive(Clone, Copy, Debug)]
struct Layout {
    pairs: u16,
    control: Option<u16>,
}

impl Layout {
    /// Of these features. With MQ there are as many pairs as queues allow, else one.
    fn of(max_queues: u16, features: &Features) -> Self {
        let has_control = features.contains(Feature::CtrlVq) && max_queues > 2;
        let most = (max_queues - u16::from(has_control)) / 2;
        let pairs = if has_control && features.contains(Feature::Mq) { most } else { most.min(1) };
        Self { pairs, control: has_control.then_some(2 * pairs) }
    }

    fn role(self, index: u16) -> QueueRole {
        match index {
            index if self.control == Some(index) => QueueRole::Control,
            index if index % 2 == 0 => QueueRole::Receive,
            _ => QueueRole::Transmit,
        }
    }
}

/// A queue that no driver has set up.
fn idle(index: u16, role: QueueRole, settings: &Settings) -> QueueState {
    QueueState {
        index,
        role,
        size: settings.queue_size.get(),
        enabled: false,
        vector: None,
        notify_offset: index,
        descriptor_area: 0,
        driver_area: 0,
        device_area: 0,
        moderation: Moderation::default(),
        counters: QueueCounters::default(),
    }
}

impl World {
    /// A driver sets the queues up that it has a use for, as Linux does: all pairs and the control queue, each pair's with a
    /// vector of its own, which the control queue can do without.
    pub(crate) fn set_queues_up(&mut self, place: Place, negotiated: &Features) {
        let Some(emulated) = self.device.functions.get(&place) else { return };
        let Some(settings) = emulated.emulation.as_ref().map(|emulation| &emulation.settings) else { return };
        let layout = Layout::of(settings.max_queues, negotiated);
        let pairs = 0..(2 * layout.pairs).max(1);
        let mut free = RINGS + emulated.bdf.map_or(0, |bdf| u64::from(bdf.raw())) * RINGS_EACH;
        let mut set_up = BTreeMap::new();
        for index in pairs.chain(layout.control) {
            let role = layout.role(index);
            let mut queue = idle(index, role, settings);
            let size = u64::from(queue.size);
            queue.enabled = true;
            queue.vector = (role != QueueRole::Control).then_some(CONFIG_VECTOR + 1 + index);
            queue.descriptor_area = free;
            queue.driver_area = free + 16 * size;
            queue.device_area = (queue.driver_area + 6 + 2 * size).next_multiple_of(CACHE_LINE);
            free = (queue.device_area + 6 + 8 * size).next_multiple_of(PAGE);
            if role == QueueRole::Receive {
                queue.counters.received_desc = size;
            }
            set_up.insert(index, queue);
        }
        self.device.queues.entry(place).or_default().set_up = set_up;
    }

    /// The driver has gone, or was never there: no queue is set up.
    pub(crate) fn reset_queues(&mut self, place: Place) {
        if let Some(queues) = self.device.queues.get_mut(&place) {
            queues.set_up.clear();
        }
    }

    pub(crate) fn queues(&self, place: Place) -> Result<Vec<QueueState>, PartError> {
        let doing = format!("query the queues of {place}");
        self.reachable(&doing)?;
        let emulated = self.device.functions.get(&place);
        let Some((emulated, emulation)) =
            emulated.and_then(|emulated| Some((emulated, emulated.emulation.as_ref()?)))
        else {
            return Err(PartError::refused(Refusal::NoSuchFunction, format!("{doing}: there is none")));
        };
        let settings = &emulation.settings;
        let features = emulated.negotiated.as_ref().unwrap_or(&settings.features);
        let layout = Layout::of(settings.max_queues, features);
        let known = self.device.queues.get(&place);
        let each = |index| {
            let set_up = known.and_then(|queues| queues.set_up.get(&index).cloned());
            let mut queue = set_up.unwrap_or_else(|| idle(index, layout.role(index), settings));
            if queue.role == QueueRole::Receive {
                queue.moderation = known.map(|queues| queues.moderation).unwrap_or_default();
            }
            queue
        };
        Ok((0..settings.max_queues).map(each).collect())
    }

    pub(crate) fn moderate(&mut self, place: Place, moderation: Moderation) -> Result<(), PartError> {
        let doing = format!("moderate {place}");
        self.reachable(&doing)?;
        if !self.device.functions.contains_key(&place) {
            return Err(PartError::refused(Refusal::NoSuchFunction, format!("{doing}: there is none")));
        }
        self.device.queues.entry(place).or_default().moderation = moderation;
        Ok(())
    }

    /// A queue that a driver has set up.
    fn set_up(&mut self, doing: &str, place: Place, index: u16) -> Result<&mut QueueState, PartError> {
        let queues = self.device.queues.get_mut(&place);
        queues.and_then(|queues| queues.set_up.get_mut(&index)).ok_or_else(|| {
            PartError::failed(format!("{doing}: no driver has set queue {index} of {place} up"))
        })
    }

    /// So many packets of so many bytes each go through a queue of the function at an address.
    pub(crate) fn traffic(
        &mut self,
        bdf: Bdf,
        index: u16,
        bytes: u32,
        packets: u32,
    ) -> Result<(), PartError> {
        let doing = format!("send packets through queue {index} of {bdf}");
        let place = self.at(bdf)?;
        let settings = self.device.functions.get(&place).and_then(|emulated| emulated.emulation.as_ref());
        let mtu = settings.map_or(0, |emulation| u32::from(emulation.settings.mtu.get()));
        if !(HEADER..=mtu + TAGGED_HEADER).contains(&bytes) {
            return Err(PartError::failed(format!(
                "{doing}: a packet of {bytes} bytes: with an MTU of {mtu} they have {HEADER} to {}",
                mtu + TAGGED_HEADER
            )));
        }
        let queue = self.set_up(&doing, place, index)?;
        if queue.role == QueueRole::Control {
            return Err(PartError::failed(format!("{doing}: it is for commands")));
        }
        let (size, packets) = (u64::from(queue.size), u64::from(packets));
        let counters = &mut queue.counters;
        // A driver puts a buffer into a receive queue for each that it takes out.
        counters.received_desc += packets;
        counters.completed_desc += packets;
        counters.batches += packets.div_ceil(size);
        counters.count(bytes, packets);
        Ok(())
    }

    /// The driver of the function at an address does something wrong, so many times.
    pub(crate) fn misuse(
        &mut self,
        bdf: Bdf,
        index: u16,
        misuse: Misuse,
        times: u32,
    ) -> Result<(), PartError> {
        let place = self.at(bdf)?;
        let counters = &mut self.set_up(&format!("misuse queue {index} of {bdf}"), place, index)?.counters;
        let times = u64::from(times);
        counters.received_desc += times;
        *match misuse {
            Misuse::BadDescriptor => &mut counters.bad_desc_errors,
            Misuse::LongChain => &mut counters.exceed_max_chain,
            Misuse::BadBuffer => &mut counters.invalid_buffer,
        } += times;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_queue_comes_after_the_pairs() {
        let mq: Features = [Feature::CtrlVq, Feature::Mq].into_iter().collect();
        let one: Features = [Feature::CtrlVq].into_iter().collect();
        let none = Features::default();
        for (max_queues, features, pairs, control) in [
            (9, &mq, 4, Some(8)),
            (8, &mq, 3, Some(6)),
            (3, &mq, 1, Some(2)),
            (9, &one, 1, Some(2)),
            (2, &mq, 1, None),
            (8, &none, 1, None),
            (1, &mq, 0, None),
        ] {
            let layout = Layout::of(max_queues, features);
            assert_eq!((layout.pairs, layout.control), (pairs, control), "{max_queues} of {features}");
        }
    }
}
