//! `/healthz`, `/readyz` and `/metrics`.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
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

/// Reads anew what is read for each answer.
type Refresh = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What is served.
pub struct Probes {
    /// What is counted.
    pub registry: Registry,
    /// The loop that must turn.
    pub pulse: Pulse,
    /// Whether the program is ready, or what it waits for.
    pub readiness: Readiness,
    /// Done before metrics are served, for what is not counted as it happens.
    pub refresh: Refresh,
}

impl Probes {
    /// With nothing that is read for each answer.
    pub fn new(
        registry: Registry,
        pulse: Pulse,
        readiness: impl Fn() -> Result<(), &'static str> + Send + Sync + 'static,
    ) -> Self {
        let refresh = Box::new(|| Box::pin(std::future::ready(())) as Pin<Box<_>>);
        Self { registry, pulse, readiness: Box::new(readiness), refresh }
    }
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
    (probes.refresh)().await;
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
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[tokio::test]
    async fn what_is_read_for_an_answer_is_in_it() {
        let (mut registry, answers) = (Registry::default(), Counter::<u64>::default());
        registry.register("answers", "Answers", answers.clone());
        let mut probes = Probes::new(registry, Pulse::default(), || Ok(()));
        probes.refresh = Box::new(move || {
            let answers = answers.clone();
            Box::pin(async move {
                tokio::task::yield_now().await;
                answers.inc();
            })
        });
        let probes = Arc::new(probes);
        for number in 1..=2 {
            let answer = expose(State(Arc::clone(&probes))).await.into_body();
            let text = axum::body::to_bytes(answer, usize::MAX).await.unwrap();
            let text = String::from_utf8_lossy(&text);
            assert!(text.contains(&format!("\nanswers_total {number}\n")), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_hangs_after_a_minute_wherever_the_time_of_day_has_jumped() {
        for jump in [SignedDuration::ZERO, SignedDuration::from_hours(-48), SignedDuration::from_hours(24)] {
            let pulse = Pulse::default();
            let probes = Arc::new(Probes::new(Registry::default(), pulse.clone(), || Ok(())));
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
