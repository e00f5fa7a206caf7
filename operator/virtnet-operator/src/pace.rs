//! [`Pace`]: when a controller plans: soon after something was told, and when time has passed that something waits for.

use std::time::Duration;

use tokio::time::Instant;

use crate::writes::LONGEST_RETRY;

/// Plans are at least this far apart, and at least as far as the last one took: events that come in a burst are answered
/// together.
const APART: Duration = Duration::from_millis(50);

/// When a controller plans.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Something was told or has ended since the last plan.
    dirty: bool,
    /// When the next plan may be made.
    not_before: Option<Instant>,
    /// What waits for time to pass.
    look_again: Option<Instant>,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { dirty: true, not_before: None, look_again: None }
    }

    /// Something was told or has ended.
    pub(crate) fn wake(&mut self) {
        self.dirty = true;
    }

    /// It is to be planned again at this time, where there is one.
    pub(crate) fn look_again_at(&mut self, at: Option<Instant>) {
        self.look_again = [self.look_again, at].into_iter().flatten().min();
    }

    /// Whether to plan now; what follows is taken for done.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        let due = self.dirty || self.look_again.is_some_and(|at| at <= now);
        if !due || self.not_before.is_some_and(|at| at > now) {
            return false;
        }
        (self.dirty, self.not_before, self.look_again) = (false, Some(now + APART), None);
        true
    }

    /// The plan that began then is made.
    pub(crate) fn end(&mut self, began: Instant) {
        let took = began.elapsed();
        self.not_before = Some(began + took + took.max(APART));
    }

    /// When to wake if nothing happens. At rest that is a long way off.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        let cause = Some(now).filter(|_| self.dirty).into_iter().chain(self.look_again).min();
        let paced = self.not_before.unwrap_or(now);
        cause.map_or(now + LONGEST_RETRY, |cause| cause.max(paced))
    }
}
