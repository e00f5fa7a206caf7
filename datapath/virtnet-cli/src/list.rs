//! `virtnet list`: what the controller allows, and all functions in brief.

use serde::Serialize;
use virtnet_model::{Controller, ControllerState, IfName, QueueSize};
use virtnet_rpc::Client;

use crate::device::{Device, FeatureSet};
use crate::{netdev, output, uplink};

const EXAMPLES: &str = "\
Examples:
  virtnet list
  virtnet list | jq -r '.devices[] | [.vuid, .bdf, .sf_rep_net_device] | @tsv'";

/// What `list` is told: nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {}

#[derive(Debug, Serialize)]
struct List<'a> {
    controller: Limits<'a>,
    devices: Vec<Device<'a>>,
}

#[derive(Debug, Serialize)]
struct Limits<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    emulation_manager: Option<&'a str>,
    max_hotplug_devices: u16,
    /// PFs and VFs of all kinds together.
    max_virt_net_devices: u32,
    max_virtq: u16,
    max_queue_size: QueueSize,
    supported_features: FeatureSet,
    /// The setting that waits for a restart of the controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_required: Option<&'a str>,
}

impl<'a> List<'a> {
    fn of(state: &'a ControllerState, ifindex: &dyn Fn(&IfName) -> Option<u32>) -> Self {
        let limits = &state.limits;
        let static_pfs = u32::from(limits.static_pfs);
        let controller = Limits {
            emulation_manager: uplink::emulation_manager(state),
            max_hotplug_devices: limits.hotplug_slots,
            max_virt_net_devices: u32::from(limits.hotplug_slots)
                + static_pfs
                + static_pfs * u32::from(limits.vfs_per_pf),
            max_virtq: limits.max_virtq,
            max_queue_size: limits.max_queue_size,
            supported_features: FeatureSet::of(&limits.features),
            restart_required: state.restart_required.as_deref(),
        };
        let devices = state.functions.values().map(|function| Device::of(function, ifindex)).collect();
        Self { controller, devices }
    }
}

/// Runs it.
pub(crate) async fn run(service: &Client) -> anyhow::Result<String> {
    output::json(&List::of(&service.observe().await?, &netdev::ifindex))
}
