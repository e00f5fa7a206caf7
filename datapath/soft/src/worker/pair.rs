//! [`Pair`]: a receive queue and a transmit queue on one thread, and the TAP's queue that both have.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::line::Line;
use super::memory::Memory;
use super::receive::Receive;
use super::ring::Broken;
use super::scratch::Scratch;
use super::transmit::Transmit;
use crate::counters::Counter;

/// What woke a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// The driver made buffers available.
    Receive,
    /// The driver sends.
    Transmit,
    /// The TAP has packets.
    Tap,
}

impl Wake {
    pub(super) const ALL: [Self; 3] = [Self::Receive, Self::Transmit, Self::Tap];
}

/// A queue pair, of which either may be missing.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) function: u64,
    pub(super) receive: Option<Receive>,
    pub(super) transmit: Option<Transmit>,
    pub(super) tap: Option<Arc<OwnedFd>>,
    pub(super) memory: Arc<Memory>,
}

/// A queue that was stopped: its number, and why.
pub(super) type Stopped = (u16, String);

impl Pair {
    /// What it is woken by.
    pub(super) fn sources(&self) -> impl Iterator<Item = (Wake, RawFd)> {
        let fd = |fd: &Arc<OwnedFd>| fd.as_raw_fd();
        // A queue that was stopped is still watched, until the pair is let go.
        let receive = self.receive.as_ref().map(|queue| (Wake::Receive, fd(&queue.line.kick)));
        let transmit = self.transmit.as_ref().map(|queue| (Wake::Transmit, fd(&queue.line.kick)));
        let tap = self.tap.as_ref().filter(|_| self.receive.is_some()).map(|tap| (Wake::Tap, fd(tap)));
        receive.into_iter().chain(transmit).chain(tap)
    }

    /// Notes what woke it.
    pub(super) fn wake(&mut self, wake: Wake) {
        match (wake, &mut self.receive, &self.transmit) {
            (Wake::Tap, Some(queue), _) => queue.readable = true,
            (Wake::Receive, Some(queue), _) => queue.line.tally().count(Counter::Kicks, 1),
            (Wake::Transmit, _, Some(queue)) => queue.line.tally().count(Counter::Kicks, 1),
            _ => {}
        }
    }

    /// A turn of both queues, whether there is more to do, and which were stopped in it.
    pub(super) fn run(&mut self, scratch: &mut Scratch) -> (bool, Vec<Stopped>) {
        let (mut more, mut stopped) = (false, Vec::new());
        if let Some(queue) = self.transmit.as_mut().filter(|queue| !queue.line.is_stopped()) {
            let turn = AssertUnwindSafe(|| queue.run(scratch));
            more |= settle(&self.memory, &catch_unwind(turn), &mut queue.line, &mut stopped);
        }
        if let Some(queue) = self.receive.as_mut().filter(|queue| !queue.line.is_stopped()) {
            let turn = AssertUnwindSafe(|| queue.run(scratch));
            more |= settle(&self.memory, &catch_unwind(turn), &mut queue.line, &mut stopped);
        }
        (more, stopped)
    }
}

/// What a turn came to. A queue with which something is wrong is stopped, and no other.
fn settle(
    memory: &Memory,
    turn: &std::thread::Result<Result<bool, Broken>>,
    line: &mut Line,
    stopped: &mut Vec<Stopped>,
) -> bool {
    let reason = match turn {
        _ if memory.is_spoilt() => "the guest's memory was cut short".to_owned(),
        Ok(Ok(more)) => return *more,
        Ok(Err(broken)) => broken.to_string(),
        Err(_) => "a fault of the worker's own".to_owned(),
    };
    line.stop();
    stopped.push((line.index, reason));
    false
}
