//! `virtnet modify`: changes settings of a function (the guide, section 1.1.2), or those that a VF will be made with.

use clap::{ArgGroup, Subcommand, ValueEnum};
use virtnet_model::{
    Change, Controller, ControllerState, Features, Mac, Moderation, Mtu, PeriodMode, QueueSize, Queues,
    Target,
};
use virtnet_rpc::Client;

use crate::value::{features, number};
use crate::which::{self, Which};
use crate::{generation, output};

const EXAMPLES: &str = "\
Examples:
  virtnet modify -p 0 -v 0 device -m 0C:C4:7A:FF:22:98
  virtnet modify -u VNETS0D0F0VF1 device -m 0C:C4:7A:FF:22:98
  virtnet modify -p 0 -v 0 device -t 9000 -q 2048

On the host the driver must be unbound before, and can be bound again afterwards:
  echo 0000:85:04.5 > /sys/bus/pci/drivers/virtio-pci/unbind
  echo 0000:85:04.5 > /sys/bus/pci/drivers/virtio-pci/bind";

const QUEUE_EXAMPLES: &str = "\
Examples:
  virtnet modify -p 0 -v 0 queue -e event -n 10 -c 30
  virtnet modify -p 0 -v 0 queue -e cqe -n 0 -c 0   Interrupts for each packet again";

/// What `modify` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("which").args(["pf", "vuid"]).required(true))]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The function's own settings; a VF that the host has not made yet is made with them
    #[command(after_help = EXAMPLES)]
    Device(Device),
    /// When the driver is interrupted for what it receives; it may have the function meanwhile (later generation)
    #[command(after_help = QUEUE_EXAMPLES)]
    Queue(Queue),
}

/// When it is interrupted: once so many packets are there, or so much time has passed.
#[derive(Debug, clap::Args)]
struct Queue {
    /// From when on the time runs
    #[arg(short = 'e', long = "period_mode", value_enum)]
    period_mode: Mode,
    /// The time in microseconds; 0: at once
    #[arg(short = 'n', long)]
    period: u16,
    /// The packets; 0: any number
    #[arg(short = 'c', long = "max_count")]
    max_count: u16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// From the last interrupt on
    Event,
    /// From the last packet on
    Cqe,
}

impl From<Queue> for Moderation {
    fn from(Queue { period_mode, period, max_count }: Queue) -> Self {
        let mode = match period_mode {
            Mode::Event => PeriodMode::Event,
            Mode::Cqe => PeriodMode::Completion,
        };
        Self { mode, period, max_count }
    }
}

/// The settings, of which there must be one.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Device {
    /// A new MAC address, which no other function may have
    #[arg(short, long)]
    mac: Option<Mac>,
    /// A new MTU in bytes; that of a static PF is fixed
    #[arg(short = 't', long, value_parser = number::<Mtu>)]
    mtu: Option<Mtu>,
    /// The feature bits to offer from now on, in hexadecimal
    #[arg(short, long, value_parser = features)]
    features: Option<Features>,
    /// MSI-X vectors
    #[arg(short = 'n', long = "msix_num")]
    msix_num: Option<u16>,
    /// Descriptors a queue, a power of two
    #[arg(short = 'q', long = "max_queue_size", value_parser = number::<QueueSize>)]
    max_queue_size: Option<QueueSize>,
}

impl From<Device> for Change {
    fn from(device: Device) -> Self {
        let Device { mac, mtu, features, msix_num, max_queue_size } = device;
        Self { mac, mtu, features, num_msix: msix_num, queue_size: max_queue_size }
    }
}

/// Whom the controller is told to change, and how. Pure.
///
/// A VF that is not there takes the place of all that was prepared for it with what it is told; to change a setting must
/// leave the others, so they are told again.
fn plan(which: &Which, change: Change, state: &ControllerState) -> anyhow::Result<(Target, Change)> {
    let Some((pf, vf)) = which.vf_to_come(state) else {
        return Ok((which::target(which.find(state)?)?, change));
    };
    let before = state.prepared.get(&(pf, vf)).cloned().unwrap_or_default();
    let change = Change {
        mac: change.mac.or(before.mac),
        mtu: change.mtu.or(before.mtu),
        features: change.features.or(before.features),
        num_msix: change.num_msix.or(before.num_msix),
        queue_size: change.queue_size.or(before.queue_size),
    };
    Ok((Target::Vf(pf, vf), change))
}

/// Runs it.
pub(crate) async fn run(arguments: Arguments, service: &Client) -> anyhow::Result<String> {
    let Arguments { which, what } = arguments;
    let state = service.observe().await?;
    match what {
        What::Device(device) => {
            let (target, change) = plan(&which, device.into(), &state)?;
            service.modify(&target, &change).await?;
        }
        What::Queue(queue) => {
            generation::later(state.limits.generation, "modify … queue", "do without it")?;
            service.moderate(&which::target(which.find(&state)?)?, queue.into()).await?;
        }
    }
    output::done()
}
