//! Answers and their form on the wire.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::Value;

use crate::object;
use crate::status::ApiError;

/// A response body: one document, or a stream of them.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A document to answer with.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) value: Value,
    pub(crate) media_type: &'static str,
    pub(crate) warnings: Vec<String>,
}

const JSON: &str = "application/json";

impl Reply {
    pub(crate) fn ok(value: Value) -> Self {
        Self { code: 200, value, media_type: JSON, warnings: Vec::new() }
    }

    pub(crate) fn with_code(self, code: u16) -> Self {
        Self { code, ..self }
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let body = Full::new(object::bytes(&self.value).into()).boxed_unsync();
        let mut response = respond(self.code, self.media_type, body);
        for warning in self.warnings {
            let words = warning.replace('\\', "\\\\").replace('"', "\\\"");
            // A header can't hold control characters; a field name that has some is named in the body of a strict
            // request only.
            if let Ok(words) = HeaderValue::try_from(format!("299 - \"{words}\"")) {
                response.headers_mut().append(header::WARNING, words);
            }
        }
        response
    }
}

impl From<ApiError> for Reply {
    fn from(mut error: ApiError) -> Self {
        let warnings = error.take_warnings();
        Self { code: error.code, warnings, ..Self::ok(error.to_value()) }
    }
}

/// A response of plain text.
pub(crate) fn text(code: u16, words: &'static str) -> Response<Body> {
    respond(code, "text/plain; charset=utf-8", Full::new(Bytes::from_static(words.as_bytes())).boxed_unsync())
}

/// A response that goes on until the stream ends; each document is followed by a line feed.
pub(crate) fn stream(documents: impl Stream<Item = Value> + Send + 'static) -> Response<Body> {
    let frames = documents.map(|document| {
        let mut line = object::bytes(&document);
        line.push(b'\n');
        Ok(Frame::data(Bytes::from(line)))
    });
    respond(200, JSON, StreamBody::new(frames).boxed_unsync())
}

fn respond(code: u16, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}
