//! Which uplink an RDMA device is of. Pure.
//!
//! The service tells the names that its configuration gives. Where it does not, each function tells the device that its SF was
//! made on, and an uplink that has no function yet has its default name.

use std::collections::BTreeMap;

use anyhow::bail;
use virtnet_model::{ControllerState, EswitchPort, Uplink};

/// The uplink of the RDMA device, by what is configured and seen.
pub(crate) fn of(
    rdma_device: &str,
    configured: &BTreeMap<Uplink, String>,
    state: &ControllerState,
) -> anyhow::Result<Uplink> {
    let uplinks = &state.limits.uplinks;
    let name = |uplink| configured.get(&uplink).map_or_else(|| seen_name(state, uplink), String::as_str);
    if let Some(uplink) = uplinks.iter().find(|uplink| name(**uplink) == rdma_device) {
        return Ok(*uplink);
    }
    let names: Vec<_> = uplinks.iter().map(|uplink| format!("{} ({uplink})", name(*uplink))).collect();
    // A bond may have been made, or taken apart, since the controller started.
    let pending = state.restart_required.as_ref().map_or_else(String::new, |why| format!("; {why}"));
    bail!("no uplink has the RDMA device {rdma_device:?}: there is {}{pending}", names.join(" and "))
}

/// The RDMA device that emulates: that of the first port, or of the bond that takes its SFs. `None`: nothing tells it.
pub(crate) fn emulation_manager(state: &ControllerState) -> Option<&str> {
    seen(state, EswitchPort::P0)
}

fn seen_name(state: &ControllerState, uplink: Uplink) -> &str {
    seen(state, uplink.port()).unwrap_or(match uplink {
        Uplink::P0 => "mlx5_0",
        Uplink::P1 => "mlx5_1",
        Uplink::Bond => "mlx5_bond_0",
    })
}

/// The RDMA device that SFs of the port were made on.
fn seen(state: &ControllerState, port: EswitchPort) -> Option<&str> {
    let sfs = state.functions.values().filter_map(|function| function.sf.as_ref());
    sfs.into_iter().find(|sf| sf.port == port).map(|sf| sf.parent.as_str())
}
