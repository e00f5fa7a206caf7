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
        let wrong = |what: &'static str| Wrong::Value(format!("{name} {what}"));
        if self.0.len() >= MAX_REGIONS {
            return Err(wrong("are one region too many"));
        }
        let end = guest.checked_add(size).filter(|_| size > 0 && user.checked_add(size).is_some());
        let end = end.ok_or_else(|| wrong("are none"))?;
        if self.0.iter().any(|other| other.guest < end && guest < other.guest + other.size) {
            return Err(wrong("overlap others"));
        }
        check(&file, offset, size).map_err(wrong)?;
        self.0.push(Region { guest, size, user, offset, file: Arc::new(file) });
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

/// Whether a file has so many bytes from an offset on, each there at once: of another file system's a page might be waited for,
/// whoever has it.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn check(file: &OwnedFd, offset: u64, size: u64) -> Result<(), &'static str> {
    const NONE: &str = "are in no file";
    let kind = fstatfs(file.as_fd()).map_err(|_| NONE)?;
    let about = File::from(file.try_clone().map_err(|_| NONE)?).metadata().map_err(|_| NONE)?;
    if !about.is_file() || ![TMPFS_MAGIC, HUGETLBFS_MAGIC].contains(&kind.filesystem_type()) {
        return Err("are neither a memfd nor huge pages: use memory-backend-memfd,share=on");
    }
    if offset.checked_add(size).is_none_or(|end| end > about.len()) {
        return Err("end beyond their file");
    }
    Ok(())
}
