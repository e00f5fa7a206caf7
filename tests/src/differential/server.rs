//! A server that is asked, and what it answers.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Context;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::Value;

/// A request in words of HTTP.
#[derive(Clone, Debug)]
pub struct Request {
    /// GET, POST, …
    pub method: &'static str,
    /// Without the query.
    pub path: String,
    /// Names and values, unescaped.
    pub query: BTreeMap<String, String>,
    /// The content type; empty: none.
    pub content: String,
    /// What answers are accepted; empty: JSON.
    pub accept: String,
    /// The body.
    pub body: String,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        for (index, (name, value)) in self.query.iter().enumerate() {
            write!(f, "{}{name}={value}", if index == 0 { '?' } else { '&' })?;
        }
        if !self.body.is_empty() {
            write!(f, " {}", self.body)?;
        }
        Ok(())
    }
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub code: u16,
    /// The texts of the warnings.
    pub warnings: Vec<String>,
    /// The body; of a watch, each event.
    pub bodies: Vec<Value>,
}

/// One of the two.
#[derive(Clone)]
pub struct Server(Client);

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").finish()
    }
}

impl Server {
    /// The server of this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    /// Where no answer comes, or one that is no JSON.
    pub async fn ask(&self, request: &Request) -> anyhow::Result<Answer> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&request.query);
        let query = query.finish();
        let uri = if query.is_empty() { request.path.clone() } else { format!("{}?{query}", request.path) };
        let mut built = http::Request::builder().method(request.method).uri(uri);
        if !request.content.is_empty() {
            built = built.header("content-type", &request.content);
        }
        let accept = if request.accept.is_empty() { "application/json" } else { &request.accept };
        built = built.header("accept", accept).header("user-agent", "differential/1.0");
        let built = built.body(Body::from(request.body.clone().into_bytes()))?;
        let response = self.0.send(built).await.with_context(|| format!("asking {request}"))?;
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings =
            warnings.map(|warning| String::from_utf8_lossy(warning.as_bytes()).into_owned()).collect();
        let bytes = response.into_body().collect().await.context("reading the answer")?.to_bytes();
        let bodies = serde_json::Deserializer::from_slice(&bytes)
            .into_iter::<Value>()
            .collect::<Result<Vec<_>, _>>()
            .unwrap_or_else(|_| vec![Value::String(String::from_utf8_lossy(&bytes).into_owned())]);
        Ok(Answer { code, warnings, bodies })
    }
}
