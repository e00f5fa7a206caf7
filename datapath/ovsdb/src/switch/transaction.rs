//! The one transaction that a list of changes makes: pure, from the mirror.
//!
//! Every operation that changes something that is there comes with a `wait` that fails the whole transaction where the
//! database is no longer what the mirror says; who makes a port meanwhile is told by the index on its name. So what is
//! committed is what was planned, or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};
use uuid::Uuid;
use virtnet_model::{BridgeName, IfName, Owner, PartError, Port, PortSettings, Refusal, SwitchChange};

use super::state::{Rows, interfaces, port};
use crate::column::{map, set, uuid};
use crate::mirror::Mirror;

/// A transaction and what is known of its changes before it is made.
#[derive(Debug)]
pub(super) struct Transaction {
    /// `<operation>*`, and for each the change that it belongs to. Empty: there is nothing to change.
    pub(super) operations: Vec<(Value, Option<usize>)>,
    /// For each change whether it can be made.
    pub(super) results: Vec<Result<(), PartError>>,
}

impl Transaction {
    /// Where the operations have the new `next_cfg` in their results: the last one's.
    pub(super) fn next_cfg(results: &[Value]) -> Option<i64> {
        results.last()?.get("rows")?.get(0)?.get("next_cfg")?.as_i64()
    }
}

/// What happens to a bridge's list of ports.
#[derive(Debug, Default)]
struct Ports {
    gone: Vec<Value>,
    new: Vec<Value>,
}

struct Builder<'m> {
    mirror: &'m Mirror,
    present: BTreeMap<&'m str, Rows<'m>>,
    bridges: BTreeMap<&'m str, Uuid>,
    /// The ports by name, bonds too, each with its bridge's.
    ports: BTreeMap<&'m str, &'m str>,
    operations: Vec<(Value, Option<usize>)>,
    lists: BTreeMap<Uuid, Ports>,
    /// Names that a change was planned for, and whether the port is there after it.
    planned: BTreeMap<&'m IfName, bool>,
}

/// Plans these changes. Those in `left_out` are not made: an earlier attempt showed that they can't be.
pub(super) fn plan<'m>(
    mirror: &'m Mirror,
    changes: &'m [SwitchChange],
    left_out: &BTreeSet<usize>,
) -> Transaction {
    let mut builder = Builder {
        mirror,
        present: interfaces(mirror),
        bridges: mirror.bridges.iter().map(|(row, bridge)| (bridge.name.as_str(), *row)).collect(),
        ports: ports(mirror),
        operations: Vec::new(),
        lists: BTreeMap::new(),
        planned: BTreeMap::new(),
    };
    let results = changes
        .iter()
        .enumerate()
        .map(|(index, change)| match change {
            _ if left_out.contains(&index) => Ok(()),
            SwitchChange::AddBridge { name, datapath_type } => builder.add_bridge(index, name, datapath_type),
            SwitchChange::RemovePort { name, owner } => {
                builder.remove(index, name, owner);
                Ok(())
            }
            SwitchChange::SetPort { name, settings } => builder.set(index, name, settings),
        })
        .collect();
    Transaction { operations: builder.finish(), results }
}

/// Whether the server would take these texts: where one has a NUL, it ends the connection, and so every other change too.
fn sendable<'t>(
    doing: fmt::Arguments<'_>,
    texts: impl IntoIterator<Item = &'t str>,
) -> Result<(), PartError> {
    match texts.into_iter().find(|text| text.contains('\0')) {
        None => Ok(()),
        Some(text) => {
            Err(PartError::failed(format!("{doing}: {text:?} has a NUL, which OVSDB has no place for")))
        }
    }
}

/// The columns of a port that tell its VLANs.
fn vlans(settings: &PortSettings) -> Value {
    json!({
        "tag": set(settings.tag.map(|tag| json!(tag.get()))),
        "trunks": set(settings.trunks.iter().map(|trunk| json!(trunk.get()))),
    })
}

fn ports(mirror: &Mirror) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    for bridge in mirror.bridges.values() {
        for port in bridge.ports.iter().filter_map(|port| mirror.ports.get(port)) {
            found.insert(port.name.as_str(), bridge.name.as_str());
        }
    }
    found
}

