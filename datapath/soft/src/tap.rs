//! [`Tap`]: the representor of a function, a TAP with as many queues as the function has pairs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError};

use virtnet_model::IfName;

use crate::offer::Accepted;

nix::ioctl_write_ptr_bad!(tunsetiff, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_ptr_bad!(tunsetqueue, libc::TUNSETQUEUE, libc::ifreq);
nix::ioctl_write_ptr_bad!(tunsetvnethdrsz, libc::TUNSETVNETHDRSZ, libc::c_int);
nix::ioctl_write_int_bad!(tunsetoffload, libc::TUNSETOFFLOAD);

/// The netdev that the switch has as its port. It is there until this is dropped and no worker has it any more, whatever
/// becomes of the function: Open vSwitch stays on a dead device when one is made again under the same name.
///
/// A queue that is idle is detached (TUNSETQUEUE), so that the kernel hands it no packets; those that it still had are gone.
pub struct Tap {
    name: IfName,
    queues: Mutex<Vec<Queue>>,
}

struct Queue {
    fd: Arc<OwnedFd>,
    attached: bool,
}

impl Tap {
    /// Makes a TAP in the calling thread's network namespace, down, with so many queues, all idle.
    ///
    /// # Errors
    /// Where the name is taken, or the kernel does not permit it: /dev/net/tun and CAP_NET_ADMIN are needed.
    pub fn create(name: &IfName, queues: u16) -> io::Result<Self> {
        let tap = Self { name: name.clone(), queues: Mutex::default() };
        tap.grow(queues)?;
        Ok(tap)
    }

    /// Its name.
    pub fn name(&self) -> &IfName {
        &self.name
    }

    /// Gives it at least so many queues. Those beyond the first come to the namespace of the calling thread: the same as at
    /// its making.
    ///
    /// # Errors
    /// Where the kernel does not permit it.
    pub fn grow(&self, queues: u16) -> io::Result<()> {
        let mut all = self.lock();
        while all.len() < usize::from(queues).max(1) {
            let first = all.is_empty();
            let fd = self.open(first)?;
            all.push(Queue { fd: Arc::new(fd.into()), attached: true });
            let last = all.len() - 1;
            self.switch(&mut all[last], false)?;
        }
        Ok(())
    }

    fn open(&self, first: bool) -> io::Result<File> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/net/tun")?;
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
        if first {
            // Else another's TAP of that name would be joined.
            flags |= libc::IFF_TUN_EXCL;
        }
        let request = self.request(flags);
        // SAFETY: the descriptor is that of /dev/net/tun, and the request is whole.
        unsafe { tunsetiff(file.as_raw_fd(), &raw const request) }?;
        Ok(file)
    }

    /// A request with the name and these flags.
    fn request(&self, flags: libc::c_int) -> libc::ifreq {
        // SAFETY: numbers, arrays and pointers of which all bits may be zero.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.as_str().bytes()) {
            *to = from.cast_signed() as libc::c_char;
        }
        // The upper half is no flag of TUNSETIFF: IFF_MULTI_QUEUE and IFF_TUN_EXCL fit into sixteen bits.
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        request
    }

    fn switch(&self, queue: &mut Queue, attach: bool) -> io::Result<()> {
        if queue.attached != attach {
            let request = self.request(if attach { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE });
            // SAFETY: the descriptor is a queue of a TAP, and the request is whole.
            unsafe { tunsetqueue(queue.fd.as_raw_fd(), &raw const request) }?;
            queue.attached = attach;
        }
        Ok(())
    }

    /// Has the queues of these pairs active as well, for a driver with these features. How packets look is the same for all
    /// queues.
    pub(crate) fn attach(&self, accepted: Accepted, pairs: impl Fn(u16) -> bool) -> io::Result<()> {
        let mut all = self.lock();
        for (_, queue) in (0..).zip(all.iter_mut()).filter(|(pair, _)| pairs(*pair)) {
            self.switch(queue, true)?;
        }
        // Both are refused on a queue that is idle.
        let Some(queue) = all.iter().find(|queue| queue.attached) else { return Ok(()) };
        let size = libc::c_int::try_from(accepted.header()).map_err(io::Error::other)?;
        // SAFETY: the descriptor is a queue of a TAP, and the size outlives the call.
        unsafe { tunsetvnethdrsz(queue.fd.as_raw_fd(), &raw const size) }?;
        // SAFETY: the descriptor is a queue of a TAP.
        unsafe { tunsetoffload(queue.fd.as_raw_fd(), accepted.tap_offloads().cast_signed()) }?;
        Ok(())
    }

    /// Has the queues of other pairs than these idle.
    pub(crate) fn detach(&self, but: impl Fn(u16) -> bool) -> io::Result<()> {
        let mut all = self.lock();
        if !(0..).zip(all.iter()).any(|(pair, queue)| queue.attached && but(pair))
            && let Some(queue) = all.iter().find(|queue| queue.attached)
        {
            // The next driver may take no offloads, and packets may come before that is set.
            // SAFETY: the descriptor is a queue of a TAP.
            unsafe { tunsetoffload(queue.fd.as_raw_fd(), 0) }?;
        }
        for (_, queue) in (0..).zip(all.iter_mut()).filter(|(pair, _)| !but(*pair)) {
            self.switch(queue, false)?;
        }
        Ok(())
    }

    /// The queue of a pair.
    pub(crate) fn queue(&self, pair: u16) -> Option<Arc<OwnedFd>> {
        self.lock().get(usize::from(pair)).map(|queue| Arc::clone(&queue.fd))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Queue>> {
        // Whoever panicked was between two calls of it, or before one was noted, which then is asked again.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let queues = self.lock().iter().map(|queue| queue.fd.as_fd().as_raw_fd()).collect::<Vec<_>>();
        f.debug_struct("Tap").field("name", &self.name).field("queues", &queues).finish()
    }
}
