//! Being asked to stop: SIGTERM, or SIGINT from the keyboard.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Requests to stop, from the moment of listening on: none is lost while something starts.
#[derive(Debug)]
pub(crate) struct Requests {
    terminate: Signal,
    interrupt: Signal,
}

impl Requests {
    /// Begins to listen.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listening for SIGINT")?,
        })
    }

    /// Ends at the next request.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
