//! What a file says of a function: [`Record`], with exactly the fields of the guide (section 1.1.3). Pure.

use serde::{Deserialize, Serialize};
use virtnet_model::{
    Bdf, EswitchPort, Feature, Function, FunctionId, FunctionKind, Mac, PfId, SfNumber, SubFunction, VfId,
    Vuid,
};

/// How the name of a file ends, after the VUID.
pub(crate) const SUFFIX: &str = ".json";

/// A function, as its file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The RDMA device that its SF was made on.
    pub(crate) port_ib_dev: String,
    /// The index of the PF, or of the PF that the VF belongs to.
    pub(crate) pf_id: PfId,
    /// The index of the VF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vf_id: Option<VfId>,
    pub(crate) function_type: FunctionType,
    /// The 16 bits of its address on the host's bus; 0 where the host has given none.
    pub(crate) bdf_raw: u16,
    /// A VF is of the type of its PF.
    pub(crate) device_type: DeviceType,
    pub(crate) mac: Mac,
    /// The port of the embedded switch, 0 or 1.
    pub(crate) pf_num: u8,
    pub(crate) sf_num: SfNumber,
    /// Whether it offers several pairs of queues, 0 or 1.
    pub(crate) mq: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FunctionType {
    Pf,
    Vf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DeviceType {
    Static,
    Hotplug,
}

impl Record {
    /// What is to be known of a function. `None`: it has no SF, and there is nothing to recover.
    pub(crate) fn of(function: &Function) -> Option<Self> {
        let SubFunction { port, number, parent, .. } = function.sf.as_ref()?;
        let FunctionId { pf, vf } = function.id;
        Some(Self {
            port_ib_dev: parent.clone(),
            pf_id: pf,
            vf_id: vf,
            function_type: if vf.is_some() { FunctionType::Vf } else { FunctionType::Pf },
            bdf_raw: function.bdf.map_or(0, Bdf::raw),
            device_type: match function.kind {
                FunctionKind::HotPlug => DeviceType::Hotplug,
                FunctionKind::Static | FunctionKind::Vf => DeviceType::Static,
            },
            mac: function.mac,
            pf_num: port.index(),
            sf_num: *number,
            mq: u8::from(function.features.contains(Feature::Mq)),
        })
    }

    /// The text of a file.
    pub(crate) fn text(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads the file of this name. An error says what is wrong with it.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let Self { pf_id, vf_id, function_type, device_type, pf_num, mq, port_ib_dev, .. } = &record;
        if (*function_type == FunctionType::Vf) != vf_id.is_some() {
            return Err("vf_id is that of a VF (function_type \"vf\"), and a VF has one".to_owned());
        }
        if vf_id.is_some() && *device_type == DeviceType::Hotplug {
            return Err("device_type: a hot-plugged PF has no VFs".to_owned());
        }
        if !EswitchPort::ALL.iter().any(|port| port.index() == *pf_num) {
            return Err(format!("pf_num: {pf_num} is not 0 or 1"));
        }
        if *mq > 1 {
            return Err(format!("mq: {mq} is not 0 or 1"));
        }
        if port_ib_dev.is_empty()
            || !port_ib_dev.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        {
            return Err(format!("port_ib_dev: {port_ib_dev:?} is not the name of an RDMA device"));
        }
        // A function's VUID tells what it is, except for the index of a hot-plugged one.
        let vuid = name.strip_suffix(SUFFIX).unwrap_or(name);
        let wanted = match (device_type, vf_id) {
            (DeviceType::Static, None) => Some(format!("VNETS0D0F{pf_id}")),
            (DeviceType::Static, Some(vf)) => Some(format!("VNETS0D0F{pf_id}VF{}", vf.get() + 1)),
            (DeviceType::Hotplug, _) => None,
        };
        match wanted {
            Some(wanted) if wanted != vuid => Err(format!("it is of {wanted}, and the file is named {name}")),
            None if vuid.starts_with("VNETS0D0") => {
                Err(format!("it is of a hot-plugged function, and the file is named {name}"))
            }
            _ => Ok(record),
        }
    }
}

/// The name of a function's file.
pub(crate) fn file_name(vuid: &Vuid) -> String {
    format!("{vuid}{SUFFIX}")
}

/// Whether a file of this name is one of a function.
pub(crate) fn is_record(name: &str) -> bool {
    name.strip_suffix(SUFFIX).is_some_and(|vuid| vuid.starts_with("VNETS") && vuid.parse::<Vuid>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guide's example.
    const GUIDE: &str = r#"{
"port_ib_dev": "mlx5_0",
"pf_id": 0,
"function_type": "pf",
"bdf_raw": 26624,
"device_type": "hotplug",
"mac": "0c:c4:7a:ff:22:93",
"pf_num": 0,
"sf_num": 2000,
"mq": 1
}"#;

    #[test]
    fn the_guides_example_is_read_and_written_back_with_its_fields() {
        let record = Record::parse("VNETS1D0F0.json", GUIDE.as_bytes()).unwrap();
        assert_eq!((record.bdf_raw, record.sf_num.get(), record.mq), (26624, 2000, 1));
        let written: serde_json::Value = serde_json::from_str(&record.text().unwrap()).unwrap();
        let guide: serde_json::Value = serde_json::from_str(GUIDE).unwrap();
        assert_eq!(written, guide);
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        let with = |from: &str, to: &str| {
            assert!(GUIDE.contains(from), "{from}");
            GUIDE.replace(from, to)
        };
        for (name, text, why) in [
            ("VNETS1D0F0.json", with("\"pf_id\": 0", "\"pf_id\": 0, \"x\": 1"), "unknown field `x`"),
            ("VNETS1D0F0.json", with("\"mq\": 1", "\"mq\": 2"), "mq: 2 is not 0 or 1"),
            ("VNETS1D0F0.json", with("\"pf_num\": 0", "\"pf_num\": 2"), "pf_num: 2 is not 0 or 1"),
            ("VNETS1D0F0.json", with("0c:c4", "0d:c4"), "is not a unicast MAC address"),
            ("VNETS1D0F0.json", with("\"pf\"", "\"vf\""), "vf_id is that of a VF"),
            ("VNETS1D0F0.json", with("hotplug", "static"), "it is of VNETS0D0F0"),
            ("VNETS0D0F0.json", GUIDE.to_owned(), "it is of a hot-plugged function"),
            ("VNETS1D0F0.json", with("mlx5_0", "../x"), "is not the name of an RDMA device"),
            ("VNETS1D0F0.json", with(",\n\"mq\": 1", ""), "missing field `mq`"),
        ] {
            let told = Record::parse(name, text.as_bytes()).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn every_byte_flipped_and_every_length_is_an_error_or_a_record() {
        let (bytes, mut refused) = (GUIDE.as_bytes(), 0);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.to_owned();
                flipped[at] ^= 1 << bit;
                refused += usize::from(Record::parse("VNETS1D0F0.json", &flipped).is_err());
            }
            Record::parse("VNETS1D0F0.json", &bytes[..at]).unwrap_err();
        }
        assert!(refused > 8 * bytes.len() * 3 / 4, "{refused}");
    }
}
