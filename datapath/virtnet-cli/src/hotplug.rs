//! `virtnet hotplug`: makes a function (the guide, section 1.2.2).

use serde::Serialize;
use virtnet_model::{
    Controller, Features, Function, HotplugRequest, IfName, Mac, Mtu, PfId, QueueSize, SfNumber, Vuid,
};
use virtnet_rpc::method::Health;
use virtnet_rpc::{Client, method};

use crate::value::{features_or_default, number};
use crate::{device, output, uplink};

const EXAMPLES: &str = "\
Examples:
  virtnet hotplug -i mlx5_0 -f 0x0 -m 0C:C4:7A:FF:22:93 -t 1500 -n 3 -s 1024
  virtnet hotplug -i mlx5_0 -f 0x0 -m 0C:C4:7A:FF:22:93 -t 1500 -n 3 -s 1024 -l   For drivers of virtio 0.95 too

The reply names the representor, which goes onto a bridge:
  ip link set dev en3f0pf0sf2000 up
  ovs-vsctl add-port <bridge> en3f0pf0sf2000";

/// What `hotplug` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The RDMA device of the uplink: mlx5_0, mlx5_1 or with LAG mlx5_bond_0, unless configured otherwise
    #[arg(short, long = "ib_device")]
    ib_device: String,
    /// The feature bits to offer, in hexadecimal; 0x0 or none: the controller's default
    #[arg(short, long, value_parser = features_or_default)]
    features: Option<Features>,
    /// The MAC address, which no other function may have
    #[arg(short, long)]
    mac: Mac,
    /// The MTU in bytes
    #[arg(short = 't', long, value_parser = number::<Mtu>)]
    mtu: Mtu,
    /// Virtqueues, the control queue included: fewer than the MSI-X vectors, at most max_virtq of virtnet list
    #[arg(short = 'n', long = "max_queues")]
    max_queues: u16,
    /// Descriptors a queue, a power of two
    #[arg(short = 's', long = "max_queue_size", value_parser = number::<QueueSize>)]
    max_queue_size: QueueSize,
    /// The number of the SF [default: the next free from 2000]
    #[arg(short = 'u', long = "sf_num", value_parser = number::<SfNumber>)]
    sf_num: Option<SfNumber>,
    /// Make it transitional: usable by legacy drivers
    #[arg(short, long)]
    legacy: bool,
}

/// The reply.
#[derive(Debug, Serialize)]
struct Reply<'a> {
    bdf: String,
    vuid: &'a Vuid,
    id: PfId,
    transitional: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    sf_rep_net_device: Option<&'a IfName>,
    mac: String,
}

impl<'a> Reply<'a> {
    fn of(function: &'a Function) -> Self {
        Self {
            bdf: device::bdf(function.bdf),
            vuid: &function.vuid,
            id: function.id.pf,
            transitional: function.transitional.into(),
            sf_rep_net_device: function.sf.as_ref().map(|sf| &sf.representor),
            mac: device::mac(function.mac),
        }
    }
}

/// Runs it.
pub(crate) async fn run(arguments: Arguments, service: &Client) -> anyhow::Result<String> {
    let Arguments { ib_device, features, mac, mtu, max_queues, max_queue_size, sf_num, legacy } = arguments;
    let Health { rdma_devices, .. } = service.call(method::HEALTH, &()).await?;
    let request = HotplugRequest {
        uplink: uplink::of(&ib_device, &rdma_devices, &service.observe().await?)?,
        mtu,
        features: features.filter(|features| *features != Features::default()),
        transitional: legacy,
        sf_number: sf_num,
        ..HotplugRequest::new(mac, max_queues, max_queue_size)
    };
    output::json(&Reply::of(&service.hotplug(&request).await?))
}
