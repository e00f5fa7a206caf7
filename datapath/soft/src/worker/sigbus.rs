//! What becomes of a worker when a front end cuts the file of its guest's memory short: the next touch of what is gone is
//! SIGBUS. [`Watched`] puts an empty page there instead, and notes it, so that no other function is harmed.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Mappings that a worker can have.
const MAPPINGS: usize = 1 << 14;

/// A mapping that is watched. The handler reads these without a lock, which it may not take.
struct Slot {
    /// Its first address; 0: the slot is free.
    start: AtomicUsize,
    end: AtomicUsize,
    spoilt: AtomicBool,
}

static SLOTS: [Slot; MAPPINGS] =
    [const { Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), spoilt: AtomicBool::new(false) } };
        MAPPINGS];
/// Who takes and frees slots.
static TAKING: Mutex<()> = Mutex::new(());

/// A mapping in which a fault does not end the process, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Watched(usize);

impl Watched {
    /// Watches a mapping.
    ///
    /// # Errors
    /// Where there are too many.
    pub(crate) fn new(start: usize, size: usize) -> io::Result<Self> {
        let _taking = TAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let free = SLOTS.iter().position(|slot| slot.start.load(Ordering::Relaxed) == 0);
        let index =
            free.ok_or_else(|| io::Error::other("a worker has no room for more regions of memory"))?;
        SLOTS[index].spoilt.store(false, Ordering::Relaxed);
        SLOTS[index].end.store(start + size, Ordering::Relaxed);
        SLOTS[index].start.store(start, Ordering::Release);
        Ok(Self(index))
    }

    /// Whether something of it was gone when it was touched.
    pub(super) fn is_spoilt(&self) -> bool {
        SLOTS[self.0].spoilt.load(Ordering::Relaxed)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        SLOTS[self.0].start.store(0, Ordering::Release);
    }
}

/// Has SIGBUS in watched mappings handled so, once and for all.
pub(super) fn install() -> io::Result<()> {
    let action = SigAction::new(SigHandler::SigAction(on_fault), SaFlags::SA_SIGINFO, SigSet::empty());
    // SAFETY: the handler only reads atomics and makes system calls.
    unsafe { sigaction(Signal::SIGBUS, &action) }?;
    Ok(())
}

extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives the handler a siginfo_t, which for SIGBUS has the address.
    let address = unsafe { (*info).si_addr() } as usize;
    let slot = SLOTS.iter().find(|slot| {
        let start = slot.start.load(Ordering::Acquire);
        start != 0 && start <= address && address < slot.end.load(Ordering::Relaxed)
    });
    if let Some(slot) = slot {
        // SAFETY: sysconf and mmap have no effect beyond this page, which is in a mapping that is this process's and stays
        // mapped: what is there is replaced by zeros of this process alone.
        let mapped = unsafe {
            let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(4096);
            let at = (address & !(page - 1)) as *mut libc::c_void;
            let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(at, page, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if mapped != libc::MAP_FAILED {
            slot.spoilt.store(true, Ordering::Relaxed);
            return;
        }
    }
    // No fault of a guest's: as without a handler, at the second try.
    // SAFETY: signal is one of the calls that a handler may make.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use crate::job::Region;
    use crate::worker::memory::Memory;

    #[test]
    fn memory_that_is_cut_short_is_noted_and_harms_nothing() {
        super::install().unwrap();
        let fds = [memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap()];
        let file = File::from(fds[0].try_clone().unwrap());
        file.set_len(0x8000).unwrap();
        let memory = Memory::map(&[Region { guest: 0, size: 0x8000, offset: 0, fd: 0 }], &fds).unwrap();
        let at = memory.piece(0x7000, 8).unwrap();
        // SAFETY: it is inside of mapped memory that nobody else has.
        unsafe { at.write_volatile(1) };
        assert!(!memory.is_spoilt());
        file.set_len(0x1000).unwrap();
        // SAFETY: as above; it is not there any more, which is what is tried.
        assert_eq!(unsafe { at.read_volatile() }, 0);
        assert!(memory.is_spoilt());
    }
}
