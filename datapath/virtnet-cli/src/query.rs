//! `virtnet query`: all that is known of all functions or of one.

use anyhow::bail;
use clap::ArgGroup;
use serde::Serialize;
use virtnet_model::{Controller, Function};
use virtnet_rpc::Client;

use crate::device::Device;
use crate::which::Which;
use crate::{netdev, output};

const EXAMPLES: &str = "\
Examples:
  virtnet query -a
  virtnet query -p 1
  virtnet query -p 0 -v 0 | grep sf_rep_net_device
  virtnet query -u VNETS0D0F0VF1 -b";

/// What `query` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("which").args(["all", "pf", "vuid"]).required(true))]
pub(crate) struct Arguments {
    /// All functions
    #[arg(short, long, conflicts_with = "vf")]
    all: bool,
    #[command(flatten)]
    which: Which,
    /// Leave the queues out, of which this controller tells nothing yet
    #[arg(short, long)]
    brief: bool,
    /// One queue, of which this controller tells nothing yet
    #[arg(short, long = "queue_id", value_name = "QID", conflicts_with = "brief")]
    queue_id: Option<u16>,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    devices: Vec<Device<'a>>,
}

/// Runs it.
pub(crate) async fn run(arguments: &Arguments, service: &Client) -> anyhow::Result<String> {
    // To answer with something else would be worse than to refuse.
    if let Some(queue) = arguments.queue_id {
        bail!("query queue {queue}: this controller tells nothing of single queues yet: ask without -q");
    }
    let state = service.observe().await?;
    let functions: Vec<&Function> =
        if arguments.all { state.functions.values().collect() } else { vec![arguments.which.find(&state)?] };
    let devices = functions.into_iter().map(|function| Device::in_full(function, &netdev::ifindex)).collect();
    output::json(&Answer { devices })
}
