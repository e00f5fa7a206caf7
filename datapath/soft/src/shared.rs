//! [`Shared`]: records of 64-bit numbers in a memfd that two processes map: counters, and how far each ring has got.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{FileOffset, MmapRegion};

use crate::worker::Watched;

/// The numbers in a record: two cache lines of 128 bytes, so that queues of different threads share none.
pub(crate) const RECORD: usize = 32;

/// As many records as there are queues. Every number has one writer.
#[derive(Debug)]
pub(crate) struct Shared {
    fd: OwnedFd,
    /// It ends before the mapping does.
    watched: Option<Watched>,
    mapping: MmapRegion,
    records: usize,
}

impl Shared {
    /// Bytes of this many records.
    pub(crate) fn size(records: usize) -> usize {
        records * RECORD * size_of::<u64>()
    }

    /// A memfd of so many records, all zero.
    pub(crate) fn create(name: &str, records: usize) -> io::Result<Self> {
        let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        File::from(fd.try_clone()?).set_len(Self::size(records) as u64)?;
        Self::open(fd, records)
    }

    /// One that another process made.
    ///
    /// # Errors
    /// Where it is shorter than that, or can't be mapped.
    pub(crate) fn open(fd: OwnedFd, records: usize) -> io::Result<Self> {
        let size = Self::size(records);
        let file = File::from(fd.try_clone()?);
        if file.metadata()?.len() < size as u64 {
            return Err(io::Error::other(format!(
                "a memfd for {records} queues is shorter than {size} bytes"
            )));
        }
        let mapping = MmapRegion::from_file(FileOffset::new(file, 0), size).map_err(io::Error::other)?;
        Ok(Self { fd, watched: None, mapping, records })
    }

    /// One whose memfd somebody may cut short who is not to be trusted: what is gone then reads as zeros.
    ///
    /// # Errors
    /// As `open`.
    pub(crate) fn open_watched(fd: OwnedFd, records: usize) -> io::Result<Self> {
        let mut shared = Self::open(fd, records)?;
        shared.watched = Some(Watched::new(shared.mapping.as_ptr() as usize, shared.mapping.size())?);
        Ok(shared)
    }

    /// Its memfd.
    pub(crate) fn fd(&self) -> io::Result<OwnedFd> {
        self.fd.as_fd().try_clone_to_owned()
    }

    /// The record of a queue.
    ///
    /// # Panics
    /// Where there is none.
    pub(crate) fn record(&self, index: usize) -> &[AtomicU64; RECORD] {
        assert!(index < self.records, "queue {index} has no record");
        let at = self.mapping.as_ptr().wrapping_add(Self::size(index)).cast();
        // SAFETY: `open` made sure that the mapping has all records, it is aligned to a page and it lives as long as `self`.
        // Whoever else writes there does so to plain numbers, which atomics may be.
        unsafe { &*at }
    }
}

/// Adds to a number that nobody else writes: no locked instruction is needed.
#[inline]
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let one = Shared::create("records", 3).unwrap();
        let other = Shared::open(one.fd().unwrap(), 3).unwrap();
        add(&one.record(2)[RECORD - 1], 5);
        add(&one.record(2)[RECORD - 1], 2);
        assert_eq!(other.record(2)[RECORD - 1].load(Ordering::Relaxed), 7);
        assert_eq!(other.record(1)[RECORD - 1].load(Ordering::Relaxed), 0);
        assert!(Shared::open(one.fd().unwrap(), 4).is_err(), "it has no fourth");
    }
}
