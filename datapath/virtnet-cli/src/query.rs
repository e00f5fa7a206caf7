//! `virtnet query`: all that is known of all functions or of one, with their queues.

use anyhow::bail;
use clap::ArgGroup;
use serde::Serialize;
use virtnet_model::{Controller, Function, Queues, Refusal};
use virtnet_rpc::Client;

use crate::device::Device;
use crate::queue::Queue;
use crate::which::{self, Which};
use crate::{generation, netdev, output};

const EXAMPLES: &str = "\
Examples:
  virtnet query -a
  virtnet query -p 1
  virtnet query -p 0 -v 0 | grep sf_rep_net_device
  virtnet query -p 1 -q 0
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
    /// Leave the queues out
    #[arg(short, long)]
    brief: bool,
    /// Of the queues this one alone, though no driver may have set it up (later generation)
    #[arg(short, long = "queue_id", value_name = "QID", conflicts_with_all = ["brief", "all"])]
    queue_id: Option<u16>,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    devices: Vec<Device<'a>>,
}

/// Runs it.
pub(crate) async fn run(arguments: &Arguments, service: &Client) -> anyhow::Result<String> {
    let state = service.observe().await?;
    if arguments.queue_id.is_some() {
        generation::later(state.limits.generation, "query -q", "ask without -q")?;
    }
    let functions: Vec<&Function> =
        if arguments.all { state.functions.values().collect() } else { vec![arguments.which.find(&state)?] };
    let mut devices = Vec::new();
    for function in functions {
        let queues = match queues(arguments, function, service).await {
            Ok(queues) => queues,
            // It went after the others were told of, which is what a list of all leaves out.
            Err(error) if arguments.all && which::is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        devices.push(Device::in_full(function, queues, &netdev::ifindex));
    }
    output::json(&Answer { devices })
}

/// The queues that are to be shown of a function; `None`: none are to be, or it is being moved.
async fn queues(
    arguments: &Arguments,
    function: &Function,
    service: &Client,
) -> anyhow::Result<Option<Vec<Queue>>> {
    if arguments.brief {
        return Ok(None);
    }
    if let Some(queue) = arguments.queue_id {
        if queue >= function.max_queues {
            bail!("query queue {queue}: {} has {} queues, from 0", function.vuid, function.max_queues);
        }
    } else if !function.driver.in_use {
        return Ok(Some(Vec::new()));
    }
    let queues = match service.queues(&which::target(function)?).await {
        Ok(queues) => queues,
        Err(error) if error.refusal() == Some(Refusal::Migrating) && arguments.queue_id.is_none() => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let wanted = queues.iter().filter(|queue| match arguments.queue_id {
        Some(wanted) => queue.index == wanted,
        None => queue.enabled,
    });
    Ok(Some(wanted.map(Queue::of).collect()))
}
