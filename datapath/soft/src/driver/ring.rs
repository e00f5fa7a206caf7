//! [`Ring`]: a split virtqueue from the driver's side (virtio 1.2, section 2.7).

use std::io;
use std::sync::atomic::{Ordering, fence};

use nix::sys::eventfd::{EfdFlags, EventFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// A buffer to make available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Its guest physical address.
    pub address: u64,
    /// In bytes.
    pub length: u32,
    /// The device writes to it.
    pub writable: bool,
}

/// A chain that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// What it was made available as.
    pub cookie: u64,
    /// How much the device has written there.
    pub length: u32,
}

/// A ring in a guest's memory.
#[derive(Debug)]
pub struct Ring {
    memory: GuestMemoryMmap<()>,
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    /// Room for a table of indirect descriptors for each descriptor; `None`: they are not used.
    tables: Option<u64>,
    event_index: bool,
    free: Vec<u16>,
    /// Of each head that the device has: the cookie, and the descriptors of its chain.
    out: Vec<Option<(u64, Vec<u16>)>>,
    next: u16,
    kicked: u16,
    seen: u16,
    /// By which the device is notified.
    pub kick: EventFd,
    /// By which the device notifies.
    pub call: EventFd,
}

/// Descriptors that an indirect table has room for.
const TABLE: u64 = 16;

impl Ring {
    /// Bytes that a ring needs, with what lies beside it.
    pub(super) fn bytes(size: u16) -> u64 {
        let size = u64::from(size);
        (16 * size + (6 + 2 * size).next_multiple_of(64) + (6 + 8 * size) + TABLE * 16 * size)
            .next_multiple_of(4096)
    }

    /// An empty one at an address.
    pub(super) fn new(
        memory: GuestMemoryMmap<()>,
        at: u64,
        size: u16,
        event_index: bool,
        indirect: bool,
    ) -> io::Result<Self> {
        let long = u64::from(size);
        let available = at + 16 * long;
        let used = available + (6 + 2 * long).next_multiple_of(64);
        let tables = (used + 6 + 8 * long).next_multiple_of(16);
        let event = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let ring = Self {
            memory,
            size,
            descriptors: at,
            available,
            used,
            tables: indirect.then_some(tables),
            event_index,
            free: (0..size).rev().collect(),
            out: vec![None; size.into()],
            next: 0,
            kicked: 0,
            seen: 0,
            kick: event()?,
            call: event()?,
        };
        for at in [available, used] {
            ring.put(at, 0u32);
        }
        Ok(ring)
    }

    /// Where its three parts are: descriptors, available and used ring.
    pub fn parts(&self) -> [u64; 3] {
        [self.descriptors, self.available, self.used]
    }

    /// Its size.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// How many chains the device has.
    pub fn outstanding(&self) -> usize {
        self.out.iter().flatten().count()
    }

    /// The index that the device has given back up to, as the driver has seen it.
    pub fn seen(&self) -> u16 {
        self.seen
    }

    fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(at)).expect("rings are in the guest's memory");
    }

    fn load(&self, at: u64) -> u16 {
        self.memory.load(GuestAddress(at), Ordering::Acquire).expect("rings are in the guest's memory")
    }

    fn store(&self, at: u64, value: u16) {
        self.memory
            .store(value, GuestAddress(at), Ordering::Release)
            .expect("rings are in the guest's memory");
    }

    fn describe(&self, table: u64, index: u64, buffer: Buffer, next: Option<u16>) {
        let flags = u16::from(next.is_some()) | u16::from(buffer.writable) << 1;
        self.descriptor(table + 16 * index, buffer.address, buffer.length, flags, next.unwrap_or(0));
    }

    /// Writes a descriptor.
    pub fn descriptor(&self, at: u64, address: u64, length: u32, flags: u16, next: u16) {
        let high = u64::from(length) | u64::from(flags) << 32 | u64::from(next) << 48;
        self.put(at, u128::from(address) | u128::from(high) << 64);
    }

    /// Makes a chain available; `false`: there are no descriptors for it.
    pub fn add(&mut self, cookie: u64, buffers: &[Buffer]) -> bool {
        let wanted = if self.tables.is_some() { 1 } else { buffers.len() };
        if self.free.len() < wanted {
            return false;
        }
        let chain = self.free.split_off(self.free.len() - wanted);
        let head = chain[0];
        if let Some(tables) = self.tables {
            let table = tables + u64::from(head) * TABLE * 16;
            for (index, buffer) in (0..).zip(buffers) {
                let next = (index + 1 < buffers.len() as u16).then_some(index + 1);
                self.describe(table, index.into(), *buffer, next);
            }
            let at = self.descriptors + 16 * u64::from(head);
            self.descriptor(at, table, 16 * buffers.len() as u32, 4, 0);
        } else {
            for (index, buffer) in buffers.iter().enumerate() {
                self.describe(self.descriptors, chain[index].into(), *buffer, chain.get(index + 1).copied());
            }
        }
        self.out[usize::from(head)] = Some((cookie, chain));
        self.offer(head);
        true
    }

    /// Makes a head available, whatever it is the head of.
    pub fn offer(&mut self, head: u16) {
        let slot = self.next & (self.size - 1);
        self.put(self.available + 4 + 2 * u64::from(slot), head);
        self.next = self.next.wrapping_add(1);
        self.store(self.available + 2, self.next);
    }

    /// Writes the index of the available ring, whatever is there.
    pub fn set_index(&mut self, index: u16) {
        self.store(self.available + 2, index);
    }

    /// Notifies the device of what was made available, where it wants that.
    pub fn notify(&mut self) {
        fence(Ordering::SeqCst);
        let before = std::mem::replace(&mut self.kicked, self.next);
        let wanted = if self.event_index {
            let event = self.load(self.used + 4 + 8 * u64::from(self.size));
            self.next.wrapping_sub(event).wrapping_sub(1) < self.next.wrapping_sub(before)
        } else {
            self.load(self.used) & 1 == 0
        };
        if wanted && before != self.next {
            self.kick.write(1).expect("an eventfd takes one more");
        }
    }

    /// How many chains have come back that were not asked for yet.
    pub fn waiting(&self) -> u16 {
        self.load(self.used + 2).wrapping_sub(self.seen)
    }

    /// The next chain that came back.
    ///
    /// # Errors
    /// Where the device gave back what it did not have.
    pub fn given(&mut self) -> io::Result<Option<Given>> {
        if self.waiting() == 0 {
            return Ok(None);
        }
        let at = self.used + 4 + 8 * u64::from(self.seen & (self.size - 1));
        let element: u64 = self.memory.read_obj(GuestAddress(at)).map_err(io::Error::other)?;
        let (head, length) = (element as u32, (element >> 32) as u32);
        let chain = self.out.get_mut(head as usize).and_then(Option::take);
        let (cookie, descriptors) = chain
            .ok_or_else(|| io::Error::other(format!("head {head} came back that the device did not have")))?;
        self.free.extend(descriptors);
        self.seen = self.seen.wrapping_add(1);
        Ok(Some(Given { cookie, length }))
    }

    /// Asks for a notification of the next chain that comes back; whether there is one already.
    pub fn listen(&mut self) -> bool {
        if self.event_index {
            self.store(self.available + 4 + 2 * u64::from(self.size), self.seen);
        } else {
            self.store(self.available, 0);
        }
        fence(Ordering::SeqCst);
        self.waiting() > 0
    }

    /// Asks for no notifications.
    pub fn hush(&self) {
        if !self.event_index {
            self.store(self.available, 1);
        }
    }
}
