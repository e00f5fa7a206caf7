//! `virtnet version`: which controller runs and which is installed (the guide, section 1.1.4).

use serde::Serialize;
use virtnet_rpc::{Client, method};

use crate::output;

const EXAMPLES: &str = "\
Examples:
  virtnet version";

/// What `version` is told: nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {}

/// The guide's names for the two.
#[derive(Debug, Serialize)]
struct Versions {
    #[serde(rename = "Original Controller")]
    running: String,
    #[serde(rename = "Destination Controller")]
    installed: String,
}

/// Runs it.
pub(crate) async fn run(service: &Client) -> anyhow::Result<String> {
    let method::Version { running, installed } = service.call(method::VERSION, &()).await?;
    output::json(&Versions { running, installed })
}
