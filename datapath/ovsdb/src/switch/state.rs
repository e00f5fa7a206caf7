//! What the mirror says of bridges and ports, as the agent knows a switch.

use std::collections::BTreeMap;

use uuid::Uuid;
use virtnet_model::{BridgeName, IfName, Port, SwitchState};

use crate::mirror::Mirror;
use crate::tables;

/// A port whose one interface bears its name: what ovs-vsctl(8) calls a port that is no bond.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'m> {
    pub(super) bridge: Uuid,
    pub(super) bridge_name: &'m str,
    pub(super) port: Uuid,
    pub(super) port_row: &'m tables::Port,
    pub(super) interface: Uuid,
    pub(super) interface_row: &'m tables::Interface,
}

impl Rows<'_> {
    fn is_plain(&self) -> bool {
        self.port_row.interfaces.len() == 1 && self.port_row.name == self.interface_row.name
    }
}

/// Every interface that is on a bridge, with its rows. The name is unique: the schema has an index on it.
pub(super) fn interfaces(mirror: &Mirror) -> BTreeMap<&str, Rows<'_>> {
    let mut found = BTreeMap::new();
    for (bridge, bridge_row) in &mirror.bridges {
        for port in &bridge_row.ports {
            let Some(port_row) = mirror.ports.get(port) else { continue };
            for interface in &port_row.interfaces {
                let Some(interface_row) = mirror.interfaces.get(interface) else { continue };
                let rows = Rows {
                    bridge: *bridge,
                    bridge_name: &bridge_row.name,
                    port: *port,
                    port_row,
                    interface: *interface,
                    interface_row,
                };
                found.insert(interface_row.name.as_str(), rows);
            }
        }
    }
    found
}

/// A port as the agent knows it. A member of a bond bears nobody's marks, whatever its row says: it is its bond's.
pub(super) fn port(rows: &Rows<'_>) -> Option<Port> {
    let Rows { bridge_name, port_row, interface_row, .. } = rows;
    let number = |number: &i64| u16::try_from(*number).ok();
    Some(Port {
        bridge: bridge_name.parse().ok()?,
        interface_type: interface_row.kind.clone(),
        tag: port_row.tag.as_ref().and_then(number),
        trunks: port_row.trunks.iter().filter_map(number).collect(),
        external_ids: if rows.is_plain() { interface_row.external_ids.clone() } else { BTreeMap::new() },
        ofport: interface_row.ofport.and_then(|ofport| i32::try_from(ofport).ok()),
        error: interface_row.error.clone(),
    })
}

/// All of it. A name that no netdev can have, such as a patch port's, can't be asked for either, and is left out.
pub(super) fn state(mirror: &Mirror) -> SwitchState {
    let bridges =
        mirror.bridges.values().filter_map(|bridge| bridge.name.parse::<BridgeName>().ok()).collect();
    let ports = interfaces(mirror)
        .iter()
        .filter_map(|(name, rows)| Some((name.parse::<IfName>().ok()?, port(rows)?)))
        .collect();
    SwitchState { bridges, ports }
}
