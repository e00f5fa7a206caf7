//! [`SoftConfig`]: the file that says how large the device is and which hosts it has.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use virtnet_controller::Place;
use virtnet_model::{Mac, Mtu, PfId, VfId};
use virtnet_qemu_host::HostConfig;

/// The bytes that a socket's path can have (unix(7)), without the names that are made in the folder.
const LONGEST_FOLDER: usize = 90;
/// Slots and static PFs at most: as many as a controller takes.
const MOST: u16 = 255;
/// VFs of a PF at most: they are the other functions of its slot.
const MOST_VFS: u16 = 7;

/// A DPU in software. In JSON or YAML, names in camel case:
///
/// ```
/// let config = virtnet_soft_device::SoftConfig::parse(
///     "
/// mac: 02:00:00:00:aa:00
/// sockets: /run/virtnet/soft
/// hosts:
///   guest-a: {qmp: /run/virtnet/guest-a/qmp, slots: {0: rp0, 1: rp1}}
/// ",
/// )?;
/// assert_eq!(config.slots(), 2);
/// # Ok::<(), virtnet_soft_device::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SoftConfig {
    /// The device's own MAC address, of which those of static PFs are made. Unique in a fleet.
    pub mac: Mac,
    /// The folder of the functions' sockets: `slot-0`, `pf-0`, …. It is made where it is missing.
    pub sockets: PathBuf,
    /// The guests that are its hosts, by their names. Each slot and each static PF is one's.
    #[serde(default)]
    pub hosts: BTreeMap<String, HostConfig>,
    /// Slots of a device without hosts: sockets, which the front ends of virtual machines connect to.
    #[serde(default, rename = "slots")]
    pub socket_slots: Option<u16>,
    /// Static PFs of a device without hosts.
    #[serde(default, rename = "staticPfs")]
    pub socket_pfs: Option<u16>,
    /// VFs that each static PF can have. Its host is a guest whose log is told, since nothing else tells of VFs.
    #[serde(default)]
    pub vfs: u16,
    /// MSI-X vectors that a function can have, the configuration's included: one more than its virtqueues.
    #[serde(default = "msix")]
    pub msix: u16,
    /// Threads that move packets, 1 to 64.
    #[serde(default = "threads")]
    pub threads: usize,
    /// The MTU of the network behind the device, in bytes.
    #[serde(default = "uplink_mtu")]
    pub uplink_mtu: Mtu,
    /// The switch carries packets with partial checksums, and those that are to be segmented.
    #[serde(default)]
    pub offloads: bool,
    /// Seconds for which a guest is waited for that is to let go of a function. What is asked of the controller waits meanwhile.
    #[serde(default = "unplug_seconds")]
    pub unplug_seconds: u16,
}

fn msix() -> u16 {
    10
}

fn threads() -> usize {
    2
}

fn uplink_mtu() -> Mtu {
    Mtu::MAX
}

fn unplug_seconds() -> u16 {
    10
}

/// Something of a [`SoftConfig`] that can't be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The field, such as `hosts.guest-a.slots`.
    pub field: String,
    /// What is wrong with it, and what would do.
    pub why: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It can't be read as one: the message names the place and the field.
    #[error("{0}")]
    Unreadable(String),
    /// It can, and can't be meant.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Mistakes(Vec<Mistake>),
}

