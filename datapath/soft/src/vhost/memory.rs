//! The guest's memory as a front end shares it: which address of its process is which of the guest's.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::sys::statfs::{HUGETLBFS_MAGIC, TMPFS_MAGIC, fstatfs};

use super::message::{MAX_REGIONS, Payload, Wrong};

/// A region.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    pub(crate) guest: u64,
    pub(crate) size: u64,
    /// Its address in the front end's process.
    user: u64,
    pub(crate) offset: u64,
    pub(crate) file: Arc<OwnedFd>,
}

/// All regions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(Vec<Region>);

impl Table {
    /// The table of a SET_MEM_TABLE.
    pub(crate) fn parse(payload: &mut Payload<'_>, fds: Vec<OwnedFd>) -> Result<Self, Wrong> {
        let count = payload.u32()? as usize;
        payload.u32()?;
        if fds.len() != count {
            return Err(Wrong::Fds { is: fds.len(), wanted: count });
        }
        let mut table = Self::default();
        for fd in fds {
            table.add(payload, fd)?;
        }
        Ok(table)
    }

    /// Adds a region.
    pub(crate) fn add(&mut self, payload: &mut Payload<'_>, file: OwnedFd) -> Result<(), Wrong> {
        let (guest, size, user, offset) = (payload.u64()?, payload.u64()?, payload.u64()?, payload.u64()?);
        let name = format!("{size} bytes of memory at {guest:#x}");
        let wrong = |what: &str| Wrong::Value(format!("{name} {what}"));
        if self.0.len() >= MAX_REGIONS {
            return Err(wrong(&format!("are region {}: there can be {MAX_REGIONS}", MAX_REGIONS + 1)));
        }
        let end = guest.checked_add(size).filter(|_| size > 0 && user.checked_add(size).is_some());
        let end = end.ok_or_else(|| wrong("are none"))?;
        if self.0.iter().any(|other| other.guest < end && guest < other.guest + other.size) {
            return Err(wrong("overlap others"));
        }
        let kind = fstatfs(file.as_fd()).map_err(|error| wrong(&format!("are in no file: {error}")))?;
        let file = File::from(file);
        let about = file.metadata().map_err(|error| wrong(&format!("are in no file: {error}")))?;
        // A page of memory that is there at once: another file's might be waited for, whoever has it.
        if !about.is_file() || ![TMPFS_MAGIC, HUGETLBFS_MAGIC].contains(&kind.filesystem_type()) {
            return Err(wrong("are neither a memfd nor huge pages: use memory-backend-memfd,share=on"));
        }
        if offset.checked_add(size).is_none_or(|end| end > about.len()) {
            return Err(wrong("end beyond their file"));
        }
        self.0.push(Region { guest, size, user, offset, file: Arc::new(file.into()) });
        Ok(())
    }

    /// Removes the region of a REM_MEM_REG.
    pub(crate) fn remove(&mut self, payload: &mut Payload<'_>) -> Result<(), Wrong> {
        let (guest, size, user) = (payload.u64()?, payload.u64()?, payload.u64()?);
        let is_it = |region: &Region| (region.guest, region.size, region.user) == (guest, size, user);
        let at = self.0.iter().position(is_it);
        let at =
            at.ok_or_else(|| Wrong::Value(format!("{size} bytes of memory at {guest:#x} are not there")))?;
        self.0.remove(at);
        Ok(())
    }

    pub(crate) fn regions(&self) -> &[Region] {
        &self.0
    }

    /// The guest's address of one of the front end's.
    pub(crate) fn guest(&self, user: u64) -> Option<u64> {
        self.0.iter().find_map(|region| {
            let offset = user.checked_sub(region.user).filter(|offset| *offset < region.size)?;
            Some(region.guest + offset)
        })
    }
}
