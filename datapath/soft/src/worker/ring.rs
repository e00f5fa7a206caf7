//! [`Ring`]: a split virtqueue from the device's side (virtio 1.2, section 2.7).
//!
//! Descriptor chains are given back in the order in which they were made available. So the used index, which is in the guest's
//! memory, alone says which were given back, whatever becomes of a worker.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use super::memory::Memory;

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` and `VIRTQ_USED_F_NO_NOTIFY`.
const QUIET: u16 = 1;

/// A descriptor as it is in the guest's memory, in little endian.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    pub(super) const SIZE: u64 = size_of::<Self>() as u64;
    /// Another follows it.
    pub(super) const NEXT: u16 = 1;
    /// The device writes to its buffer.
    pub(super) const WRITE: u16 = 2;
    /// Its buffer is a table of descriptors.
    pub(super) const INDIRECT: u16 = 4;

    pub(super) fn address(self) -> u64 {
        u64::from_le(self.address)
    }

    pub(super) fn length(self) -> u32 {
        u32::from_le(self.length)
    }

    pub(super) fn flags(self) -> u16 {
        u16::from_le(self.flags)
    }

    pub(super) fn next(self) -> u16 {
        u16::from_le(self.next)
    }
}

#[repr(C, align(4))]
struct UsedElement {
    id: u32,
    length: u32,
}

/// Why a ring can't be used any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The driver's index is further on than the ring is long.
    Index,
    /// A head is no descriptor of the ring.
    Head,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Index => "the driver made more descriptors available than the ring has",
            Self::Head => "the driver made a descriptor available that the ring does not have",
        })
    }
}

/// Where a ring is, in the guest's addresses, and what was agreed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) size: u16,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    pub(super) event_index: bool,
}

/// The ring. Every pointer is into `memory`.
#[derive(Debug)]
pub(super) struct Ring {
    memory: Arc<Memory>,
    size: u16,
    descriptors: *const Descriptor,
    /// Flags, index, heads, and the driver's event index.
    available: *mut u16,
    /// Flags, index, elements, and the device's event index.
    used: *mut u16,
    event_index: bool,
    /// The next of the available ring to be taken.
    next: u16,
    /// Up to where chains were given back, of which the driver knows up to `told`.
    done: u16,
    told: u16,
    /// The driver's index, as it was last read.
    limit: u16,
}

// SAFETY: the pointers are into memory that the ring keeps mapped, and is accessed by volatile and atomic accesses alone.
unsafe impl Send for Ring {}

impl Ring {
    /// The ring, to go on from where it was left: after the last chain that was given back.
    ///
    /// # Errors
    /// Where its size is no power of two up to 32768, or it is not in the guest's memory, in one piece and aligned (virtio 1.2,
    /// section 2.7.1).
    pub(super) fn open(memory: &Arc<Memory>, layout: Layout) -> Result<Self, String> {
        let size = u64::from(layout.size);
        if !layout.size.is_power_of_two() || layout.size > 1 << 15 {
            return Err(format!("a ring of {size} descriptors: not a power of two up to 32768"));
        }
        let part = |name: &str, address: u64, length: u64, alignment: usize| {
            let at = memory.piece(address, length).ok_or_else(|| {
                format!("the {name} at {address:#x} is not in the guest's memory, or not in one piece")
            })?;
            if at.as_ptr().addr() % alignment != 0 {
                return Err(format!("the {name} at {address:#x} is not aligned to {alignment} bytes"));
            }
            Ok(at.as_ptr())
        };
        let descriptors = part("descriptor table", layout.descriptors, size * Descriptor::SIZE, 16)?;
        // The last two bytes are there only with the event index.
        let event = if layout.event_index { 2 } else { 0 };
        let available = part("available ring", layout.available, 4 + 2 * size + event, 2)?;
        let used = part("used ring", layout.used, 4 + 8 * size + event, 4)?;
        let mut ring = Self {
            memory: Arc::clone(memory),
            size: layout.size,
            descriptors: descriptors.cast(),
            available: available.cast(),
            used: used.cast(),
            event_index: layout.event_index,
            next: 0,
            done: 0,
            told: 0,
            limit: 0,
        };
        let done = u16::from_le(ring.used_at(1).load(Ordering::Acquire));
        (ring.next, ring.done, ring.told, ring.limit) = (done, done, done, done);
        Ok(ring)
    }

    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// Up to which index chains were given back.
    pub(super) fn done(&self) -> u16 {
        self.done
    }

    /// A number of the available ring: 0 the flags, 1 the index, then heads, at last the event index.
    #[inline]
    fn available_at(&self, index: usize) -> &AtomicU16 {
        debug_assert!(index < usize::from(self.size) + 2 + usize::from(self.event_index));
        // SAFETY: `open` made sure that so many numbers are there and aligned.
        unsafe { AtomicU16::from_ptr(self.available.add(index)) }
    }

    /// A number of the used ring: 0 the flags, 1 the index, the last one the event index.
    #[inline]
    fn used_at(&self, index: usize) -> &AtomicU16 {
        debug_assert!(index < 4 * usize::from(self.size) + 2 + usize::from(self.event_index));
        // SAFETY: `open` made sure that so many numbers are there and aligned.
        unsafe { AtomicU16::from_ptr(self.used.add(index)) }
    }

    /// How many chains are available, asking the driver only when none is known of.
    #[inline]
    pub(super) fn available(&mut self) -> Result<u16, Broken> {
        if self.limit == self.next {
            self.limit = u16::from_le(self.available_at(1).load(Ordering::Acquire));
        }
        let count = self.limit.wrapping_sub(self.next);
        // Those that were taken and not given back are the driver's no more than those in the ring.
        let outstanding = self.limit.wrapping_sub(self.done);
        if outstanding > self.size { Err(Broken::Index) } else { Ok(count) }
    }

    /// Takes the next chain: the index of its first descriptor. Only where one is available.
    #[inline]
    pub(super) fn take(&mut self) -> Result<u16, Broken> {
        let head = self.peek()?;
        self.next = self.next.wrapping_add(1);
        Ok(head)
    }

    /// What `take` would give.
    #[inline]
    pub(super) fn peek(&self) -> Result<u16, Broken> {
        let at = usize::from(self.next & (self.size - 1)) + 2;
        let head = u16::from_le(self.available_at(at).load(Ordering::Relaxed));
        if head < self.size { Ok(head) } else { Err(Broken::Head) }
    }

    /// A descriptor of the table.
    #[inline]
    pub(super) fn descriptor(&self, index: u16) -> Option<Descriptor> {
        // SAFETY: `open` made sure that so many are there and aligned.
        (index < self.size).then(|| unsafe { self.descriptors.add(usize::from(index)).read_volatile() })
    }

    /// Gives a chain back, of which so many bytes were written. The driver knows of it after `publish`.
    #[inline]
    pub(super) fn give_back(&mut self, head: u16, length: u32) {
        let at = usize::from(self.done & (self.size - 1));
        let element = UsedElement { id: u32::from(head).to_le(), length: length.to_le() };
        // SAFETY: `open` made sure that so many elements are there, after two numbers, and aligned.
        unsafe { self.used.add(2).cast::<UsedElement>().add(at).write_volatile(element) };
        self.done = self.done.wrapping_add(1);
    }

    /// Whether there is something to publish, and how much.
    pub(super) fn unpublished(&self) -> u16 {
        self.done.wrapping_sub(self.told)
    }

    /// Tells the driver of what was given back; whether it wants to be notified.
    pub(super) fn publish(&mut self) -> bool {
        let before = std::mem::replace(&mut self.told, self.done);
        if before == self.done {
            return false;
        }
        self.used_at(1).store(self.done.to_le(), Ordering::Release);
        // The driver writes what it wants and then looks at the index; here it is the other way round.
        fence(Ordering::SeqCst);
        if self.event_index {
            let event = u16::from_le(self.available_at(usize::from(self.size) + 2).load(Ordering::Relaxed));
            // virtio 1.2, section 2.7.7.2: the event is one of those just given back.
            self.done.wrapping_sub(event).wrapping_sub(1) < self.done.wrapping_sub(before)
        } else {
            u16::from_le(self.available_at(0).load(Ordering::Relaxed)) & QUIET == 0
        }
    }

    /// Asks the driver for no notifications: the queue is being worked on.
    pub(super) fn hush(&self) {
        // With the event index it is enough that the event stays behind.
        if !self.event_index {
            self.used_at(0).store(QUIET.to_le(), Ordering::Relaxed);
        }
    }

    /// Asks for a notification of the next chain; whether there is one already.
    pub(super) fn listen(&mut self) -> Result<bool, Broken> {
        if self.event_index {
            let at = 4 * usize::from(self.size) + 2;
            self.used_at(at).store(self.limit.to_le(), Ordering::Relaxed);
        } else {
            self.used_at(0).store(0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        let limit = u16::from_le(self.available_at(1).load(Ordering::Acquire));
        let more = limit != self.limit;
        self.limit = limit;
        self.available()?;
        Ok(more)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;
    use crate::job::Region;

    const SIZE: u16 = 8;
    const AVAILABLE: u64 = 0x1000;
    const USED: u64 = 0x2000;

    fn memory() -> Arc<Memory> {
        let fds = [memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap()];
        std::fs::File::from(fds[0].try_clone().unwrap()).set_len(0x4000).unwrap();
        Arc::new(Memory::map(&[Region { guest: 0, size: 0x4000, offset: 0, fd: 0 }], &fds).unwrap())
    }

    fn layout(event_index: bool) -> Layout {
        Layout { size: SIZE, descriptors: 0, available: AVAILABLE, used: USED, event_index }
    }

    fn number(memory: &Memory, address: u64) -> &AtomicU16 {
        // SAFETY: it is inside of the memory that the test made, and aligned.
        unsafe { AtomicU16::from_ptr(memory.piece(address, 2).unwrap().as_ptr().cast()) }
    }

    #[test]
    fn chains_are_taken_and_given_back_once_over_the_end_of_the_ring() {
        let memory = memory();
        number(&memory, USED + 2).store(u16::MAX, Ordering::Relaxed);
        number(&memory, AVAILABLE + 2).store(2, Ordering::Relaxed);
        for (index, head) in [(7, 5), (0, 3), (1, 1)] {
            number(&memory, AVAILABLE + 4 + 2 * index).store(head, Ordering::Relaxed);
        }
        let mut ring = Ring::open(&memory, layout(false)).unwrap();
        let mut heads = Vec::new();
        while ring.available().unwrap() > 0 {
            heads.push(ring.take().unwrap());
        }
        assert_eq!(heads, [5, 3, 1]);
        heads.iter().for_each(|head| ring.give_back(*head, 9));
        assert_eq!(number(&memory, USED + 2).load(Ordering::Relaxed), u16::MAX, "the driver was not told");
        assert!(ring.publish() && !ring.publish());
        assert_eq!(number(&memory, USED + 2).load(Ordering::Relaxed), 2);
        assert_eq!(number(&memory, USED + 4 + 8 * 7).load(Ordering::Relaxed), 5);
        let again = Ring::open(&memory, layout(false)).unwrap();
        assert_eq!((again.next, again.done()), (2, 2));
    }

    #[test]
    fn what_a_driver_can_not_mean_breaks_the_ring() {
        let memory = memory();
        let mut ring = Ring::open(&memory, layout(false)).unwrap();
        number(&memory, AVAILABLE + 2).store(SIZE + 1, Ordering::Relaxed);
        assert_eq!(ring.available(), Err(Broken::Index));
        number(&memory, AVAILABLE + 2).store(1, Ordering::Relaxed);
        number(&memory, AVAILABLE + 4).store(SIZE, Ordering::Relaxed);
        let mut ring = Ring::open(&memory, layout(false)).unwrap();
        assert_eq!(ring.available(), Ok(1));
        assert_eq!(ring.take(), Err(Broken::Head));
        let refused = |change: fn(&mut Layout)| {
            let mut layout = layout(true);
            change(&mut layout);
            Ring::open(&memory, layout).unwrap_err()
        };
        assert!(refused(|layout| layout.size = 6).contains("power of two"));
        assert!(refused(|layout| layout.size = 0).contains("power of two"));
        assert!(refused(|layout| layout.descriptors = 8).contains("aligned"));
        assert!(refused(|layout| layout.used = 0x4000 - 4 - 64).contains("not in the guest's memory"));
        assert!(refused(|layout| layout.available = u64::MAX - 1).contains("not in the guest's memory"));
    }

    #[test]
    fn the_driver_is_notified_of_what_it_asked_for() {
        let memory = memory();
        let mut ring = Ring::open(&memory, layout(true)).unwrap();
        number(&memory, AVAILABLE + 2).store(4, Ordering::Relaxed);
        let event = number(&memory, AVAILABLE + 4 + 2 * u64::from(SIZE));
        event.store(2, Ordering::Relaxed);
        assert_eq!(ring.available(), Ok(4));
        let one = |ring: &mut Ring| {
            let head = ring.take().unwrap();
            ring.give_back(head, 0);
            ring.publish()
        };
        assert_eq!(
            [one(&mut ring), one(&mut ring), one(&mut ring), one(&mut ring)],
            [false, false, true, false]
        );
        assert!(!ring.listen().unwrap());
        let asked = number(&memory, USED + 4 + 8 * u64::from(SIZE)).load(Ordering::Relaxed);
        assert_eq!(asked, 4, "of the one after those that are known");
        number(&memory, AVAILABLE + 2).store(5, Ordering::Relaxed);
        assert!(ring.listen().unwrap(), "one that came meanwhile");
    }
}
