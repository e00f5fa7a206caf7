//! The seam of wall-clock time. Durations are tokio's, so that they pass under a paused clock; instants that are written
//! down (conditions, leases) come from here.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time of day.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's own.
    pub fn system() -> Self {
        Self::telling(Timestamp::now)
    }

    /// One that shows what `tell` does, which may jump.
    pub fn telling(tell: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// One that was at `epoch` when tokio's clock was at `start`, and goes on with that, paused where it is.
    pub fn from_tokio(epoch: Timestamp, start: tokio::time::Instant) -> Self {
        Self::telling(move || epoch + start.elapsed())
    }

    /// The time now, to the second: Kubernetes' `Time` keeps no more, and what was written compares equal when read back.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_second((self.0)().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The time now, to the microsecond, for leases.
    pub fn now_micros(&self) -> Timestamp {
        Timestamp::from_microsecond((self.0)().as_microsecond()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
