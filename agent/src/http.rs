//! `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::clock::Clock;
use crate::metrics::Metrics;

/// The loop turns every ten seconds at least; one that has not for this long hangs.
const HUNG_SECONDS: u64 = 60;

struct Shared {
    registry: Registry,
    metrics: Metrics,
    clock: Clock,
}

/// Serves on `address` until dropped. Fails where the address can't be had.
pub async fn serve(address: SocketAddr, metrics: Metrics, clock: Clock) -> std::io::Result<()> {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let app = Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(expose))
        .with_state(Arc::new(Shared { registry, metrics, clock }));
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, app).await
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let now = u64::try_from(shared.clock.now().as_second()).unwrap_or_default();
    let turned = shared.metrics.turned.get();
    if turned == 0 || now.saturating_sub(turned) < HUNG_SECONDS {
        "ok".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("the loop has not turned for {} s", now - turned))
            .into_response()
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
