//! What a front end has said of a queue.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::message::Wrong;

/// A queue, as far as it is set up. Addresses are those of the front end's process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vring {
    pub(crate) size: Option<u16>,
    pub(crate) addresses: Option<Addresses>,
    /// The index of the available ring to begin at.
    pub(crate) base: u16,
    /// The ring is started once this is there.
    pub(crate) kick: Option<Arc<OwnedFd>>,
    pub(crate) call: Option<Arc<OwnedFd>>,
    pub(crate) err: Option<Arc<OwnedFd>>,
    /// Which start of which ring of the process's it is.
    pub(crate) start: u64,
    /// The record of progress is of a process before this one.
    pub(crate) resume: bool,
    /// What SET_VRING_ENABLE said, if anything.
    pub(crate) enabled: Option<bool>,
}

/// Where a ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) descriptors: u64,
    pub(crate) used: u64,
    pub(crate) available: u64,
}

impl Vring {
    /// As after a reset of the device: the ring is stopped. How to notify whom stays: QEMU says that once.
    pub(crate) fn reset(&mut self) {
        let (call, err) = (self.call.take(), self.err.take());
        *self = Self { call, err, enabled: self.enabled, ..Self::default() };
    }
}

/// A descriptor to notify by. Nothing else than an eventfd is: of another kind the worker might wait for whoever made it. One
/// that would block when it is full is made one that does not.
pub(crate) fn eventfd(fd: OwnedFd) -> Result<Arc<OwnedFd>, Wrong> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let failed = |error: &dyn std::fmt::Display| Wrong::Value(format!("looking at an eventfd: {error}"));
    let link = link.map_err(|error| failed(&error))?;
    if link != Path::new("anon_inode:[eventfd]") {
        return Err(Wrong::Value(format!("{} is no eventfd", link.display())));
    }
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).map_err(|error| failed(&error))?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(|error| failed(&error))?;
    }
    Ok(Arc::new(fd))
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::{EfdFlags, EventFd};

    use super::*;

    #[test]
    fn only_an_eventfd_is_one_and_it_never_blocks() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(eventfd(file.into()).unwrap_err().to_string().contains("/dev/null is no eventfd"));
        let event = EventFd::from_value_and_flags(3, EfdFlags::EFD_CLOEXEC).unwrap();
        let fd = eventfd(event.into()).unwrap();
        let flags = OFlag::from_bits_retain(fcntl(&*fd, FcntlArg::F_GETFL).unwrap());
        assert!(flags.contains(OFlag::O_NONBLOCK));
    }
}
