//! `virtnet debug`: all that the controller knows inside, for who looks for a mistake (the guides from v1.9 on).

use virtnet_rpc::{Client, method};

use crate::{generation, output};

const EXAMPLES: &str = "\
Examples:
  virtnet debug
  virtnet debug | jq .device.sfs";

/// What `debug` is told: nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {}

/// Runs it.
pub(crate) async fn run(service: &Client) -> anyhow::Result<String> {
    let health: method::Health = service.call(method::HEALTH, &()).await?;
    generation::later(health.generation, "debug", "see virtnet log -l debug")?;
    output::json(&service.call::<serde_json::Value>(method::DEBUG, &()).await?)
}
