//! What an agent serves: its metrics and its health.

use std::time::Duration;

use anyhow::Context;
use http::{Request, Uri};
use kube::{Client, Config};

use super::Part;

/// Paths of all that it serves.
pub(crate) const PATHS: [&str; 3] = ["metrics", "healthz", "readyz"];

/// How long it may take to answer: it is near, and does nothing for an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// An address as `--agent` has it.
pub(crate) fn url(text: &str) -> Result<Uri, String> {
    let wanted = "say http://HOST:PORT, as the agent's --http has it";
    let url: Uri = text.parse().map_err(|error| format!("{wanted}: {error}"))?;
    // It would be told in the bundle, and no agent asks for it.
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(format!("{wanted}, without a user and a password"));
    }
    if url.scheme_str() == Some("http") && url.authority().is_some() && url.query().is_none() {
        Ok(url)
    } else {
        Err(wanted.to_owned())
    }
}

/// What it answers to one of [`PATHS`].
pub(crate) async fn ask(agent: &Uri, path: &str) -> anyhow::Result<Part> {
    let asking = || format!("asking the agent at {agent} for /{path}");
    let mut config = Config::new(agent.clone());
    config.connect_timeout = Some(LIMIT);
    config.read_timeout = Some(LIMIT);
    let client = Client::try_from(config).context("making a client of the agent")?;
    let request = Request::get(format!("/{path}")).body(Vec::new()).context("making a request")?;
    let text = match tokio::time::timeout(LIMIT, client.request_text(request)).await {
        Ok(answer) => answer.with_context(asking)?,
        Err(elapsed) => return Err(elapsed).with_context(asking),
    };
    let holds = format!("{} lines of {agent}", text.lines().count());
    Ok(Part { text, holds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_is_not_encrypted() {
        assert!(url("http://127.0.0.1:9402").is_ok());
        for wrong in [
            "127.0.0.1:9402",
            "https://dpu:9402",
            "http://",
            "http://dpu/?token=x",
            "a b",
            "http://u:p@dpu:9402",
        ] {
            assert!(url(wrong).unwrap_err().starts_with("say http://HOST:PORT"), "{wrong}");
        }
    }
}
