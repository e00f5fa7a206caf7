//! The API as a `tower` service: one HTTP request in, one response out.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::api::Core;
use crate::content::{self, Shape};
use crate::path::{self, Part, Target};
use crate::query::Pairs;
use crate::reply::{self, Body, Reply};
use crate::status::ApiError;
use crate::{discovery, review, verbs};

/// The largest request body that is read, as upstream.
pub const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// Serves HTTP requests from the API's state, with no authentication: whoever holds it may do everything.
#[derive(Debug, Clone)]
pub struct Service {
    core: Arc<Core>,
}

/// A request, read in full.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) pairs: Pairs,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) shape: Shape,
}

impl Call {
    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The media type of the body, without parameters.
    pub(crate) fn content_type(&self) -> &str {
        let header = self.header(header::CONTENT_TYPE);
        header.split(';').next().unwrap_or_default().trim()
    }
}

impl Service {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    async fn respond<B>(self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match read(request).await {
            Ok(call) => match route(&self.core, call).await {
                Ok(response) => response,
                Err(error) => Reply::from(error).into_response(),
            },
            Err(error) => Reply::from(error).into_response(),
        }
    }
}

impl<B> tower::Service<Request<B>> for Service
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.respond(request).await) })
    }
}

async fn read<B>(request: Request<B>) -> Result<Call, ApiError>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let accept = head.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    // What answers in another form than JSON does not look at this.
    let shape = content::accepted(accept);
    let body = Limited::new(body, BODY_LIMIT).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            ApiError::too_large(BODY_LIMIT)
        } else {
            ApiError::bad_request(format!("couldn't read the body of the request: {error}"))
        }
    })?;
    Ok(Call {
        method: head.method,
        path: head.uri.path().to_owned(),
        pairs: Pairs::parse(head.uri.query().unwrap_or_default())?,
        headers: head.headers,
        body: body.to_bytes(),
        shape: shape?,
    })
}

async fn route(core: &Arc<Core>, call: Call) -> Result<Response<Body>, ApiError> {
    let target = path::parse(&core.registry, &call.path).ok_or_else(ApiError::no_such_path)?;
    let (resource, namespace, key, part) = match target {
        Target::Collection { resource, namespace } => (resource, namespace, None, Part::Main),
        Target::Object { resource, key, part } => (resource, key.namespace.clone(), Some(key), part),
        Target::Review { kind } => return review::answer(&call, kind).map(Reply::into_response),
        other => return document(core, &call, other),
    };
    let request = verbs::Request { core: Arc::clone(core), call, resource, namespace, part };
    request.check_access()?;
    match (request.call.method.clone(), key) {
        (Method::GET, None) if request.call.pairs.list()?.watch => verbs::watch::collection(&request, None),
        (Method::GET, None) => verbs::list::list(&request).map(Reply::into_response),
        (Method::POST, None) => verbs::create::create(request).await.map(Reply::into_response),
        (Method::DELETE, None) => verbs::delete::collection(request).await.map(Reply::into_response),
        (Method::GET, Some(key)) if request.call.pairs.list()?.watch => {
            verbs::watch::collection(&request, Some(&key.name))
        }
        (Method::GET, Some(key)) => verbs::get::get(&request, &key).map(Reply::into_response),
        (Method::PUT, Some(key)) => verbs::update::update(request, key).await.map(Reply::into_response),
        (Method::PATCH, Some(key)) => verbs::patch::patch(request, key).await.map(Reply::into_response),
        (Method::DELETE, Some(key)) if part == Part::Main => {
            verbs::delete::one(request, key).await.map(Reply::into_response)
        }
        (method, _) => Err(ApiError::method_not_allowed(method.as_str(), &request.call.path)),
    }
}

/// Answers the paths under which nothing is stored.
fn document(core: &Core, call: &Call, target: Target) -> Result<Response<Body>, ApiError> {
    if call.method != Method::GET {
        return Err(ApiError::method_not_allowed(call.method.as_str(), &call.path));
    }
    let registry = &core.registry;
    let reply = match target {
        Target::Health => return Ok(reply::text(200, "ok")),
        Target::Version => Reply::ok(discovery::version()),
        Target::CoreVersions if call.shape == Shape::Discovery => discovery::aggregated(registry, true),
        Target::CoreVersions => Reply::ok(discovery::core_versions()),
        Target::Groups if call.shape == Shape::Discovery => discovery::aggregated(registry, false),
        Target::Groups => Reply::ok(discovery::groups(registry)),
        Target::Group(group) => Reply::ok(discovery::group(registry, &group)),
        Target::Resources { group, version } => Reply::ok(discovery::resources(registry, &group, &version)),
        Target::OpenApiIndex => Reply::ok(core.openapi.index(registry)),
        Target::OpenApi { group, version } => {
            Reply::ok(core.openapi.document(registry, &group, &version).ok_or_else(ApiError::no_such_path)?)
        }
        Target::Review { .. } | Target::Collection { .. } | Target::Object { .. } => {
            return Err(ApiError::no_such_path());
        }
    };
    Ok(reply.into_response())
}
