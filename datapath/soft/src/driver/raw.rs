//! [`RawTap`]: a TAP that is read and written as it is, which is the least that moving packets can cost.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::offer::Accepted;
use crate::tap::Tap;

/// A TAP set up as a function's is, with one queue.
#[derive(Debug)]
pub struct RawTap {
    queue: Arc<OwnedFd>,
    _tap: Tap,
}

impl RawTap {
    /// Makes one in the calling thread's network namespace, down, for a driver with these features.
    ///
    /// # Errors
    /// Where the kernel does not permit it.
    pub fn create(name: &str, features: u64) -> io::Result<Self> {
        let tap = Tap::create(&name.parse().map_err(io::Error::other)?, 1)?;
        tap.attach(Accepted(features), |_| true)?;
        let queue = tap.queue(0).ok_or_else(|| io::Error::other("a TAP without a queue"))?;
        Ok(Self { queue, _tap: tap })
    }

    /// Writes a packet with its header.
    ///
    /// # Errors
    /// Where the netdev is down.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        nix::unistd::write(&self.queue, packet)?;
        Ok(())
    }

    /// Reads a packet with its header, waiting for one; its bytes.
    ///
    /// # Errors
    /// Where the netdev is down.
    pub fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        loop {
            match nix::unistd::read(&self.queue, packet) {
                Err(nix::errno::Errno::EAGAIN) => {
                    poll(&mut [PollFd::new(self.queue.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
                }
                other => return Ok(other?),
            }
        }
    }
}
