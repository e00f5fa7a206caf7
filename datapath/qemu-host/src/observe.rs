//! What a host has, asked for: [`observe`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use virtnet_controller::Place;
use virtnet_model::{Features, Mac, Mtu, VfId};
use virtnet_qmp::{Qmp, QmpError};

use crate::config::HostConfig;
use crate::features;
use crate::pci::{self, PciFunction};
use crate::plan::Names;
use crate::state::{RxFilter, Seen};

/// What was found.
#[derive(Debug)]
pub(crate) struct Observation {
    /// The functions that the guest can see.
    pub(crate) functions: BTreeMap<Place, Seen>,
    /// The slots without a function that have a connection to a back end: a plug or an unplug was cut off.
    pub(crate) left_behind: BTreeSet<u16>,
}

/// Why a host could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// QEMU did not answer what was asked.
    #[error(transparent)]
    Asked(#[from] QmpError),
    /// It answered what makes no sense.
    #[error("reading QEMU's answer to {command}")]
    Answer {
        /// What was asked.
        command: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// A device that was named or plugged by a person or a program, whether or not the guest has found it.
#[derive(Debug)]
struct Device {
    /// Its id; empty where it has none.
    id: String,
    /// Its path in QEMU's tree of objects.
    path: String,
    /// The id of the port that it is in.
    port: String,
}

/// Asks for all that is to be known. Functions may come and go meanwhile: what is gone when it is asked for is unknown.
pub(crate) async fn observe(qmp: &Qmp, config: &HostConfig) -> Result<Observation, ObserveError> {
    // In this order: a function that goes between the two leaves its connection behind, and is seen here still.
    let chardevs = chardevs(qmp).await?;
    let devices = devices(qmp).await?;
    let tree = pci::functions(qmp.execute("query-pci", json!({})).await?)
        .map_err(|source| ObserveError::Answer { command: "query-pci", source })?;
    let mut functions = BTreeMap::new();
    let mut left_behind = BTreeSet::new();
    for (slot, port) in &config.slots {
        let names = Names::of(*slot);
        match devices.iter().find(|device| device.port == *port) {
            Some(device) => {
                let ours = device.id == names.device;
                functions.insert(Place::Slot(*slot), seen(qmp, device, &tree, ours).await?);
            }
            None if chardevs.contains(&names.chardev) => {
                left_behind.insert(*slot);
            }
            None => {}
        }
    }
    for (pf, id) in &config.static_pfs {
        let Some(device) = devices.iter().find(|device| device.id == *id) else { continue };
        functions.insert(Place::Static(*pf), seen(qmp, device, &tree, false).await?);
        for (index, vf) in (0u32..).zip(vfs(qmp, device, &devices).await?) {
            let Ok(index) = VfId::try_from(index) else { break };
            // Until a driver of the guest's takes it, its registers are nowhere: QEMU tells no VF that is enabled and has no driver from
            // one that is not.
            if tree.iter().any(|each| each.id == vf.id && each.mapped) {
                let features = features_of(qmp, vf).await?;
                let seen = Seen { features, ..seen(qmp, vf, &tree, false).await? };
                functions.insert(Place::Vf(*pf, index), seen);
            }
        }
    }
    Ok(Observation { functions, left_behind })
}

/// The devices in ports, whatever they are.
async fn devices(qmp: &Qmp) -> Result<Vec<Device>, ObserveError> {
    #[derive(Deserialize)]
    struct Child {
        name: String,
        #[serde(rename = "type")]
        kind: String,
    }
    let mut found = Vec::new();
    for (folder, named) in [("/machine/peripheral", true), ("/machine/peripheral-anon", false)] {
        let answer = qmp.execute("qom-list", json!({"path": folder})).await?;
        let children: Vec<Child> = serde_json::from_value(answer)
            .map_err(|source| ObserveError::Answer { command: "qom-list", source })?;
        for Child { name, kind } in children {
            // Ports are in ports of nobody's here.
            if !kind.starts_with("child<") || kind == "child<pcie-root-port>" {
                continue;
            }
            let path = format!("{folder}/{name}");
            let bus = property(qmp, &path, "parent_bus").await?;
            // A bus bears the name of its port.
            let port = bus.as_ref().and_then(|bus| bus.as_str()?.rsplit('/').next());
            if let Some(port) = port.map(str::to_owned) {
                found.push(Device { id: if named { name } else { String::new() }, path, port });
            }
        }
    }
    Ok(found)
}

/// The names of QEMU's connections.
pub(crate) async fn chardevs(qmp: &Qmp) -> Result<BTreeSet<String>, ObserveError> {
    #[derive(Deserialize)]
    struct Chardev {
        label: String,
    }
    let answer = qmp.execute("query-chardev", json!({})).await?;
    let chardevs: Vec<Chardev> = serde_json::from_value(answer)
        .map_err(|source| ObserveError::Answer { command: "query-chardev", source })?;
    Ok(chardevs.into_iter().map(|chardev| chardev.label).collect())
}

/// The VFs of a PF, the first one first, whether or not the guest has enabled them.
async fn vfs<'a>(qmp: &Qmp, pf: &Device, devices: &'a [Device]) -> Result<Vec<&'a Device>, QmpError> {
    let mut found = Vec::new();
    for each in devices.iter().filter(|each| each.port == pf.port && each.id != pf.id) {
        let of = property(qmp, &each.path, "sriov-pf").await?;
        if of.and_then(|of| of.as_str().map(|of| of == pf.id)) == Some(true) {
            // The device and function on their bus, which numbers them.
            let place = property(qmp, &each.path, "addr").await?.and_then(|addr| addr.as_i64());
            found.push((place, each));
        }
    }
    found.sort_by_key(|(place, _)| *place);
    Ok(found.into_iter().map(|(_, vf)| vf).collect())
}

