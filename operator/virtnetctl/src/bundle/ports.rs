//! The ports in Open vSwitch that bear our marks, and no others.

use anyhow::Context;
use serde_json::{Value, json};
use virtnet_model::{IfName, Owner, Port, Switch};
use virtnet_ovsdb::{Address, OvsSwitch};

use super::Part;
use crate::output::Data;

/// Reads those of a database: of this DPU, or of whatever one.
pub(crate) async fn read(address: Address, dpu: Option<&str>) -> anyhow::Result<Part> {
    let state = OvsSwitch::connect(address).observe().await.context("reading the ports")?;
    let ours: Vec<_> = state.ports.iter().filter(|(_, port)| is_ours(port, dpu)).map(row).collect();
    let holds = match ours.len() {
        1 => "1 port".to_owned(),
        count => format!("{count} ports"),
    };
    Ok(Part { text: Data::Yaml.render(&Value::Array(ours))?, holds })
}

fn is_ours(port: &Port, dpu: Option<&str>) -> bool {
    let marked = port.external_ids.keys().any(|key| key.starts_with(Owner::KEY_PREFIX));
    marked && dpu.is_none_or(|dpu| port.owner().is_none_or(|owner| owner.dpu == dpu))
}

/// A port with the keys that are ours. Others may hold what is nobody else's to know, so they are counted.
fn row((name, port): (&IfName, &Port)) -> Value {
    let our_keys = port.our_keys();
    let ours: serde_json::Map<_, _> = port
        .external_ids
        .iter()
        .filter(|(key, _)| our_keys.contains(key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect();
    json!({
        "name": name.as_str(),
        "bridge": port.bridge.to_string(),
        "type": port.interface_type,
        "tag": port.tag,
        "trunks": port.trunks,
        "ofport": port.ofport,
        "error": port.error,
        "foreignKeys": port.external_ids.len() - ours.len(),
        "externalIds": ours,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ids: &[(&str, &str)]) -> Port {
        Port {
            bridge: "ovsbr1".parse().unwrap(),
            interface_type: String::new(),
            tag: None,
            trunks: [].into(),
            external_ids: ids.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ofport: Some(1),
            error: None,
        }
    }

    #[test]
    fn only_marked_ports_and_only_our_keys_of_them() {
        let marks =
            [("virtnet-dpu", "a"), ("virtnet-device", "d/e"), ("virtnet-uid", "u"), ("iface-id", "x")];
        let ours = port(&marks);
        assert!(is_ours(&ours, None) && is_ours(&ours, Some("a")) && !is_ours(&ours, Some("b")));
        assert!(is_ours(&port(&marks[..1]), Some("b")), "a mark that is not whole is nobody's");
        assert!(!is_ours(&port(&marks[3..]), None));
        let row = row((&"en3f0pf0sf2000".parse().unwrap(), &ours));
        assert_eq!(row["foreignKeys"], 1);
        assert_eq!(
            row["externalIds"],
            json!({"virtnet-dpu": "a", "virtnet-device": "d/e", "virtnet-uid": "u"})
        );
    }
}
