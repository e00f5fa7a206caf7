//! Live updates: what is known of the last one and of the one that runs ([`Updates`]).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use virtnet_model::{PartError, Refusal};
use virtnet_rpc::method::{LastUpdate, UpdateStatus};

/// The updates of a service, one at a time.
#[derive(Debug, Default)]
pub(super) struct Updates {
    state: Mutex<Known>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Known {
    begun: Option<Instant>,
    last: Option<LastUpdate>,
}

impl Updates {
    /// Asks for an update; refused while one runs.
    pub(super) fn begin(&self) -> Result<(), PartError> {
        let mut known = self.known();
        if known.begun.is_some() {
            return Err(PartError::refused(Refusal::Updating, "update: one is running"));
        }
        known.begun = Some(Instant::now());
        self.wanted.notify_one();
        Ok(())
    }

    /// Waits until an update is asked for.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// The update has ended: well, or for this reason with the program of before.
    pub(super) fn end(&self, result: Result<(), String>) {
        let mut known = self.known();
        let Some(begun) = known.begun.take() else { return };
        let took = begun.elapsed();
        match &result {
            Ok(()) => tracing::info!(?took, "the live update is done"),
            Err(why) => tracing::error!("the live update failed, and the program of before serves: {why}"),
        }
        known.last = Some(LastUpdate { failure: result.err(), seconds: seconds(took) });
    }

    /// Has one that runs taken up again, where a worker ended in the middle of it.
    pub(super) fn resume(&self) {
        if self.known().begun.is_some() {
            self.wanted.notify_one();
        }
    }

    /// What there is to tell.
    pub(super) fn status(&self) -> UpdateStatus {
        let known = self.known();
        UpdateStatus { running: known.begun.is_some(), last: known.last.clone() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In seconds with milliseconds.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