async fn seen(qmp: &Qmp, device: &Device, tree: &[PciFunction], ours: bool) -> Result<Seen, QmpError> {
    let Device { id, path, port: _ } = device;
    let (mac, mtu, vectors, size, legacy, filter) = tokio::try_join!(
        property(qmp, path, "mac"),
        property(qmp, path, "host_mtu"),
        property(qmp, path, "vectors"),
        property(qmp, path, "rx_queue_size"),
        property(qmp, path, "disable-legacy"),
        known(qmp.execute("query-rx-filter", json!({"name": id}))),
    )?;
    let number = |value: Option<Value>| value?.as_u64().and_then(|value| u32::try_from(value).ok());
    // One without an id can't be told from others in the tree.
    let in_tree = tree.iter().find(|each| !id.is_empty() && each.id == *id);
    Ok(Seen {
        id: id.clone(),
        ours,
        bdf: in_tree.and_then(|each| each.bdf),
        transitional: legacy.and_then(|legacy| Some(legacy.as_str()? == "off")),
        mac: mac.and_then(|mac| mac.as_str()?.parse().ok()),
        mtu: number(mtu).and_then(|mtu| Mtu::try_from(mtu).ok()),
        vectors: number(vectors).and_then(|vectors| u16::try_from(vectors).ok()),
        queue_size: number(size).and_then(|size| u16::try_from(size).ok()),
        features: None,
        up: None,
        filter: filter.as_ref().and_then(rx_filter),
        unplugging: None,
    })
}

/// The features of a device, by its properties; `None` where it has gone. Any QEMU that has VFs tells all of them at once.
async fn features_of(qmp: &Qmp, device: &Device) -> Result<Option<Features>, ObserveError> {
    const COMMAND: &str = "qom-list-get";
    #[derive(Deserialize)]
    struct Object {
        properties: Vec<Property>,
    }
    #[derive(Deserialize)]
    struct Property {
        name: String,
        #[serde(default)]
        value: Value,
    }
    let Some(answer) = known(qmp.execute(COMMAND, json!({"paths": [device.path]}))).await? else {
        return Ok(None);
    };
    let objects: Vec<Object> =
        serde_json::from_value(answer).map_err(|source| ObserveError::Answer { command: COMMAND, source })?;
    let properties = objects.into_iter().flat_map(|object| object.properties);
    let properties: Map<String, Value> = properties.map(|property| (property.name, property.value)).collect();
    Ok(Some(features::of(&properties)))
}

/// A property of a device; `None` where it has gone, or is a device of another kind.
async fn property(qmp: &Qmp, path: &str, name: &str) -> Result<Option<Value>, QmpError> {
    known(qmp.execute("qom-get", json!({"path": path, "property": name}))).await
}

/// An answer; `None` where QEMU refused it.
async fn known(asked: impl Future<Output = Result<Value, QmpError>>) -> Result<Option<Value>, QmpError> {
    match asked.await {
        Err(error) if error.refused().is_some() => Ok(None),
        answer => answer.map(Some),
    }
}

/// The answer to `query-rx-filter` for one device.
fn rx_filter(answer: &Value) -> Option<RxFilter> {
    let filter = answer.as_array()?.first()?;
    let text = |key: &str| filter.get(key).and_then(Value::as_str);
    let vlans = filter.get("vlan-table").and_then(Value::as_array).into_iter().flatten();
    let vlans: Vec<u16> = vlans.filter_map(|vlan| u16::try_from(vlan.as_u64()?).ok()).collect();
    Some(RxFilter {
        mac: text("main-mac").and_then(|mac| mac.parse::<Mac>().ok()),
        promiscuous: filter.get("promiscuous").and_then(Value::as_bool)?,
        all_multicast: text("multicast") == Some("all"),
        vlans: (text("vlan") != Some("all")).then_some(vlans),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_and_another_answer_is_none() {
        let answer = json!([{
            "promiscuous": false, "name": "d0", "main-mac": "02:00:00:00:00:01", "unicast": "normal", "vlan": "normal",
            "vlan-table": [7, 4094], "unicast-table": [], "multicast": "all", "multicast-overflow": false,
            "unicast-overflow": false, "multicast-table": ["01:00:5e:00:00:01"], "broadcast-allowed": false,
        }]);
        let filter = rx_filter(&answer).unwrap();
        assert_eq!(filter.mac, "02:00:00:00:00:01".parse().ok());
        assert_eq!(
            (filter.promiscuous, filter.all_multicast, filter.vlans),
            (false, true, Some(vec![7, 4094]))
        );
        for answer in [json!([]), json!([{}]), json!({}), json!([{"promiscuous": 1}])] {
            assert_eq!(rx_filter(&answer), None, "{answer}");
        }
    }
}
