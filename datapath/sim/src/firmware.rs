//! `mlxconfig` in memory: the settings that are known ([`FirmwareConfig`]), and the trait
//! [`virtnet_model::Firmware`] over them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use virtnet_model::{EswitchPort, Events, Firmware, FirmwareState, FirmwareValues, PartError};

use crate::effect::{Effect, Part};
use crate::shared::Shared;

/// A setting: its key, its default (the guide's section 1.3.1 block where it names the key), its greatest value, and
/// whether the second port's device has it too.
struct Setting {
    key: &'static str,
    default: &'static str,
    max: u32,
    second: bool,
}

const fn setting(key: &'static str, default: &'static str, max: u32) -> Setting {
    Setting { key, default, max, second: false }
}

const SETTINGS: &[Setting] = &[
    setting("INTERNAL_CPU_MODEL", "1", 1),
    setting("PF_BAR2_ENABLE", "0", 1),
    setting("PER_PF_NUM_SF", "1", 1),
    setting("PCI_SWITCH_EMULATION_ENABLE", "1", 1),
    setting("PCI_SWITCH_EMULATION_NUM_PORT", "16", 31),
    setting("VIRTIO_NET_EMULATION_ENABLE", "1", 1),
    setting("VIRTIO_NET_EMULATION_NUM_VF", "126", 256),
    setting("VIRTIO_NET_EMULATION_NUM_PF", "4", 32),
    setting("VIRTIO_NET_EMULATION_NUM_MSIX", "4", 2048),
    setting("VIRTIO_NET_EMULATION_NUM_VF_MSIX", "0", 2048),
    setting("VIRTIO_NET_EMULATION_VENDOR_ID", "0x1af4", 0xffff),
    setting("VIRTIO_NET_EMULATION_DEVICE_ID", "0x1041", 0xffff),
    setting("VIRTIO_NET_EMULATION_CLASS_CODE", "0x028000", 0x00ff_ffff),
    setting("VIRTIO_NET_EMULATION_PF_PCI_LAYOUT", "0", 1),
    setting("VIRTIO_NET_EMULATION_VF_PCI_LAYOUT", "0", 1),
    setting("VIRTIO_EMULATION_HOTPLUG_TRANS", "0", 1),
    setting("ECPF_ESWITCH_MANAGER", "1", 1),
    setting("ECPF_PAGE_SUPPLIER", "1", 1),
    setting("SRIOV_EN", "1", 1),
    Setting { key: "PF_SF_BAR_SIZE", default: "8", max: 20, second: true },
    Setting { key: "PF_TOTAL_SF", default: "508", max: 8192, second: true },
    setting("NUM_OF_VFS", "0", 127),
    setting("NUM_VF_MSIX", "0", 2048),
];

/// PF_TOTAL_SF of the second port in the guide.
const SECOND_TOTAL_SF: &str = "1";

/// A setting that can't be what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareError {
    /// No such key on the port's device.
    #[error("{port}/{key}: no such setting; there are {known}")]
    Unknown {
        /// The port.
        port: EswitchPort,
        /// The key as given.
        key: String,
        /// The keys of the port, with commas.
        known: String,
    },
    /// Not a number of the setting's range.
    #[error("{port}/{key}={value}: not a number from 0 to {max}, decimal or with 0x")]
    OutOfRange {
        /// The port.
        port: EswitchPort,
        /// The key.
        key: String,
        /// The value as given.
        value: String,
        /// The greatest value.
        max: u32,
    },
    /// No `KEY=VALUE` at all.
    #[error("{0:?}: want KEY=VALUE, or p1/KEY=VALUE for the second port")]
    Malformed(String),
}

/// Valid firmware settings of both ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareConfig(BTreeMap<EswitchPort, FirmwareValues>);

impl FirmwareConfig {
    /// The guide's section 1.3.1 block.
    pub fn guide() -> Self {
        let values = |port| {
            SETTINGS
                .iter()
                .filter(|setting| port == EswitchPort::P0 || setting.second)
                .map(|setting| (setting.key.to_owned(), setting.default.to_owned()))
                .collect::<FirmwareValues>()
        };
        let mut second = values(EswitchPort::P1);
        second.insert("PF_TOTAL_SF".to_owned(), SECOND_TOTAL_SF.to_owned());
        Self([(EswitchPort::P0, values(EswitchPort::P0)), (EswitchPort::P1, second)].into())
    }

    /// The guide's block with other values: `KEY=VALUE,…`, where `p1/KEY=VALUE` is the second port's. Empty: none.
    pub fn guide_with(overrides: &str) -> Result<Self, FirmwareError> {
        let mut config = Self::guide();
        for item in overrides.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            config.set_from(item)?;
        }
        Ok(config)
    }

    /// One value, as `KEY=VALUE` or `p1/KEY=VALUE`.
    pub fn set_from(&mut self, item: &str) -> Result<(), FirmwareError> {
        let malformed = || FirmwareError::Malformed(item.to_owned());
        let (key, value) = item.split_once('=').ok_or_else(malformed)?;
        let (port, key) = match key.split_once('/') {
            None => (EswitchPort::P0, key),
            Some((port, key)) => (port.parse().map_err(|_| malformed())?, key),
        };
        self.set(port, key.trim(), value.trim())
    }

    /// One value of a port.
    pub fn set(&mut self, port: EswitchPort, key: &str, value: &str) -> Result<(), FirmwareError> {
        let value = check(port, key, value)?;
        self.0.entry(port).or_default().insert(key.to_owned(), value);
        Ok(())
    }

    pub(crate) fn values(&self) -> &BTreeMap<EswitchPort, FirmwareValues> {
        &self.0
    }
}

