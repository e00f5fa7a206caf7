//! [`Scratch`]: what a thread needs for one packet at a time, and a TAP's reading and writing.
//!
//! The C library's `read` and `write` are points at which a thread can be cancelled, which costs a twentieth of a short packet's
//! time. No thread is cancelled here, so the kernel is called as it is.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use super::chain::Piece;
use crate::counters::Counter;

/// The longest frame with its header, in bytes: a segment of 64 KiB with an Ethernet header, a VLAN tag and 12 bytes.
pub(super) const LONGEST: usize = 65_535 + 18 + 12;

/// Room for a batch of what is sent, and for one packet that is received.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) pieces: Vec<Piece>,
    /// The chains that the pieces are of.
    pub(super) chains: Vec<Chain>,
    vector: Vec<libc::iovec>,
    /// Where the end of a packet goes for which the driver's buffers at hand are too few. One more than the longest, so that
    /// one that is too long is known from one that is as long.
    pub(super) bounce: Box<[u8]>,
}

/// A chain that is taken and not yet sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    pub(super) head: u16,
    /// Where its pieces end, and those of the next begin.
    pub(super) end: usize,
    /// What it holds; or what to count where it can't be sent.
    pub(super) packet: Result<Outgoing, Counter>,
}

/// A packet to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing {
    /// With its header.
    pub(super) bytes: usize,
    /// The first fields of the header.
    pub(super) flags: u8,
    pub(super) gso_type: u8,
}

// SAFETY: what is in the vector is used while a packet is worked on, and only then.
unsafe impl Send for Scratch {}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            pieces: Vec::new(),
            chains: Vec::new(),
            vector: Vec::new(),
            bounce: vec![0; LONGEST + 1].into_boxed_slice(),
        }
    }

    /// Writes a packet to a TAP: some of the pieces.
    #[inline]
    pub(super) fn send(&mut self, tap: &OwnedFd, pieces: Range<usize>) -> io::Result<()> {
        let (tap, pieces) = (tap.as_raw_fd(), &self.pieces[pieces]);
        let sent = if let [piece] = pieces {
            // One buffer costs the kernel less than a vector of one.
            // SAFETY: the piece is mapped memory; the kernel reads it, whatever the guest does there.
            unsafe { libc::syscall(libc::SYS_write, tap, piece.at.as_ptr(), piece.length) }
        } else {
            self.vector.clear();
            self.vector.extend(pieces.iter().map(entry));
            // SAFETY: each entry is mapped memory, as above, and there are at most MAX_PIECES.
            unsafe { libc::syscall(libc::SYS_writev, tap, self.vector.as_ptr(), self.vector.len()) }
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads a packet from a TAP into pieces, and what does not fit, if wanted, into the bounce buffer; its bytes.
    #[inline]
    pub(super) fn receive(&mut self, tap: &OwnedFd, pieces: &[Piece], bounce: bool) -> io::Result<usize> {
        let tap = tap.as_raw_fd();
        let read = if let ([piece], false) = (pieces, bounce) {
            // SAFETY: the piece is mapped memory of the guest's, which the kernel writes.
            unsafe { libc::syscall(libc::SYS_read, tap, piece.at.as_ptr(), piece.length) }
        } else {
            self.vector.clear();
            self.vector.extend(pieces.iter().map(entry));
            if bounce {
                let rest = &mut self.bounce;
                self.vector.push(libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() });
            }
            // SAFETY: each entry is mapped memory of the guest's or this thread's buffer; they are at most MAX_PIECES + 1.
            unsafe { libc::syscall(libc::SYS_readv, tap, self.vector.as_ptr(), self.vector.len()) }
        };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }
}

fn entry(piece: &Piece) -> libc::iovec {
    libc::iovec { iov_base: piece.at.as_ptr().cast(), iov_len: piece.length }
}
