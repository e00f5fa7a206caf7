//! One client's way to an API, real or embedded, with faults that a test steers and a record of what went over it.
//!
//! It lies below the retries that every client of kube has, so that an answer of 429 or 503 meets the client as it would
//! coming from the API.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{StreamExt, unfold};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use kube::client::retry::RetryPolicy;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};
use tower::retry::Retry;
use tower::{BoxError, Service};

/// What befalls a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It does not come to the API, which can't be reached.
    Unreachable,
    /// It does not come to the API, and is answered with this.
    Answer(StatusCode),
    /// The API answers, and the answer comes this much later.
    Late(Duration),
    /// The API answers, and the answer never comes.
    Silence,
}

/// What went over the way: a request that was answered, or an error that a watch told of.
#[derive(Clone, Debug)]
pub struct Passed {
    /// When it was answered.
    pub at: Instant,
    /// The request's method.
    pub method: Method,
    /// Its path and query.
    pub target: String,
    /// The version of the object that a write was to replace.
    pub replaces: Option<String>,
    /// The answer; of an error in a watch the code of that.
    pub status: StatusCode,
    /// What a write was answered with. Null where that was no object.
    pub object: Value,
}

impl Passed {
    /// Whether it is a write that the API acknowledged.
    pub fn is_write(&self) -> bool {
        self.method != Method::GET && self.status.is_success()
    }

    /// Whether it is about this kind, in plural.
    pub fn is_of(&self, kind: &str) -> bool {
        self.target.split(['/', '?']).any(|part| part == kind)
    }
}

/// What the client is answered with.
type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;
/// Whether a request with this method, path and query is one.
type Which = Box<dyn Fn(&Method, &str) -> bool + Send>;

struct Rule {
    which: Which,
    left: usize,
    fault: Fault,
}

/// How running watches end.
#[derive(Clone, Copy, Debug)]
enum End {
    Cut,
    Expired,
}

struct Shared {
    api: Client,
    rules: Mutex<Vec<Rule>>,
    passed: Mutex<Vec<Passed>>,
    watches: broadcast::Sender<End>,
}

/// The way, and the levers of its faults; clones share it.
#[derive(Clone)]
pub struct FaultyWay(Arc<Shared>);