impl<'m> Builder<'m> {
    fn rows(&self, name: &IfName) -> Option<Rows<'m>> {
        self.present.get(name.as_str()).copied()
    }

    /// A bridge with its local port, as ovs-vsctl(8) makes one.
    fn add_bridge(&mut self, index: usize, name: &BridgeName, datapath_type: &str) -> Result<(), PartError> {
        sendable(format_args!("add bridge {name}"), [datapath_type])?;
        if self.bridges.contains_key(name.as_str()) {
            return Ok(());
        }
        if self.ports.contains_key(name.as_str()) || self.present.contains_key(name.as_str()) {
            let message = format!("add bridge {name}: a port has this name");
            return Err(PartError::refused(Refusal::PortConflict, message));
        }
        let row = |table: &str, id: &str, columns: Value| json!({"op": "insert", "table": table, "uuid-name": format!("{id}{index}"), "row": columns});
        let named = |id: &str| json!(["named-uuid", format!("{id}{index}")]);
        let name = name.as_str();
        self.push(Some(index), row("Interface", "interface", json!({"name": name, "type": "internal"})));
        self.push(Some(index), row("Port", "port", json!({"name": name, "interfaces": named("interface")})));
        let columns = json!({"name": name, "ports": named("port"), "datapath_type": datapath_type});
        self.push(Some(index), row("Bridge", "bridge", columns));
        let mutations = json!([["bridges", "insert", set([named("bridge")])]]);
        self.push(
            Some(index),
            json!({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": mutations}),
        );
        Ok(())
    }

    /// A port that is no longer this owner's is as good as removed.
    fn remove(&mut self, index: usize, name: &'m IfName, owner: &Owner) {
        let Some(rows) = self.rows(name) else { return };
        if port(&rows).and_then(|port| port.owner()).as_ref() != Some(owner) {
            return;
        }
        self.guard(index, &rows, owner);
        self.list(rows.bridge).gone.push(uuid(rows.port));
        self.planned.insert(name, false);
    }

    fn set(&mut self, index: usize, name: &'m IfName, settings: &PortSettings) -> Result<(), PartError> {
        let doing = format!("set port {name}");
        let ids = settings.external_ids.iter().flat_map(|(key, value)| [key.as_str(), value]);
        sendable(format_args!("{doing}"), ids.chain([settings.interface_type.as_str()]))?;
        let refused = |refusal, why: String| Err(PartError::refused(refusal, format!("{doing}: {why}")));
        let Some(bridge) = self.bridges.get(settings.bridge.as_str()).copied() else {
            return refused(Refusal::BridgeNotFound, format!("no bridge named {}", settings.bridge));
        };
        if self.bridges.contains_key(name.as_str()) {
            return refused(Refusal::PortConflict, "it is the local port of a bridge".to_owned());
        }
        let rows = match self.planned.get(name) {
            Some(true) => {
                return Err(PartError::failed(format!(
                    "{doing}: another change of this transaction makes it"
                )));
            }
            Some(false) => None,
            None => self.rows(name),
        };
        let Some((rows, present)) = rows.and_then(|rows| Some((rows, port(&rows)?))) else {
            // A bond has a name of its own, which no interface bears.
            if let Some(taken) = self.bond(name) {
                return refused(Refusal::PortConflict, format!("a bond of this name is on {taken}"));
            }
            self.make(index, name, settings, bridge);
            self.planned.insert(name, true);
            return Ok(());
        };
        let owner = match present.owner() {
            Some(owner) if owner.dpu == settings.owner.dpu => owner,
            Some(owner) => {
                let why = format!("a port of this name on {} is {owner}'s", present.bridge);
                return refused(Refusal::PortConflict, why);
            }
            None => {
                let why = format!("a port of this name on {} is not ours", present.bridge);
                return refused(Refusal::PortConflict, why);
            }
        };
        if !present.matches(settings) {
            self.guard(index, &rows, &owner);
            self.change(index, &rows, &present, settings, bridge);
        }
        self.planned.insert(name, true);
        Ok(())
    }

    /// The bridge that has a bond of this name.
    fn bond(&self, name: &IfName) -> Option<&'m str> {
        let gone = self.planned.get(name) == Some(&false);
        self.ports.get(name.as_str()).filter(|_| !gone).copied()
    }

    /// The interface must still be this owner's, and the only one of its port.
    fn guard(&mut self, index: usize, rows: &Rows<'_>, owner: &Owner) {
        let marks: BTreeMap<_, _> = owner.marks().into_iter().collect();
        self.push(
            Some(index),
            json!({
                "op": "wait",
                "timeout": 0,
                "table": "Interface",
                "where": [["_uuid", "==", uuid(rows.interface)], ["external_ids", "includes", map(&marks)]],
                "columns": ["name"],
                "until": "==",
                "rows": [{"name": rows.interface_row.name}],
            }),
        );
        self.push(
            Some(index),
            json!({
                "op": "wait",
                "timeout": 0,
                "table": "Port",
                "where": [["_uuid", "==", uuid(rows.port)]],
                "columns": ["interfaces"],
                "until": "==",
                "rows": [{"interfaces": uuid(rows.interface)}],
            }),
        );
    }

    fn make(&mut self, index: usize, name: &IfName, settings: &PortSettings, bridge: Uuid) {
        let (port, interface) = (format!("port{index}"), format!("interface{index}"));
        self.push(
            Some(index),
            json!({
                "op": "insert",
                "table": "Interface",
                "uuid-name": interface,
                "row": {
                    "name": name.as_str(),
                    "type": settings.interface_type,
                    "external_ids": map(&settings.marked_external_ids()),
                },
            }),
        );
        let mut row = vlans(settings);
        row["name"] = json!(name.as_str());
        row["interfaces"] = json!(["named-uuid", interface]);
        self.push(
            Some(index),
            json!({
                "op": "insert",
                "table": "Port",
                "uuid-name": port,
                "row": row,
            }),
        );
        self.list(bridge).new.push(json!(["named-uuid", port]));
    }

    /// Only what differs, and of a map only our keys.
    fn change(
        &mut self,
        index: usize,
        rows: &Rows<'_>,
        present: &Port,
        settings: &PortSettings,
        bridge: Uuid,
    ) {
        let row = |table: &str, row: Uuid, columns: Value| json!({"op": "update", "table": table, "where": [["_uuid", "==", uuid(row)]], "row": columns});
        if present.interface_type != settings.interface_type {
            let columns = json!({"type": settings.interface_type});
            self.push(Some(index), row("Interface", rows.interface, columns));
        }
        if !present.has_vlans_of(settings) {
            let columns = vlans(settings);
            self.push(Some(index), row("Port", rows.port, columns));
        }
        let wanted = settings.marked_external_ids();
        let gone =
            present.our_keys().into_iter().filter(|key| present.external_ids.get(*key) != wanted.get(*key));
        let new: BTreeMap<_, _> =
            wanted.iter().filter(|(key, value)| present.external_ids.get(*key) != Some(value)).collect();
        // An insertion leaves a key alone that is there, so it goes first. A foreign key that the user now sets is ours.
        let gone: BTreeSet<&str> = gone.chain(new.keys().map(|key| key.as_str())).collect();
        if !gone.is_empty() {
            self.push(
                Some(index),
                json!({
                    "op": "mutate",
                    "table": "Interface",
                    "where": [["_uuid", "==", uuid(rows.interface)]],
                    "mutations": [
                        ["external_ids", "delete", set(gone.iter().map(|key| json!(key)))],
                        ["external_ids", "insert", map(new)],
                    ],
                }),
            );
        }
        if rows.bridge != bridge {
            self.list(rows.bridge).gone.push(uuid(rows.port));
            self.list(bridge).new.push(uuid(rows.port));
        }
    }

    fn list(&mut self, bridge: Uuid) -> &mut Ports {
        self.lists.entry(bridge).or_default()
    }

    fn push(&mut self, change: Option<usize>, operation: Value) {
        self.operations.push((operation, change));
    }

    /// The bridges' lists, each in one operation, and `next_cfg` counted up and read back.
    fn finish(mut self) -> Vec<(Value, Option<usize>)> {
        for (bridge, Ports { gone, new }) in std::mem::take(&mut self.lists) {
            let Some(row) = self.mirror.bridges.get(&bridge) else { continue };
            self.push(
                None,
                json!({
                    "op": "wait",
                    "timeout": 0,
                    "table": "Bridge",
                    "where": [["_uuid", "==", uuid(bridge)], ["ports", "includes", set(gone.clone())]],
                    "columns": ["name"],
                    "until": "==",
                    "rows": [{"name": row.name}],
                }),
            );
            self.push(
                None,
                json!({
                    "op": "mutate",
                    "table": "Bridge",
                    "where": [["_uuid", "==", uuid(bridge)]],
                    "mutations": [["ports", "delete", set(gone)], ["ports", "insert", set(new)]],
                }),
            );
        }
        if !self.operations.is_empty() {
            let mutations = json!([["next_cfg", "+=", 1]]);
            self.push(
                None,
                json!({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": mutations}),
            );
            self.push(
                None,
                json!({"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]}),
            );
        }
        self.operations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: &str = "00000000-0000-0000-0000-00000000000b";
    const PORT: &str = "00000000-0000-0000-0000-00000000000a";
    const INTERFACE: &str = "00000000-0000-0000-0000-00000000000c";

    /// Whoever makes it a bond, moves it, or marks it otherwise meanwhile makes the transaction fail.
    #[test]
    fn what_is_removed_or_changed_must_still_be_what_was_seen() {
        let name: IfName = "en3f0pf0sf2000".parse().unwrap();
        let owner = Owner { dpu: "dpu-0".into(), device: "default/web".into(), uid: "u".into() };
        let mut mirror = Mirror::default();
        let tables = json!({
            "Bridge": {BRIDGE: {"initial": {"name": "ovsbr1", "ports": ["uuid", PORT]}}},
            "Port": {PORT: {"initial": {"name": name.as_str(), "interfaces": ["uuid", INTERFACE]}}},
            "Interface": {INTERFACE: {"initial": {"name": name.as_str(), "external_ids": map(&owner.marks())}}},
        });
        mirror.update(&tables).unwrap();
        let changes = [SwitchChange::RemovePort { name, owner }];
        let Transaction { operations, results } = plan(&mirror, &changes, &BTreeSet::new());
        assert!(results.iter().all(Result::is_ok));
        let waits =
            operations.iter().map(|(operation, _)| operation).filter(|operation| operation["op"] == "wait");
        let waits: BTreeMap<_, _> = waits.map(|wait| (wait["table"].as_str().unwrap(), wait)).collect();
        assert_eq!(waits["Interface"]["where"][1][0], json!("external_ids"));
        assert_eq!(waits["Port"]["rows"], json!([{"interfaces": ["uuid", INTERFACE]}]));
        assert_eq!(waits["Bridge"]["where"][1], json!(["ports", "includes", ["set", [["uuid", PORT]]]]));
    }
}
