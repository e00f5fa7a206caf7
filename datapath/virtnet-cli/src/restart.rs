//! `virtnet restart`: the controller begins anew without the service's end (the guides from 24.10 on).

use virtnet_rpc::{Client, method};

use crate::output;

const EXAMPLES: &str = "\
Examples:
  virtnet restart";

/// What `restart` is told: nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {}

/// Runs it.
pub(crate) async fn run(service: &Client) -> anyhow::Result<String> {
    service.call::<()>(method::RESTART, &()).await?;
    output::done()
}
