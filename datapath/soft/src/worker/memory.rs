//! [`Memory`]: a guest's memory as the front end shares it, and the one place where its addresses become pointers.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use nix::unistd::{SysconfVar, sysconf};
use vm_memory::{FileOffset, MmapRegion};

use super::sigbus;
use crate::job;

/// The regions of a guest's memory, mapped. No two of them overlap.
#[derive(Debug)]
pub(crate) struct Memory {
    regions: Vec<Region>,
}

#[derive(Debug)]
struct Region {
    guest: u64,
    size: u64,
    /// Where the first byte of it is mapped.
    host: NonNull<u8>,
    /// What a fault of the mapping is noted by; it ends before the mapping does.
    _watched: sigbus::Watched,
    _mapping: MmapRegion,
}

// SAFETY: the pointers are into mappings that this value has and nothing else changes; that guest and workers write there at
// the same time is what they are for, and is done by volatile, atomic and system calls' accesses alone.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps the regions.
    ///
    /// # Errors
    /// Where one is empty, ends beyond its file or the address space, overlaps another, or can't be mapped.
    pub(crate) fn map(regions: &[job::Region], fds: &[OwnedFd]) -> io::Result<Self> {
        let mut mapped = Vec::with_capacity(regions.len());
        for region in regions {
            let fd = fds.get(region.fd).ok_or_else(|| io::Error::other("a region of memory has no file"))?;
            mapped.push(Region::map(region, fd).map_err(|error| {
                let (guest, size) = (region.guest, region.size);
                io::Error::other(format!("mapping {size} bytes of the guest's memory at {guest:#x}: {error}"))
            })?);
        }
        mapped.sort_by_key(|region| region.guest);
        if mapped.windows(2).any(|pair| pair[0].guest + pair[0].size > pair[1].guest) {
            return Err(io::Error::other("regions of the guest's memory overlap"));
        }
        Ok(Self { regions: mapped })
    }

    /// The memory at an address, and how much of it from there lies in one piece. `None`: there is none.
    #[inline]
    pub(crate) fn at(&self, address: u64) -> Option<(NonNull<u8>, u64)> {
        // A guest has a handful of regions, and most of what is asked is in one of them.
        self.regions.iter().find_map(|region| {
            let offset = address.wrapping_sub(region.guest);
            // SAFETY: the offset is inside of the region, which is mapped as a whole.
            (offset < region.size)
                .then(|| (unsafe { region.host.add(offset as usize) }, region.size - offset))
        })
    }

    /// So much memory at an address. `None`: there isn't so much in one piece.
    #[inline]
    pub(crate) fn piece(&self, address: u64, size: u64) -> Option<NonNull<u8>> {
        self.at(address).filter(|(_, whole)| size <= *whole).map(|(host, _)| host)
    }

    /// Whether some of it has turned out not to be there: a file that was cut short after it was mapped.
    pub(crate) fn is_spoilt(&self) -> bool {
        self.regions.iter().any(|region| region._watched.is_spoilt())
    }
}

impl Region {
    fn map(region: &job::Region, fd: &OwnedFd) -> io::Result<Self> {
        let file = File::from(fd.try_clone()?);
        let beyond = || io::Error::other("it ends beyond its file or the address space");
        let end = region.offset.checked_add(region.size).ok_or_else(beyond)?;
        region.guest.checked_add(region.size).ok_or_else(beyond)?;
        if region.size == 0 || end > file.metadata()?.len() {
            return Err(beyond());
        }
        let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096);
        // A file is mapped from a page's beginning.
        let before = region.offset % page;
        let size = usize::try_from(region.size + before).map_err(io::Error::other)?;
        let mapping = MmapRegion::from_file(FileOffset::new(file, region.offset - before), size)
            .map_err(io::Error::other)?;
        let host = NonNull::new(mapping.as_ptr().wrapping_add(before as usize)).ok_or_else(beyond)?;
        let watched = sigbus::Watched::new(mapping.as_ptr() as usize, size)?;
        Ok(Self { guest: region.guest, size: region.size, host, _watched: watched, _mapping: mapping })
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    fn file(size: u64) -> OwnedFd {
        let fd = memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap();
        File::from(fd.try_clone().unwrap()).set_len(size).unwrap();
        fd
    }

    fn region(guest: u64, size: u64, offset: u64) -> job::Region {
        job::Region { guest, size, offset, fd: 0 }
    }

    #[test]
    fn addresses_are_inside_or_nowhere() {
        let fds = [file(0x4000)];
        let memory = Memory::map(&[region(0x9000, 0x1000, 0x2100), region(0x1000, 0x2000, 0)], &fds).unwrap();
        assert!(memory.piece(0x1000, 0x2000).is_some() && memory.piece(0x1001, 0x2000).is_none());
        assert!(memory.piece(0x9fff, 1).is_some() && memory.piece(0x9fff, 2).is_none());
        for nowhere in [0, 0xfff, 0x3000, 0x8fff, 0xa000, u64::MAX] {
            assert!(memory.at(nowhere).is_none(), "{nowhere:#x}");
        }
        assert!(memory.piece(0x1000, u64::MAX).is_none());
        // The same byte of the file by both regions' ways.
        let (one, _) = memory.at(0x9000).unwrap();
        let whole = Memory::map(&[region(0, 0x4000, 0)], &fds).unwrap();
        // SAFETY: both are inside of mapped memory that nobody else has.
        unsafe {
            one.write_volatile(77);
            assert_eq!(whole.at(0x2100).unwrap().0.read_volatile(), 77);
        }
    }

    #[test]
    fn regions_that_are_none_are_refused() {
        let fds = [file(0x4000)];
        let refused = |regions: &[job::Region]| Memory::map(regions, &fds).unwrap_err().to_string();
        assert!(refused(&[region(0, 0x4001, 0)]).contains("beyond its file"));
        assert!(refused(&[region(0, 0x1000, u64::MAX - 5)]).contains("beyond its file"));
        assert!(refused(&[region(u64::MAX - 5, 0x1000, 0)]).contains("address space"));
        assert!(refused(&[region(0, 0, 0)]).contains("beyond"));
        assert!(refused(&[region(0, 0x2000, 0), region(0x1fff, 0x1000, 0)]).contains("overlap"));
        assert!(refused(&[job::Region { fd: 1, ..region(0, 0x1000, 0) }]).contains("no file"));
    }
}
