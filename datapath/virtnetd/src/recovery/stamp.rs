//! What the files of a folder are of: [`Stamp`]. Pure, but for the identity of this boot.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use virtnet_controller::Profile;
use virtnet_model::EswitchPort;

/// The name of its file. It begins with a dot, as no function's does.
pub(crate) const FILE: &str = ".stamp";

/// The settings on which slots and indices depend (the guide, section 1.1.3), and since when the device has power.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stamp {
    #[serde(rename = "PCI_SWITCH_EMULATION_NUM_PORT")]
    num_port: String,
    #[serde(rename = "VIRTIO_NET_EMULATION_NUM_VF")]
    num_vf: String,
    #[serde(rename = "VIRTIO_NET_EMULATION_NUM_PF")]
    num_pf: String,
    /// Another one after each power cycle.
    power_on: String,
}

impl Stamp {
    /// That of a device now.
    pub(crate) fn of(profile: &Profile, power_on: String) -> Self {
        let values = profile.firmware.get(&EswitchPort::P0);
        let value =
            |key: &str| values.and_then(|values| values.get(key)).cloned().unwrap_or_else(|| "0".to_owned());
        Self {
            num_port: value("PCI_SWITCH_EMULATION_NUM_PORT"),
            num_vf: value("VIRTIO_NET_EMULATION_NUM_VF"),
            num_pf: value("VIRTIO_NET_EMULATION_NUM_PF"),
            power_on,
        }
    }

    /// Why files of this stamp are stale on a device of the other; `None`: they are not.
    pub(crate) fn staleness(&self, now: &Self) -> Option<String> {
        let mut why = String::new();
        for (key, then, now) in [
            ("PCI_SWITCH_EMULATION_NUM_PORT", &self.num_port, &now.num_port),
            ("VIRTIO_NET_EMULATION_NUM_VF", &self.num_vf, &now.num_vf),
            ("VIRTIO_NET_EMULATION_NUM_PF", &self.num_pf, &now.num_pf),
        ] {
            if then != now {
                let separator = if why.is_empty() { "" } else { ", " };
                // Writing to a text does not fail.
                let _ = write!(why, "{separator}{key} was {then} and is {now}");
            }
        }
        if why.is_empty() && self.power_on != now.power_on {
            why = "there was a power cycle".to_owned();
        }
        (!why.is_empty()).then_some(why)
    }
}

/// What tells this boot of the machine from others.
pub(crate) fn this_boot() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(num_port: &str, num_vf: &str, power_on: &str) -> Stamp {
        Stamp {
            num_port: num_port.to_owned(),
            num_vf: num_vf.to_owned(),
            num_pf: "4".to_owned(),
            power_on: power_on.to_owned(),
        }
    }

    #[test]
    fn a_change_of_what_indices_depend_on_and_a_power_cycle_make_files_stale() {
        let now = stamp("16", "126", "a");
        assert_eq!(now.staleness(&now), None);
        let told = stamp("8", "0", "b").staleness(&now).unwrap();
        assert_eq!(
            told,
            "PCI_SWITCH_EMULATION_NUM_PORT was 8 and is 16, VIRTIO_NET_EMULATION_NUM_VF was 0 and is 126"
        );
        assert_eq!(stamp("16", "126", "b").staleness(&now).unwrap(), "there was a power cycle");
    }
}
