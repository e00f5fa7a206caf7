//! A client of the API whose requests fail where no answer comes: a connection that was lost without a word is else noticed
//! only after many minutes.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use tokio::time::timeout;
use tower::service_fn;

/// How long an answer is waited for, what the client tries again by itself included.
const LIMIT: Duration = Duration::from_secs(30);

/// A client of the same API, for requests that are answered in time or fail.
pub fn in_time(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    Client::new(service_fn(move |request| answer(client.clone(), request)), namespace)
}

/// Of a watch only the beginning is waited for: whoever reads it sees to its silence.
async fn answer(client: Client, request: Request<Body>) -> kube::Result<Response<Body>> {
    let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let answered = async {
        let answer = client.send(request).await?;
        if is_watch {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        Ok(Response::from_parts(parts, body.collect().await?.to_bytes().into()))
    };
    timeout(LIMIT, answered).await.unwrap_or_else(|_| {
        let message = format!("no answer from the API in {} s; is it still within reach?", LIMIT.as_secs());
        Err(kube::Error::Service(message.into()))
    })
}
