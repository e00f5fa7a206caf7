//! [`HostConfig`]: how a guest was started, as far as its functions go. [`Backend`]: what is behind a function.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use virtnet_model::PfId;

/// A QEMU guest that is a host. In JSON or YAML the names are in camel case:
///
/// ```
/// let config: virtnet_qemu_host::HostConfig = serde_json::from_str(
///     r#"{"qmp": "/run/virtnet/guest-a/qmp", "slots": {"0": "rp0", "1": "rp1"}, "staticPfs": {"0": "pf0"}}"#,
/// )?;
/// config.check()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostConfig {
    /// The monitor's socket: `-qmp unix:PATH,server=on,wait=off`. It has one client at a time, and that is this one.
    pub qmp: PathBuf,
    /// The slots, by their number at the device, each with the id of its `pcie-root-port`.
    #[serde(default)]
    pub slots: BTreeMap<u16, String>,
    /// The functions that QEMU was started with, by the id of their `virtio-net-pci`. Its VFs are those whose `sriov-pf` names it.
    #[serde(default)]
    pub static_pfs: BTreeMap<PfId, String>,
    /// QEMU's log, `-D PATH -trace enable=pci_update_mappings_*`, by which it is told in the moment when the guest gives a function
    /// its registers' addresses, as it does when a driver takes a VF. QEMU has no event for that but tracing; without a log a VF is
    /// found when its driver sets a filter. What is written there is removed once read; a guest can make QEMU write much, so it
    /// belongs on a file system of bounded size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<PathBuf>,
}

/// Why a [`HostConfig`] can't be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// QEMU takes no such id.
    #[error("{id:?} is no id of a QEMU device: a letter, then letters, digits, '-', '.' and '_'")]
    BadId {
        /// The id.
        id: String,
    },
    /// One device can't be two.
    #[error("{id:?} is there twice: each slot and each static PF is a device of its own")]
    Twice {
        /// The id.
        id: String,
    },
    /// Names of one socket must not depend on where a program runs.
    #[error("{} is not an absolute path", .0.display())]
    Relative(PathBuf),
}

impl HostConfig {
    /// Whether it can be meant.
    ///
    /// # Errors
    /// Where it can't.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut ids = BTreeSet::new();
        for id in self.slots.values().chain(self.static_pfs.values()) {
            if !is_id(id) {
                return Err(ConfigError::BadId { id: id.clone() });
            }
            if !ids.insert(id) {
                return Err(ConfigError::Twice { id: id.clone() });
            }
        }
        match [Some(&self.qmp), self.trace.as_ref()].into_iter().flatten().find(|path| !path.is_absolute()) {
            Some(path) => Err(ConfigError::Relative(path.clone())),
            None => Ok(()),
        }
    }
}

/// QEMU's `id_wellformed`.
fn is_id(id: &str) -> bool {
    id.starts_with(|first: char| first.is_ascii_alphabetic())
        && id.chars().all(|each| each.is_ascii_alphanumeric() || "-._".contains(each))
}

/// What is behind a function: a vhost-user back end that listens.
///
/// It must listen before the function is plugged, and answer: QEMU stands still, with the whole guest, until it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its socket.
    pub socket: PathBuf,
    /// How long QEMU waits before it connects again to a back end that went. `None`: never, and the function has no link until it is
    /// plugged anew. With it, a plug stands still where nobody listens, instead of failing.
    pub reconnect: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(slots: &[&str], pfs: &[&str]) -> HostConfig {
        HostConfig {
            qmp: "/run/qmp".into(),
            slots: (0..).zip(slots.iter().map(|id| (*id).to_owned())).collect(),
            static_pfs: (0..)
                .map(|pf: u32| PfId::try_from(pf).unwrap())
                .zip(pfs.iter().map(|id| (*id).to_owned()))
                .collect(),
            trace: None,
        }
    }

    #[test]
    fn ids_are_qemus_and_each_is_one_device() {
        config(&["rp0", "rp_1.a-b"], &["pf0"]).check().unwrap();
        for id in ["", "0rp", "rp 0", "rp/0", "\"", "röp"] {
            assert_eq!(config(&[id], &[]).check(), Err(ConfigError::BadId { id: id.to_owned() }));
        }
        let twice = Err(ConfigError::Twice { id: "rp0".to_owned() });
        assert_eq!(config(&["rp0", "rp0"], &[]).check(), twice);
        assert_eq!(config(&["rp0"], &["rp0"]).check(), twice);
    }

    #[test]
    fn paths_are_absolute() {
        let mut config = config(&[], &[]);
        config.trace = Some("trace".into());
        assert_eq!(config.check(), Err(ConfigError::Relative("trace".into())));
        config.trace = None;
        config.qmp = "qmp".into();
        assert!(config.check().is_err());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(serde_json::from_str::<HostConfig>(r#"{"qmp": "/q", "slot": {}}"#).is_err());
        assert!(serde_json::from_str::<HostConfig>(r#"{"qmp": "/q", "slots": {"a": "rp0"}}"#).is_err());
    }
}