impl SoftConfig {
    /// Reads one, of JSON or YAML.
    ///
    /// # Errors
    /// Where it can't be read, or not be meant: then all of its mistakes are told.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::Unreadable(error.to_string()))?;
        let mistakes = config.mistakes();
        if mistakes.is_empty() { Ok(config) } else { Err(ConfigError::Mistakes(mistakes)) }
    }

    fn mistakes(&self) -> Vec<Mistake> {
        let mut found = Vec::new();
        let mut wrong = |field: &str, why: String| found.push(Mistake { field: field.to_owned(), why });
        if !self.sockets.is_absolute() {
            wrong("sockets", format!("{} is not an absolute path", self.sockets.display()));
        }
        if self.sockets.as_os_str().len() > LONGEST_FOLDER {
            wrong(
                "sockets",
                format!("longer than {LONGEST_FOLDER} bytes: the path of a socket has 107 at most"),
            );
        }
        if !(3..=2048).contains(&self.msix) {
            wrong(
                "msix",
                format!(
                    "{} is not from 3 to 2048: one each to receive, to transmit and for the configuration",
                    self.msix
                ),
            );
        }
        if !(1..=64).contains(&self.threads) {
            wrong("threads", format!("{} is not from 1 to 64", self.threads));
        }
        if self.unplug_seconds == 0 {
            wrong("unplugSeconds", "0: no guest lets go at once".to_owned());
        }
        for (field, count) in [("slots", self.socket_slots), ("staticPfs", self.socket_pfs)] {
            match count {
                Some(_) if !self.hosts.is_empty() => {
                    wrong(field, format!("beside hosts: say hosts.NAME.{field}, which names each of them"));
                }
                Some(count) if count > MOST => wrong(field, format!("{count} is more than {MOST}")),
                Some(_) | None => {}
            }
        }
        if self.vfs > MOST_VFS {
            wrong(
                "vfs",
                format!("{}: a PF has {MOST_VFS} at most, the other functions of its slot", self.vfs),
            );
        }
        if self.vfs > 0 && self.hosts.values().all(|host| host.static_pfs.is_empty()) {
            wrong(
                "vfs",
                "without a static PF of a host: hosts.NAME.staticPfs names those that have them".to_owned(),
            );
        }
        for (name, host) in &self.hosts {
            if let Err(error) = host.check() {
                wrong(&format!("hosts.{name}"), error.to_string());
            }
            if self.vfs > 0 && !host.static_pfs.is_empty() && host.trace.is_none() {
                wrong(
                    &format!("hosts.{name}.trace"),
                    "it is missing: QEMU tells of VFs in its log alone".to_owned(),
                );
            }
        }
        let slots =
            self.hosts.iter().flat_map(|(name, host)| host.slots.keys().map(move |slot| (*slot, name)));
        found.extend(gaps("slots", slots));
        let pfs =
            self.hosts.iter().flat_map(|(name, host)| host.static_pfs.keys().map(move |pf| (pf.get(), name)));
        found.extend(gaps("staticPfs", pfs));
        let mut monitors = BTreeMap::new();
        for (name, host) in &self.hosts {
            if let Some(other) = monitors.insert(&host.qmp, name) {
                let why = format!("the monitor of host {other} too: it has one client at a time");
                found.push(Mistake { field: format!("hosts.{name}.qmp"), why });
            }
        }
        found
    }

    /// How many slots there are.
    pub fn slots(&self) -> u16 {
        self.socket_slots.unwrap_or_else(|| count(self.hosts.values().map(|host| host.slots.len())))
    }

    /// How many static PFs there are.
    pub fn static_pfs(&self) -> u16 {
        self.socket_pfs.unwrap_or_else(|| count(self.hosts.values().map(|host| host.static_pfs.len())))
    }

    /// The host whose slot this is; `None`: it is a socket and no more.
    pub(crate) fn host_of(&self, slot: u16) -> Option<&str> {
        let found = self.hosts.iter().find(|(_, host)| host.slots.contains_key(&slot));
        found.map(|(name, _)| name.as_str())
    }

    /// The static PFs, in order.
    pub(crate) fn pfs(&self) -> impl Iterator<Item = PfId> {
        (0..u32::from(self.static_pfs())).filter_map(|pf| PfId::try_from(pf).ok())
    }

    /// The VFs that a static PF can have, in order.
    pub(crate) fn vfs_of(&self, pf: PfId) -> impl Iterator<Item = Place> {
        let indices = (0..u32::from(self.vfs)).filter_map(|vf| VfId::try_from(vf).ok());
        indices.map(move |vf| Place::Vf(pf, vf))
    }

    /// The socket of a function.
    pub(crate) fn socket(&self, place: Place) -> PathBuf {
        let name = match place {
            Place::Slot(slot) => format!("slot-{slot}"),
            Place::Static(pf) => format!("pf-{pf}"),
            Place::Vf(pf, vf) => format!("pf-{pf}-vf-{vf}"),
        };
        self.sockets.join(name)
    }

    /// How long a guest is waited for.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.unplug_seconds.into())
    }
}

fn count(numbers: impl Iterator<Item = usize>) -> u16 {
    u16::try_from(numbers.sum::<usize>()).unwrap_or(u16::MAX)
}

