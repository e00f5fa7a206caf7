//! `virtnet stats`: the packets that went through a function's queues, by their length (the guides from 24.07 on).

use anyhow::bail;
use clap::ArgGroup;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use virtnet_model::{Controller, FunctionId, PACKET_LENGTHS, PfId, QueueRole, QueueState, Queues, VfId};
use virtnet_rpc::Client;

use crate::queue::Counters;
use crate::which::{self, Which};
use crate::{generation, output};

const EXAMPLES: &str = "\
Examples:
  virtnet stats -p 0
  virtnet stats -p 0 -v 1 -q 0
  virtnet stats -u VNETS0D0F0VF1";

/// What `stats` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("which").args(["pf", "vuid"]).required(true))]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Of the queues this one alone: the host receives by even ones and transmits by odd ones
    #[arg(short, long = "queue_id")]
    queue_id: Option<u16>,
}

#[derive(Debug, Serialize)]
struct Answer {
    device: Device,
}

#[derive(Debug, Serialize)]
struct Device {
    pf_id: PfId,
    #[serde(skip_serializing_if = "Option::is_none")]
    vf_id: Option<VfId>,
    packet_counters: &'static str,
    #[serde(rename = "queues-stats")]
    queues: Vec<Stats>,
}

#[derive(Debug, Serialize)]
struct Stats {
    #[serde(rename = "VQ Index")]
    index: u16,
    #[serde(flatten)]
    packets: Packets,
    #[serde(flatten)]
    counters: Counters,
}

/// Packets by their length.
#[derive(Debug)]
struct Packets {
    direction: &'static str,
    counts: [u64; PACKET_LENGTHS.len() + 1],
}

impl Serialize for Packets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.counts.len()))?;
        let mut least = 0;
        for (place, count) in self.counts.iter().enumerate() {
            let range = match PACKET_LENGTHS.get(place) {
                Some(most) if place == 0 => format!("{most}_or_less"),
                Some(most) => format!("{least}_to_{most}"),
                None => format!("{least}_or_more"),
            };
            map.serialize_entry(&format!("{}_{range}_octet_packets", self.direction), count)?;
            least = PACKET_LENGTHS.get(place).map_or(0, |most| most + 1);
        }
        map.end()
    }
}

impl Stats {
    /// Of a queue that packets go through.
    fn of(queue: &QueueState) -> Option<Self> {
        let direction = match queue.role {
            QueueRole::Receive => "rx",
            QueueRole::Transmit => "tx",
            QueueRole::Control => return None,
        };
        Some(Self {
            index: queue.index,
            packets: Packets { direction, counts: queue.counters.packets },
            counters: Counters::of(queue),
        })
    }
}

/// Runs it.
pub(crate) async fn run(arguments: &Arguments, service: &Client) -> anyhow::Result<String> {
    let state = service.observe().await?;
    generation::later(state.limits.generation, "stats", "see virtnet query")?;
    let function = arguments.which.find(&state)?;
    let queues = service.queues(&which::target(function)?).await?;
    let queues = match arguments.queue_id {
        None => queues.iter().filter(|queue| queue.enabled).filter_map(Stats::of).collect(),
        Some(wanted) => match queues.iter().find(|queue| queue.index == wanted) {
            None => bail!("stats of queue {wanted}: {} has {} queues, from 0", function.vuid, queues.len()),
            Some(queue) if !queue.enabled => {
                bail!("stats of queue {wanted}: no driver has set it up of {}", function.vuid)
            }
            Some(queue) => match Stats::of(queue) {
                Some(stats) => vec![stats],
                None => bail!("stats of queue {wanted}: no packets go through it, which is for commands"),
            },
        },
    };
    let FunctionId { pf, vf } = function.id;
    // There is none whose packets are not counted.
    output::json(&Answer { device: Device { pf_id: pf, vf_id: vf, packet_counters: "Enabled", queues } })
}