impl Default for FirmwareConfig {
    fn default() -> Self {
        Self::guide()
    }
}

/// The value in the form in which it is kept: decimal as decimal, hexadecimal in lower case.
fn check(port: EswitchPort, key: &str, value: &str) -> Result<String, FirmwareError> {
    let on_port = |setting: &&Setting| port == EswitchPort::P0 || setting.second;
    let Some(setting) = SETTINGS.iter().filter(on_port).find(|setting| setting.key == key) else {
        let known: Vec<_> = SETTINGS.iter().filter(on_port).map(|setting| setting.key).collect();
        return Err(FirmwareError::Unknown { port, key: key.to_owned(), known: known.join(", ") });
    };
    let (number, kept) = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) => (u32::from_str_radix(digits, 16).ok(), format!("0x{}", digits.to_lowercase())),
        None => (value.parse::<u32>().ok(), value.to_owned()),
    };
    // What the controller counts with is kept as plain decimal.
    let kept = match number {
        Some(number) if !setting.default.starts_with("0x") => number.to_string(),
        _ => kept,
    };
    match number.filter(|number| *number <= setting.max) {
        Some(_) => Ok(kept),
        None => Err(FirmwareError::OutOfRange {
            port,
            key: key.to_owned(),
            value: value.to_owned(),
            max: setting.max,
        }),
    }
}

/// `mlxconfig` of the simulated DPU.
#[derive(Debug)]
pub(crate) struct SimFirmware(pub(crate) Arc<Shared>);

#[async_trait]
impl Firmware for SimFirmware {
    async fn observe(&self) -> Result<BTreeMap<EswitchPort, FirmwareState>, PartError> {
        self.0.observe(Part::Firmware, |world| Ok(world.firmware.clone()))
    }

    async fn set(&self, port: EswitchPort, values: &FirmwareValues) -> Result<(), PartError> {
        let doing = format!("set firmware of {port}");
        self.0
            .perform(Effect::FirmwareSet, |world| {
                world.reachable(&doing)?;
                let mut checked = FirmwareValues::new();
                for (key, value) in values {
                    let value = check(port, key, value)
                        .map_err(|error| PartError::failed(doing.clone()).caused_by(error))?;
                    checked.insert(key.clone(), value);
                }
                world.firmware.entry(port).or_default().next_boot.extend(checked);
                world.touch(Part::Firmware);
                Ok(())
            })
            .await
    }

    fn events(&self) -> Events {
        self.0.events(Part::Firmware)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_guides_block() {
        let config = FirmwareConfig::guide();
        let value = |port, key: &str| config.values()[&port][key].clone();
        for (key, expected) in [
            ("PCI_SWITCH_EMULATION_NUM_PORT", "16"),
            ("VIRTIO_NET_EMULATION_NUM_VF", "126"),
            ("VIRTIO_NET_EMULATION_NUM_PF", "4"),
            ("VIRTIO_NET_EMULATION_NUM_MSIX", "4"),
            ("PF_TOTAL_SF", "508"),
            ("VIRTIO_NET_EMULATION_VENDOR_ID", "0x1af4"),
        ] {
            assert_eq!(value(EswitchPort::P0, key), expected, "{key}");
        }
        assert_eq!(value(EswitchPort::P1, "PF_TOTAL_SF"), "1");
    }

    #[test]
    fn overrides_are_taken_by_port_and_kept_in_one_form() {
        let config = FirmwareConfig::guide_with(
            "PF_TOTAL_SF=0x20c, p1/PF_TOTAL_SF=64,VIRTIO_NET_EMULATION_VENDOR_ID=0X1AF4",
        )
        .unwrap();
        assert_eq!(config.values()[&EswitchPort::P0]["PF_TOTAL_SF"], "524");
        assert_eq!(config.values()[&EswitchPort::P1]["PF_TOTAL_SF"], "64");
        assert_eq!(config.values()[&EswitchPort::P0]["VIRTIO_NET_EMULATION_VENDOR_ID"], "0x1af4");
        assert_eq!(FirmwareConfig::guide_with("").unwrap(), FirmwareConfig::guide());
    }

    #[test]
    fn bad_overrides_are_named() {
        for (text, part) in [
            ("TURBO=1", "p0/TURBO: no such setting; there are INTERNAL_CPU_MODEL"),
            ("p1/SRIOV_EN=1", "p1/SRIOV_EN: no such setting; there are PF_SF_BAR_SIZE, PF_TOTAL_SF"),
            ("SRIOV_EN=2", "p0/SRIOV_EN=2: not a number from 0 to 1"),
            ("PF_TOTAL_SF=many", "not a number from 0 to 8192"),
            ("PF_TOTAL_SF", "want KEY=VALUE"),
            ("p2/PF_TOTAL_SF=1", "want KEY=VALUE"),
        ] {
            let error = FirmwareConfig::guide_with(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