/// A device counts from 0 without a gap, and each number is one host's.
fn gaps<'a>(field: &str, numbers: impl Iterator<Item = (u16, &'a String)>) -> Vec<Mistake> {
    let mut of: BTreeMap<u16, &String> = BTreeMap::new();
    let mut found = Vec::new();
    for (number, host) in numbers {
        if let Some(other) = of.insert(number, host) {
            found.push(Mistake {
                field: format!("hosts.{host}.{field}"),
                why: format!("{number} is host {other}'s too"),
            });
        }
    }
    for (expected, (number, host)) in (0..).zip(&of) {
        if expected != *number {
            let why = format!(
                "there is {number} and no {expected}: they are counted from 0 over all hosts, without a gap"
            );
            found.push(Mistake { field: format!("hosts.{host}.{field}"), why });
            break;
        }
    }
    if of.len() > usize::from(MOST) {
        found.push(Mistake {
            field: format!("hosts.*.{field}"),
            why: format!("{} are more than {MOST}", of.len()),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "mac: 02:00:00:00:aa:00\nsockets: /run/virtnet/soft\n";

    fn told(more: &str) -> String {
        SoftConfig::parse(&format!("{PLAIN}{more}")).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let config = SoftConfig::parse(PLAIN).unwrap();
        assert_eq!((config.slots(), config.static_pfs(), config.msix, config.threads), (0, 0, 10, 2));
        assert!(!config.offloads && config.hosts.is_empty());
        let json = r#"{"mac": "02:00:00:00:aa:00", "sockets": "/s", "slots": 4, "staticPfs": 1}"#;
        let config = SoftConfig::parse(json).unwrap();
        assert_eq!((config.slots(), config.static_pfs(), config.host_of(0)), (4, 1, None));
    }

    #[test]
    fn slots_are_of_the_host_that_names_them() {
        let hosts = "hosts:\n  a: {qmp: /a, slots: {0: rp0, 2: rp1}, staticPfs: {0: pf0}}\n  b: {qmp: /b, slots: {1: rp0}}\n";
        let config = SoftConfig::parse(&format!("{PLAIN}{hosts}")).unwrap();
        assert_eq!([0, 1, 2, 3].map(|slot| config.host_of(slot)), [Some("a"), Some("b"), Some("a"), None]);
        assert_eq!((config.slots(), config.static_pfs()), (3, 1));
    }

    #[test]
    fn each_static_pf_of_a_guest_with_a_log_has_vfs() {
        let hosts = "vfs: 2\nhosts:\n  a: {qmp: /a, staticPfs: {0: pf0}, trace: /log}\n  b: {qmp: /b}\n";
        let config = SoftConfig::parse(&format!("{PLAIN}{hosts}")).unwrap();
        let vfs: Vec<_> = config.vfs_of(PfId::MIN).map(|place| place.to_string()).collect();
        assert_eq!(vfs, ["VF 0 of PF 0", "VF 1 of PF 0"]);
    }

    #[test]
    fn mistakes_are_told_by_field_and_reason_and_all_at_once() {
        let both = told("msix: 2\nthreads: 0\nunplugSeconds: 0\n");
        for part in ["msix: 2 is not from 3 to 2048", "threads: 0 is not from 1 to 64", "unplugSeconds: 0"] {
            assert!(both.contains(part), "{both}");
        }
        for (text, part) in [
            ("turbo: 1\n", "turbo"),
            ("slots: many\n", "slots"),
            ("slots: 256\n", "slots: 256 is more than 255"),
            ("slots: 1\nhosts: {a: {qmp: /a}}\n", "slots: beside hosts: say hosts.NAME.slots"),
            ("hosts: {a: {qmp: a}}\n", "hosts.a: a is not an absolute path"),
            ("hosts: {a: {qmp: /a, slots: {1: rp0}}}\n", "hosts.a.slots: there is 1 and no 0"),
            (
                "hosts: {a: {qmp: /a, slots: {0: rp0}}, b: {qmp: /b, slots: {0: rp0}}}\n",
                "hosts.b.slots: 0 is host a's too",
            ),
            ("hosts: {a: {qmp: /a}, b: {qmp: /a}}\n", "hosts.b.qmp: the monitor of host a too"),
            ("vfs: 8\n", "vfs: 8: a PF has 7 at most"),
            ("staticPfs: 1\nvfs: 2\n", "vfs: without a static PF of a host"),
            ("vfs: 2\nhosts: {a: {qmp: /a, staticPfs: {0: pf0}}}\n", "hosts.a.trace: it is missing"),
        ] {
            let error = told(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        let missing = SoftConfig::parse("sockets: /s\n").unwrap_err().to_string();
        assert!(missing.contains("mac"), "{missing}");
        let relative = SoftConfig::parse("mac: 02:00:00:00:aa:00\nsockets: soft\n").unwrap_err().to_string();
        assert_eq!(relative, "sockets: soft is not an absolute path");
    }
}
