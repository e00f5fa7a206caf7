//! [`Line`]: a queue with what is around its ring: notifications both ways, counters, and the record of its progress.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ring::{Broken, Layout, Ring};
use crate::counters::{Counter, Tally};
use crate::job;
use crate::shared::Shared;

/// Numbers of a queue's record of progress.
const TAKEN: usize = 0;
const START: usize = 1;
const STOPPED: usize = 2;
/// That the index beside it means something.
const VALID: u64 = 1 << 16;

/// A queue that is set up.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) index: u16,
    pub(super) ring: Ring,
    pub(super) kick: Arc<OwnedFd>,
    call: Option<Arc<OwnedFd>>,
    err: Option<Arc<OwnedFd>>,
    counters: Arc<Shared>,
    progress: Arc<Shared>,
    stopped: bool,
}

/// What queues of a function share.
#[derive(Debug)]
pub(super) struct Around<'a> {
    pub(super) memory: &'a Arc<super::memory::Memory>,
    pub(super) fds: &'a [Arc<OwnedFd>],
    pub(super) counters: &'a Arc<Shared>,
    pub(super) progress: &'a Arc<Shared>,
    pub(super) event_index: bool,
}

impl Line {
    /// Sets a queue up and settles what was left undone.
    ///
    /// # Errors
    /// Where its ring can't be used.
    pub(super) fn open(queue: &job::Queue, around: &Around<'_>) -> Result<Self, String> {
        let layout = Layout {
            size: queue.size,
            descriptors: queue.descriptors,
            available: queue.available,
            used: queue.used,
            event_index: around.event_index,
        };
        let fd = |index: usize| around.fds.get(index).map(Arc::clone);
        let mut line = Self {
            index: queue.index,
            ring: Ring::open(around.memory, layout)?,
            kick: fd(queue.kick).ok_or("a queue without its eventfd")?,
            call: queue.call.and_then(fd),
            err: queue.err.and_then(fd),
            counters: Arc::clone(around.counters),
            progress: Arc::clone(around.progress),
            stopped: false,
        };
        line.begin(queue);
        if line.record()[STOPPED].load(Ordering::Relaxed) != 0 {
            line.stopped = true;
        } else if line.settle().is_err() {
            line.stop();
        }
        Ok(line)
    }

    fn record(&self) -> &[AtomicU64; crate::shared::RECORD] {
        self.progress.record(usize::from(self.index))
    }

    /// At a new start of the ring its record is made anew. The number of the start is written last: whoever is killed in
    /// between begins again.
    fn begin(&self, queue: &job::Queue) {
        let record = self.record();
        if record[START].load(Ordering::Relaxed) == queue.start {
            return;
        }
        if !queue.resume {
            record[TAKEN].store(u64::from(queue.base) | VALID, Ordering::Relaxed);
        }
        record[STOPPED].store(0, Ordering::Relaxed);
        record[START].store(queue.start, Ordering::Release);
    }

    /// Gives back what a worker before had taken from the driver and perhaps sent. What the driver sends goes out at most once.
    fn settle(&mut self) -> Result<(), Broken> {
        let taken = self.record()[TAKEN].load(Ordering::Relaxed);
        let undone = (taken as u16).wrapping_sub(self.ring.done());
        // What is received has nothing to settle: a chain that was not given back is filled anew.
        if !self.index.is_multiple_of(2) && taken & VALID != 0 && undone <= self.ring.size() {
            for _ in 0..undone.min(self.ring.available()?) {
                let head = self.ring.take()?;
                self.ring.give_back(head, 0);
                self.tally().count(Counter::InDoubt, 1);
            }
        }
        self.flush();
        // One who was killed may have given back without notifying.
        self.notify();
        Ok(())
    }

    /// Notes that the chain which is given back next is about to be sent, and what comes of it in doubt until then.
    #[inline]
    pub(super) fn about_to_send(&self) {
        let next = self.ring.done().wrapping_add(1);
        self.record()[TAKEN].store(u64::from(next) | VALID, Ordering::Release);
    }

    #[inline]
    pub(super) fn tally(&self) -> Tally<'_> {
        Tally(self.counters.record(usize::from(self.index)))
    }

    /// Tells the driver of what was given back.
    pub(super) fn flush(&mut self) {
        let count = self.ring.unpublished();
        if count == 0 {
            return;
        }
        let wanted = self.ring.publish();
        let tally = self.tally();
        tally.count(Counter::Received, count.into());
        tally.count(Counter::Completed, count.into());
        tally.count(Counter::Batches, 1);
        if wanted {
            self.notify();
        }
    }

    fn notify(&self) {
        if let Some(call) = &self.call {
            self.tally().count(Counter::Notifications, 1);
            signal(call);
        }
    }

    /// Stops the queue until the front end starts its ring anew.
    pub(super) fn stop(&mut self) {
        self.flush();
        self.stopped = true;
        self.record()[STOPPED].store(1, Ordering::Relaxed);
        let tally = self.tally();
        tally.count(Counter::Stopped, 1);
        tally.count(Counter::BadDescriptor, 1);
        if let Some(err) = &self.err {
            signal(err);
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }
}

/// Adds one to an eventfd. It does not block, and one that is full will be seen anyway.
fn signal(fd: &OwnedFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: the bytes are this function's own.
    unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}
