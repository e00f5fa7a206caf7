//! QEMU's tree of PCI devices, as `query-pci` answers it: [`functions`]. What is behind a root port is in it only once the guest has
//! numbered the port's bus: after a reset it is not, so that this tells where a function is and never whether it is there.

use serde::Deserialize;
use serde_json::Value;
use virtnet_model::Bdf;

/// A function on some bus of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PciFunction {
    /// Its id in QEMU; empty where it has none.
    pub(crate) id: String,
    /// Its address; `None` until the guest has numbered the bus.
    pub(crate) bdf: Option<Bdf>,
    /// Whether the guest reaches its registers.
    pub(crate) mapped: bool,
}

#[derive(Deserialize)]
struct Bus {
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    bus: u8,
    slot: u8,
    function: u8,
    #[serde(default)]
    qdev_id: String,
    #[serde(default)]
    regions: Vec<Region>,
    pci_bridge: Option<Bridge>,
}

#[derive(Deserialize)]
struct Region {
    address: i64,
}

#[derive(Deserialize)]
struct Bridge {
    #[serde(default)]
    devices: Vec<Device>,
}

/// Every function of the answer, bridges included.
///
/// # Errors
/// Where it is none of `query-pci`.
pub(crate) fn functions(answer: Value) -> Result<Vec<PciFunction>, serde_json::Error> {
    let buses: Vec<Bus> = serde_json::from_value(answer)?;
    let mut found = Vec::new();
    for bus in buses {
        walk(bus.devices, false, &mut found);
    }
    Ok(found)
}

/// The depth has its bound: that of JSON texts which are taken at all.
fn walk(devices: Vec<Device>, behind: bool, found: &mut Vec<PciFunction>) {
    for Device { bus, slot, function, qdev_id, regions, pci_bridge } in devices {
        let devfn = (slot & 0x1f) << 3 | function & 7;
        // Behind a bridge there is no bus 0 but the one that nobody has numbered yet.
        let numbered = !behind || bus != 0;
        let bdf = numbered.then(|| Bdf::from_raw(u16::from(bus) << 8 | u16::from(devfn))).flatten();
        let mapped = regions.iter().any(|region| region.address != -1);
        found.push(PciFunction { id: qdev_id, bdf, mapped });
        if let Some(bridge) = pci_bridge {
            walk(bridge.devices, true, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device(bus: u8, slot: u8, function: u8, id: &str, ids: (u32, u32), address: i64) -> Value {
        json!({
            "bus": bus, "slot": slot, "function": function, "qdev_id": id, "irq_pin": 1,
            "class_info": {"class": 512, "desc": "Ethernet controller"},
            "id": {"vendor": ids.0, "device": ids.1}, "regions": [{"bar": 4, "address": address, "size": 16384}],
        })
    }

    fn tree(secondary: u8) -> Value {
        let mut port = device(0, 2, 0, "rp1", (0x1b36, 12), 4096);
        let behind = [
            device(secondary, 0, 0, "pf0", (0x1af4, 0x1041), 8192),
            device(secondary, 0, 1, "vf0", (0xffff, 0xffff), 16384),
            device(secondary, 0, 2, "vf1", (0xffff, 0xffff), -1),
        ];
        port["pci_bridge"] = json!({"bus": {"number": 0, "secondary": secondary}, "devices": behind});
        json!([{"bus": 0, "devices": [device(0, 31, 2, "", (0x8086, 0x2922), -1), port]}])
    }

    #[test]
    fn functions_are_found_behind_ports_too() {
        let found = functions(tree(3)).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|each| {
                let bdf = each.bdf.map(|bdf| bdf.to_string()).unwrap_or_default();
                (each.id.as_str(), bdf, each.mapped)
            })
            .collect();
        assert_eq!(
            told,
            [
                ("", "00:1f.2".to_owned(), false),
                ("rp1", "00:02.0".to_owned(), true),
                ("pf0", "03:00.0".to_owned(), true),
                ("vf0", "03:00.1".to_owned(), true),
                ("vf1", "03:00.2".to_owned(), false),
            ]
        );
    }

    #[test]
    fn a_bus_that_nobody_has_numbered_gives_no_address() {
        let found = functions(tree(0)).unwrap();
        assert_eq!(found.iter().filter(|each| each.bdf.is_none()).count(), 3);
    }

    #[test]
    fn what_is_no_tree_is_an_error() {
        for answer in [json!({}), json!([{}]), json!([{"bus": 0, "devices": [{"bus": 300}]}]), json!(null)] {
            assert!(functions(answer.clone()).is_err(), "{answer}");
        }
    }
}
