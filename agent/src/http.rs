//! `/healthz`, `/readyz` and `/metrics`.

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

use crate::metrics::Metrics;

/// The loop turns every ten seconds at least; one that has not for this long hangs.
const HUNG: Duration = Duration::from_secs(60);

struct Shared {
    registry: Registry,
    metrics: Metrics,
}

/// Serves on `address` until dropped. Fails where the address can't be had.
pub async fn serve(address: SocketAddr, metrics: Metrics) -> std::io::Result<()> {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let app = Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(expose))
        .with_state(Arc::new(Shared { registry, metrics }));
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, app).await
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    match shared.metrics.since_turn() {
        Some(since) if since >= HUNG => {
            let message = format!("the loop has not turned for {} s", since.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, message).into_response()
        }
        Some(_) | None => "ok".into_response(),
    }
}

/// Ready once the DPU was observed, which waits for the first complete list of devices.
async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    if shared.metrics.observations.get() > 0 {
        "ok".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the devices were not listed yet, or the DPU not observed")
            .into_response()
    }
}

async fn expose(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &shared.registry) {
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
            let shared = Arc::new(Shared { registry: Registry::default(), metrics: Metrics::default() });
            let answer = async || health(State(Arc::clone(&shared))).await.status();
            assert_eq!(answer().await, StatusCode::OK, "{jump}: it has yet to begin");
            // What was the time of day when the loop turned is as far from now as the clock has jumped since.
            shared.metrics.turn(Timestamp::now() - jump);
            tokio::time::advance(HUNG - Duration::from_secs(1)).await;
            assert_eq!(answer().await, StatusCode::OK, "{jump}");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(answer().await, StatusCode::SERVICE_UNAVAILABLE, "{jump}");
        }
    }
}
