//! What a host has, asked for: [`observe`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};
use virtnet_controller::Place;
use virtnet_model::{Mac, Mtu, VfId};
use virtnet_qmp::{Qmp, QmpError};

use crate::config::HostConfig;
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

/// Asks for all that is to be known. Functions may come and go meanwhile: what is gone when it is asked for is unknown.
pub(crate) async fn observe(qmp: &Qmp, config: &HostConfig) -> Result<Observation, ObserveError> {
    // In this order: a function that goes between the two leaves its connection behind, and is seen here still.
    let chardevs = chardevs(qmp).await?;
    let tree = pci::functions(qmp.execute("query-pci", json!({})).await?)
        .map_err(|source| ObserveError::Answer { command: "query-pci", source })?;
    let mut functions = BTreeMap::new();
    let mut left_behind = BTreeSet::new();
    for (slot, port) in &config.slots {
        let names = Names::of(*slot);
        let in_port = tree.iter().filter(|each| each.port.as_deref() == Some(port));
        match in_port.min_by_key(|each| each.devfn) {
            Some(found) => {
                let ours = found.id == names.device;
                functions.insert(Place::Slot(*slot), seen(qmp, found, ours).await?);
            }
            None if chardevs.contains(&names.chardev) => {
                left_behind.insert(*slot);
            }
            None => {}
        }
    }
    for (pf, id) in &config.static_pfs {
        let Some(found) = tree.iter().find(|each| each.id == *id) else { continue };
        functions.insert(Place::Static(*pf), seen(qmp, found, false).await?);
        for (index, vf) in (0u32..).zip(vfs(qmp, found, &tree).await?) {
            let Ok(index) = VfId::try_from(index) else { break };
            // One that the guest has not enabled it can't see.
            if vf.mapped {
                functions.insert(Place::Vf(*pf, index), seen(qmp, vf, false).await?);
            }
        }
    }
    Ok(Observation { functions, left_behind })
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
async fn vfs<'a>(
    qmp: &Qmp,
    pf: &PciFunction,
    tree: &'a [PciFunction],
) -> Result<Vec<&'a PciFunction>, QmpError> {
    let mut found = Vec::new();
    for each in tree {
        if each.device.is_none() && each.port == pf.port && !each.id.is_empty() {
            let of = property(qmp, &each.id, "sriov-pf").await?;
            if of.and_then(|of| of.as_str().map(|of| of == pf.id)) == Some(true) {
                found.push(each);
            }
        }
    }
    found.sort_by_key(|each| each.devfn);
    Ok(found)
}

async fn seen(qmp: &Qmp, found: &PciFunction, ours: bool) -> Result<Seen, QmpError> {
    let PciFunction { id, port: _, bdf, devfn: _, device, mapped: _ } = found;
    // Who put it there without a name can't have it asked for.
    let (mac, mtu, vectors, size, filter) = if id.is_empty() {
        (None, None, None, None, None)
    } else {
        tokio::try_join!(
            property(qmp, id, "mac"),
            property(qmp, id, "host_mtu"),
            property(qmp, id, "vectors"),
            property(qmp, id, "rx_queue_size"),
            known(qmp.execute("query-rx-filter", json!({"name": id}))),
        )?
    };
    let number = |value: Option<Value>| value?.as_u64().and_then(|value| u32::try_from(value).ok());
    Ok(Seen {
        id: id.clone(),
        ours,
        bdf: *bdf,
        device_id: *device,
        mac: mac.and_then(|mac| mac.as_str()?.parse().ok()),
        mtu: number(mtu).and_then(|mtu| Mtu::try_from(mtu).ok()),
        vectors: number(vectors).and_then(|vectors| u16::try_from(vectors).ok()),
        queue_size: number(size).and_then(|size| u16::try_from(size).ok()),
        up: None,
        filter: filter.as_ref().and_then(rx_filter),
        unplugging: None,
    })
}

/// A property of a device; `None` where it has gone, or is a device of another kind.
async fn property(qmp: &Qmp, id: &str, name: &str) -> Result<Option<Value>, QmpError> {
    let path = format!("/machine/peripheral/{id}");
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
