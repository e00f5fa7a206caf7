//! What systemd is told (`sd_notify(3)`): that the service is ready, that it lives, that it ends. Without systemd: nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::sleep;

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

    /// Tells systemd that the service is ready, and for as long as it is polled that it lives. It is the parent that lives: with
    /// it the functions would go, and workers that hang are its own to find.
    pub(super) async fn tell(&self) {
        tracing::info!("ready");
        notify(&[NotifyState::Ready]);
        let Some(interval) = self.watchdog else { return std::future::pending().await };
        loop {
            notify(&[NotifyState::Watchdog]);
            sleep(interval).await;
        }
    }
}

/// What `systemctl status` shows of the service.
pub(super) fn status(text: &str) {
    // Each line of what systemd is told is a word of its own.
    notify(&[NotifyState::Status(&text.replace('\n', " "))]);
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
