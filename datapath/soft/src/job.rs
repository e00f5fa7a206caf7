//! What a worker is told and what it answers, over the socket of sequenced packets between it and its supervisor.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::sys::socket::MsgFlags;
use serde::{Deserialize, Serialize};

use crate::fds::{self, MAX_FDS};

/// The longest message, in bytes: a function with all queues needs a fifth of it.
const LONGEST: usize = 128 << 10;

/// What a queue is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mode {
    /// Move packets.
    Run,
    /// Give back what the driver sends, and send it nowhere: a transmit queue that is started and not enabled.
    Discard,
    /// Only settle what a worker before left undone, so that the index to go on from is known: what stops, and what waits for
    /// a TAP.
    Settle,
}

/// A region of the guest's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Region {
    /// Its guest physical address.
    pub(crate) guest: u64,
    /// In bytes.
    pub(crate) size: u64,
    /// Where in the file it begins.
    pub(crate) offset: u64,
    /// Which descriptor is the file.
    pub(crate) fd: usize,
}

/// A queue whose ring is set up. Addresses are the guest's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queue {
    /// Even: the driver receives.
    pub(crate) index: u16,
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    /// Which descriptor the driver notifies by.
    pub(crate) kick: usize,
    /// Which descriptor notifies the driver.
    pub(crate) call: Option<usize>,
    /// Which descriptor tells the front end of a broken ring.
    pub(crate) err: Option<usize>,
    pub(crate) mode: Mode,
    /// Which start of the ring this is; no two have the same number.
    pub(crate) start: u64,
    /// The index of the available ring up to which chains were taken before this start: those that were not given back by then
    /// are not sent again.
    pub(crate) base: u16,
    /// Whether the record of progress tells that better: it is of a process before this one.
    pub(crate) resume: bool,
}

/// All that a worker needs to know of a function; descriptors are told by their index in those that come along.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    /// The features that the driver accepted, as bits.
    pub(crate) features: u64,
    /// In bytes.
    pub(crate) mtu: u16,
    pub(crate) regions: Vec<Region>,
    pub(crate) queues: Vec<Queue>,
    /// Which descriptor is the TAP's queue of each pair that is active.
    pub(crate) taps: BTreeMap<u16, usize>,
    /// Queues that the memfds below have records of.
    pub(crate) records: usize,
    /// Which descriptor is the memfd of the rings' progress.
    pub(crate) progress: usize,
    /// Which descriptor is the memfd of the counters.
    pub(crate) counters: usize,
}

/// A description with its descriptors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Job {
    pub(crate) description: Description,
    pub(crate) fds: Vec<Arc<OwnedFd>>,
}

impl Job {
    /// Takes a descriptor along; its index.
    pub(crate) fn fd(&mut self, fd: &Arc<OwnedFd>) -> usize {
        self.fds.push(Arc::clone(fd));
        self.fds.len() - 1
    }

    /// Whether a worker that has `other` would be told anything new by this.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let fds = self.fds.iter().zip(&other.fds).all(|(one, other)| Arc::ptr_eq(one, other));
        self.description == other.description && self.fds.len() == other.fds.len() && fds
    }
}

/// From the supervisor to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Descriptors of the order that follows: more than one message may have.
    Fds,
    /// Have the function so from now on, in place of how it was.
    Run { function: u64, sequence: u64, description: Description },
    /// Let go of the function.
    Stop { function: u64, sequence: u64 },
    /// Bring all queues to rest and end.
    Quit,
}

/// From a worker to its supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// It takes orders.
    Ready,
    /// The order with this number is carried out. For each queue the index of the available ring to go on from, or why nothing
    /// of the function can run.
    Done { function: u64, sequence: u64, result: Result<Vec<(u16, u16)>, String> },
    /// A queue was stopped, and why.
    Stopped { function: u64, queue: u16, reason: String },
}

/// A message as packets with their descriptors: more of those than have room in one come before it.
pub(crate) fn packets(
    message: &impl Serialize,
    fds: &[Arc<OwnedFd>],
) -> io::Result<Vec<(Vec<u8>, Vec<RawFd>)>> {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let mut chunks = fds.chunks(MAX_FDS);
    let last = chunks.next_back().unwrap_or_default().to_vec();
    let before = serde_json::to_vec(&Order::Fds)?;
    let mut packets: Vec<_> = chunks.map(|chunk| (before.clone(), chunk.to_vec())).collect();
    packets.push((serde_json::to_vec(message)?, last));
    Ok(packets)
}

/// Sends a message, waiting for room where there is none.
pub(crate) fn send(socket: BorrowedFd<'_>, message: &impl Serialize, fds: &[Arc<OwnedFd>]) -> io::Result<()> {
    for (bytes, fds) in packets(message, fds)? {
        fds::send(socket, &bytes, &fds, MsgFlags::empty())?;
    }
    Ok(())
}

/// Receives a message; `None`: the other side is gone.
pub(crate) fn receive<T: for<'de> Deserialize<'de>>(
    socket: BorrowedFd<'_>,
    fds: &mut Vec<OwnedFd>,
) -> io::Result<Option<T>> {
    let mut bytes = vec![0; LONGEST];
    let length = match fds::receive(socket, &mut bytes, fds, MsgFlags::empty()) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
        other => other?,
    };
    if length == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&bytes[..length])?))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn more_descriptors_than_a_message_holds_arrive_in_order() {
        let (one, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let file = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let mut job = Job::default();
        for _ in 0..600 {
            job.fd(&file);
        }
        let order = Order::Run { function: 1, sequence: 2, description: job.description.clone() };
        send(one.as_fd(), &order, &job.fds).unwrap();
        let (mut fds, mut messages) = (Vec::new(), Vec::new());
        while fds.len() < 600 {
            messages.push(receive::<Order>(other.as_fd(), &mut fds).unwrap().unwrap());
        }
        assert!(
            matches!(messages[..], [Order::Fds, Order::Fds, Order::Run { function: 1, .. }]),
            "{messages:?}"
        );
        drop(one);
        assert!(receive::<Order>(other.as_fd(), &mut fds).unwrap().is_none());
    }
}