impl fmt::Debug for FaultyWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyWay")
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultyWay {
    /// A way to this API without faults. The client must not try again by itself what failed.
    pub fn new(api: Client) -> Self {
        let (watches, _) = broadcast::channel(16);
        Self(Arc::new(Shared { api, rules: Mutex::default(), passed: Mutex::default(), watches }))
    }

    /// A client that goes this way.
    pub fn client(&self) -> Client {
        let namespace = self.0.api.default_namespace().to_owned();
        Client::new(Retry::new(RetryPolicy::server_retry(), self.clone()), namespace)
    }

    /// From now on this befalls the next `count` requests that are `which`. Of several faults the oldest befalls.
    pub fn befall(&self, fault: Fault, count: usize, which: impl Fn(&Method, &str) -> bool + Send + 'static) {
        locked(&self.0.rules).push(Rule { which: Box::new(which), left: count, fault });
    }

    /// The API is out of reach: watches end, and no request comes to it.
    pub fn cut_off(&self) {
        self.befall(Fault::Unreachable, usize::MAX, |_, _| true);
        self.cut_watches();
    }

    /// No more faults from here on.
    pub fn heal(&self) {
        locked(&self.0.rules).clear();
    }

    /// How many faults are still to befall.
    pub fn left(&self) -> usize {
        locked(&self.0.rules).iter().fold(0, |sum, rule| sum.saturating_add(rule.left))
    }

    /// Ends all running watches.
    pub fn cut_watches(&self) {
        // An error says that there are none.
        let _ = self.0.watches.send(End::Cut);
    }

    /// Tells all running watches that what they saw last is too old to go on from, and ends them.
    pub fn expire_watches(&self) {
        let _ = self.0.watches.send(End::Expired);
    }

    /// All that has passed so far.
    pub fn passed(&self) -> Vec<Passed> {
        locked(&self.0.passed).clone()
    }

    fn fault(&self, method: &Method, target: &str) -> Option<Fault> {
        let mut rules = locked(&self.0.rules);
        let rule = rules.iter_mut().find(|rule| rule.left > 0 && (rule.which)(method, target))?;
        rule.left = rule.left.saturating_sub(usize::from(rule.left != usize::MAX));
        Some(rule.fault)
    }

    fn note(&self, passed: Passed) {
        locked(&self.0.passed).push(passed);
    }

    async fn pass(self, request: Request<Body>) -> Result<Answer, BoxError> {
        let (parts, body) = request.into_parts();
        let method = parts.method.clone();
        let target = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let body = body.collect().await?.to_bytes();
        let mut passed = Passed {
            at: Instant::now(),
            method: method.clone(),
            target: target.clone(),
            replaces: replaced_version(&body),
            status: StatusCode::OK,
            object: Value::Null,
        };
        let fault = self.fault(&method, &target);
        let answer = match fault {
            Some(Fault::Unreachable) => return Err("the API is out of reach".into()),
            Some(Fault::Answer(status)) => refusal(status),
            Some(Fault::Late(_) | Fault::Silence) | None => {
                let answer = self.0.api.send(Request::from_parts(parts, body.into())).await?;
                answer.map(|body| body.map_err(BoxError::from).boxed_unsync())
            }
        };
        passed.status = answer.status();
        if method == Method::GET {
            // Noted now, for a watch has no end that could be waited for.
            passed.at = Instant::now();
            self.note(passed.clone());
            self.linger(fault).await;
            let is_watch = target.contains("watch=true") && answer.status().is_success();
            return Ok(if is_watch { self.watched(answer, passed) } else { answer });
        }
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        passed.object = serde_json::from_slice(&body).unwrap_or_default();
        passed.at = Instant::now();
        self.note(passed);
        self.linger(fault).await;
        Ok(Response::from_parts(parts, whole(body)))
    }

    async fn linger(&self, fault: Option<Fault>) {
        match fault {
            Some(Fault::Late(late)) => sleep(late).await,
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Unreachable | Fault::Answer(_)) | None => {}
        }
    }

    /// A watch that can be ended, and of which errors are noted.
    fn watched(self, answer: Answer, asked: Passed) -> Answer {
        let (parts, body) = answer.into_parts();
        let ends = self.0.watches.subscribe();
        let state = (self, body.into_data_stream(), ends, asked, Vec::new());
        let frames = unfold(Some(state), |state| async {
            let (way, mut frames, mut ends, asked, mut line) = state?;
            tokio::select! {
                biased;
                end = ends.recv() => match end {
                    Ok(End::Expired) => {
                        let event = json!({ "type": "ERROR", "object": status_object(StatusCode::GONE) });
                        Some((Ok(Bytes::from(format!("{event}\n"))), None))
                    }
                    Ok(End::Cut) | Err(_) => None,
                },
                frame = frames.next() => {
                    let frame = frame?;
                    for byte in frame.iter().flatten() {
                        if *byte == b'\n' {
                            way.note_error(&line, &asked);
                            line.clear();
                        } else {
                            line.push(*byte);
                        }
                    }
                    Some((frame, Some((way, frames, ends, asked, line))))
                }
            }
        });
        let body = StreamBody::new(frames.map(|frame| frame.map(Frame::data)).boxed());
        Response::from_parts(parts, body.boxed_unsync())
    }

    /// Notes what an event of a watch says, if it is an error.
    fn note_error(&self, line: &[u8], asked: &Passed) {
        let event: Value = serde_json::from_slice(line).unwrap_or_default();
        if event["type"] == "ERROR" {
            let code = event["object"]["code"].as_u64().and_then(|code| u16::try_from(code).ok());
            let status = code.and_then(|code| StatusCode::from_u16(code).ok());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            self.note(Passed {
                at: Instant::now(),
                status,
                object: event["object"].clone(),
                ..asked.clone()
            });
        }
    }
}

impl Service<Request<Body>> for FaultyWay {
    type Response = Answer;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().pass(request))
    }
}

/// The version that a write is to replace: that of an applied object, or the one that a JSON patch tests.
fn replaced_version(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let is_tested = |operation: &&Value| operation["path"] == "/metadata/resourceVersion";
    let version = match &body {
        Value::Array(operations) => &operations.iter().find(is_tested)?["value"],
        object => &object["metadata"]["resourceVersion"],
    };
    version.as_str().map(str::to_owned)
}

fn status_object(status: StatusCode) -> Value {
    let reason = match status {
        StatusCode::CONFLICT => "Conflict",
        StatusCode::GONE => "Expired",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "Unknown",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": status.as_u16(),
        "reason": reason, "message": format!("a fault of the test: {status}"),
    })
}

/// An answer that the API did not give.
fn refusal(status: StatusCode) -> Answer {
    let mut answer = Response::new(whole(status_object(status).to_string().into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    if status == StatusCode::TOO_MANY_REQUESTS {
        answer.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("1"));
    }
    answer
}

fn whole(body: Bytes) -> UnsyncBoxBody<Bytes, BoxError> {
    Full::new(body).map_err(BoxError::from).boxed_unsync()
}
