//! [`Pace`]: when a controller plans: soon after something was told, and when time has passed that something waits for.

use std::time::Duration;

use tokio::time::Instant;

use crate::writes::LONGEST_RETRY;

/// Plans are at least this far apart: events that come in a burst are answered together.
const APART: Duration = Duration::from_millis(50);

/// When a controller plans.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Something was told or has ended since the last plan.
    dirty: bool,
    planned_at: Option<Instant>,
    /// What waits for time to pass.
    look_again: Option<Instant>,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { dirty: true, planned_at: None, look_again: None }
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
        if !due || self.planned_at.is_some_and(|at| at + APART > now) {
            return false;
        }
        (self.dirty, self.planned_at, self.look_again) = (false, Some(now), None);
        true
    }

    /// When to wake if nothing happens. At rest that is a long way off.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        let cause = Some(now).filter(|_| self.dirty).into_iter().chain(self.look_again).min();
        let paced = self.planned_at.map_or(now, |at| at + APART);
        cause.map_or(now + LONGEST_RETRY, |cause| cause.max(paced))
    }
}
