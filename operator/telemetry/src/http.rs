//! `/healthz`, `/readyz` and `/metrics`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::pulse::Pulse;

/// A loop that has not turned for this long hangs: six times as long as it takes at most.
const HUNG: Duration = Pulse::BEAT.saturating_mul(6);

/// Says whether a program is ready, or what it waits for.
type Readiness = Box<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

/// What is served.
pub struct Probes {
    /// What is counted.
    pub registry: Registry,
    /// The loop that must turn.
    pub pulse: Pulse,
    /// Whether the program is ready, or what it waits for.
    pub readiness: Readiness,
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes").field("pulse", &self.pulse).finish_non_exhaustive()
    }
}

/// Serves on `address` until dropped.
///
/// # Errors
/// Where the address can't be had.
pub async fn serve(address: SocketAddr, probes: Probes) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(expose))
        .with_state(Arc::new(probes));
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, app).await
}

async fn health(State(probes): State<Arc<Probes>>) -> Response {
    match probes.pulse.since_turn() {
        Some(since) if since >= HUNG => {
            let message = format!("the loop has not turned for {} s", since.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, message).into_response()
        }
        Some(_) | None => "ok".into_response(),
    }
}

async fn ready(State(probes): State<Arc<Probes>>) -> Response {
    match (probes.readiness)() {
        Ok(()) => "ok".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

async fn expose(State(probes): State<Arc<Probes>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &probes.registry) {
        Ok(()) => {
            ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
                .into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_hangs_after_a_minute_wherever_the_time_of_day_has_jumped() {
        for jump in [SignedDuration::ZERO, SignedDuration::from_hours(-48), SignedDuration::from_hours(24)] {
            let pulse = Pulse::default();
            let readiness = Box::new(|| Ok(()));
            let probes = Arc::new(Probes { registry: Registry::default(), pulse: pulse.clone(), readiness });
            let answer = async || health(State(Arc::clone(&probes))).await.status();
            assert_eq!(answer().await, StatusCode::OK, "{jump}: it has yet to begin");
            // What was the time of day when the loop turned is as far from now as the clock has jumped since.
            pulse.turn(Timestamp::now() - jump);
            tokio::time::advance(HUNG - Duration::from_secs(1)).await;
            assert_eq!(answer().await, StatusCode::OK, "{jump}");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(answer().await, StatusCode::SERVICE_UNAVAILABLE, "{jump}");
        }
    }
}
