//! Faults between the agent and the API: writes that fail or kill, watches that lag and are cut.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use kube::client::Body;
use tower::{BoxError, Service};
use virtnet_embedded_api as embedded;

use crate::faults::Faults;

/// An agent's way to the API, with faults on it.
#[derive(Clone, Debug)]
pub struct FaultyApi {
    inner: embedded::Service,
    faults: Faults,
}

impl FaultyApi {
    /// Faults on the way to this API.
    pub fn new(inner: embedded::Service, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

impl Service<Request<Body>> for FaultyApi {
    type Response = Answer;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { mut inner, faults } = self.clone();
        Box::pin(async move {
            if faults.is_api_out() {
                return Ok(unavailable());
            }
            let path = request.uri().path().to_owned();
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let is_single = request.method() == Method::GET && path.contains("/virtnetdevices/");
            if is_single && faults.loses_read() {
                return Ok(unavailable());
            }
            // Events and the Lease are told in passing: losing one changes nothing.
            let matters = path.contains("/virtnet.dev/") && request.method() != Method::GET;
            let what = format!("{} {path}", request.method());
            let answer = async {
                let answer: Result<Response<embedded::Body>, Infallible> = inner.call(request).await;
                answer.map_err(BoxError::from)
            };
            let answer = if matters {
                faults.around(what, |why| BoxError::from(why.to_owned()), answer).await?
            } else {
                answer.await?
            };
            let (parts, body) = answer.into_parts();
            let body = body.map_err(Into::into);
            if !is_watch {
                return Ok(Response::from_parts(parts, body.boxed_unsync()));
            }
            let Lag { each, whole } = faults.watch().unwrap_or_default();
            let end = async move {
                tokio::select! {
                    biased;
                    () = faults.cut() => {}
                    () = tokio::time::sleep(whole) => {}
                }
            };
            let frames = http_body_util::BodyStream::new(body).then(move |frame| async move {
                tokio::time::sleep(each).await;
                frame
            });
            let body = BodyExt::boxed_unsync(StreamBody::new(Box::pin(frames.take_until(Box::pin(end)))));
            Ok(Response::from_parts(parts, body))
        })
    }
}

/// The answer of an API that can't serve.
fn unavailable() -> Answer {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 503,
        "reason": "ServiceUnavailable", "message": "the API is out of reach",
    });
    let body = http_body_util::Full::new(Bytes::from(status.to_string()));
    let mut answer = Response::new(body.map_err(Into::into).boxed_unsync());
    *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    answer
}

/// How a watch lags, and when it is cut.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    /// The delay of each piece of its stream.
    pub each: Duration,
    /// How long it lasts.
    pub whole: Duration,
}

impl Default for Lag {
    /// None, for longer than any test lasts.
    fn default() -> Self {
        Self { each: Duration::ZERO, whole: Duration::from_secs(1_000_000) }
    }
}
