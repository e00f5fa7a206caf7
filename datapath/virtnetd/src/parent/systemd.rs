//! What systemd is told (`sd_notify(3)`): that the service is ready, that it lives, that it ends. Without systemd: nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::sleep;
use virtnet_model::Controller;

use super::upstream::Upstream;

/// How often systemd is to be told that the service lives.
pub(super) struct Systemd {
    watchdog: Option<Duration>,
}

impl Systemd {
    /// As the unit says.
    pub(super) fn from_environment() -> Self {
        // Half of it, as sd_watchdog_enabled(3) recommends.
        Self { watchdog: sd_notify::watchdog_enabled().map(|interval| interval / 2) }
    }

    /// Tells systemd of the service for as long as it is polled. It is ready once a worker has answered, and lives for as long
    /// as one does.
    pub(super) async fn tell(&self, upstream: &Upstream) {
        while let Err(error) = upstream.observe().await {
            tracing::warn!("not ready yet: {error}");
            sleep(Duration::from_secs(1)).await;
        }
        tracing::info!("ready");
        notify(&[NotifyState::Ready]);
        let Some(interval) = self.watchdog else { return std::future::pending().await };
        loop {
            // A worker that hangs is killed and one that ends is followed by another, so that this ends in good time.
            if upstream.observe().await.is_ok() {
                notify(&[NotifyState::Watchdog]);
            }
            sleep(interval).await;
        }
    }
}

/// The service is about to end.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told of the service");
    }
}
