//! The trait [`Switch`]: the bridges and ports of Open vSwitch, and whose each port is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use async_trait::async_trait;

use crate::{BridgeName, Events, IfName, PartError, VlanId};

/// Who made a port, as its `external_ids` say. A port without these marks is someone else's and is never touched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The DPU's name.
    pub dpu: String,
    /// `namespace/name` of the device.
    pub device: String,
    /// The device's uid.
    pub uid: String,
}

impl Owner {
    /// Every key of ours in `external_ids` begins so; users' keys can't.
    pub const KEY_PREFIX: &str = "virtnet-";
    const DPU: &str = "virtnet-dpu";
    const DEVICE: &str = "virtnet-device";
    const UID: &str = "virtnet-uid";
    /// Names the user's keys that we wrote, with commas, so that one dropped from the spec goes and a foreign one stays.
    const KEYS: &str = "virtnet-keys";

    /// Reads the marks back; `None` where one is missing.
    pub fn from_external_ids(ids: &BTreeMap<String, String>) -> Option<Self> {
        let get = |key| ids.get(key).cloned();
        Some(Self { dpu: get(Self::DPU)?, device: get(Self::DEVICE)?, uid: get(Self::UID)? })
    }

    /// The marks, as they stand in `external_ids`.
    pub fn marks(&self) -> BTreeMap<String, String> {
        let Self { dpu, device, uid } = self;
        [(Self::DPU, dpu), (Self::DEVICE, device), (Self::UID, uid)]
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .into()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.device, self.dpu)
    }
}

/// A port as we want it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSettings {
    /// The bridge that it is on.
    pub bridge: BridgeName,
    /// The interface's type as in OVSDB, such as `dpdk`; empty for a system netdev.
    pub interface_type: String,
    /// Access VLAN.
    pub tag: Option<VlanId>,
    /// VLANs of a trunk; empty: all.
    pub trunks: BTreeSet<VlanId>,
    /// The user's keys of `external_ids`, on the interface.
    pub external_ids: BTreeMap<String, String>,
    /// Whose port it is.
    pub owner: Owner,
}

impl PortSettings {
    /// Every key that we write into `external_ids`: the user's, and the marks.
    pub fn marked_external_ids(&self) -> BTreeMap<String, String> {
        let keys: Vec<_> = self.external_ids.keys().map(String::as_str).collect();
        let mut ids = self.external_ids.clone();
        ids.extend(self.owner.marks());
        if !keys.is_empty() {
            ids.insert(Owner::KEYS.into(), keys.join(","));
        }
        ids
    }
}

/// A port as Open vSwitch has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The bridge that it is on.
    pub bridge: BridgeName,
    /// The interface's type; empty for a system netdev.
    pub interface_type: String,
    /// Access VLAN, 0 to 4095: whoever writes to the database may set more than is a [`VlanId`].
    pub tag: Option<u16>,
    /// VLANs of a trunk, each 0 to 4095; empty: all.
    pub trunks: BTreeSet<u16>,
    /// Every key, ours and foreign.
    pub external_ids: BTreeMap<String, String>,
    /// The OpenFlow port number: `None` until vswitchd has tried, −1 where it failed.
    pub ofport: Option<i32>,
    /// Why vswitchd could not attach it.
    pub error: Option<String>,
}

impl Port {
    /// Whose it is, if ours.
    pub fn owner(&self) -> Option<Owner> {
        Owner::from_external_ids(&self.external_ids)
    }

    /// Keys that we wrote once: the marks, and those they list.
    pub fn our_keys(&self) -> BTreeSet<&str> {
        let listed = self.external_ids.get(Owner::KEYS).into_iter().flat_map(|keys| keys.split(','));
        let marks =
            self.external_ids.keys().map(String::as_str).filter(|key| key.starts_with(Owner::KEY_PREFIX));
        listed.filter(|key| self.external_ids.contains_key(*key)).chain(marks).collect()
    }

    /// Whether its VLANs are those wanted.
    pub fn has_vlans_of(&self, wanted: &PortSettings) -> bool {
        self.tag == wanted.tag.map(VlanId::get)
            && self.trunks.iter().copied().eq(wanted.trunks.iter().map(|trunk| trunk.get()))
    }

    /// Whether nothing would change if the port were set to this. Foreign keys count on neither side.
    pub fn matches(&self, wanted: &PortSettings) -> bool {
        let ours = self.our_keys();
        let present: BTreeMap<_, _> =
            self.external_ids.iter().filter(|(key, _)| ours.contains(key.as_str())).collect();
        let marked = wanted.marked_external_ids();
        self.bridge == wanted.bridge
            && self.interface_type == wanted.interface_type
            && self.has_vlans_of(wanted)
            && present == marked.iter().collect()
    }

    /// Attached and working: vswitchd gave it a number and reports no error.
    pub fn is_attached(&self) -> bool {
        self.error.is_none() && self.ofport.is_some_and(|ofport| ofport >= 1)
    }
}

/// All that the switch reports at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwitchState {
    /// The bridges.
    pub bridges: BTreeSet<BridgeName>,
    /// The ports by name, which is unique over all bridges.
    pub ports: BTreeMap<IfName, Port>,
}

/// One change of the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchChange {
    /// Make a bridge, if it is not there. One that is there stays as it is.
    AddBridge {
        /// Its name.
        name: BridgeName,
        /// Its datapath as in OVSDB, such as `netdev`; empty: the kernel's.
        datapath_type: String,
    },
    /// Take the port away, if it is still marked as this owner's.
    RemovePort {
        /// The port's name.
        name: IfName,
        /// Whose it must be.
        owner: Owner,
    },
    /// Make the port, or bring ours to these settings. Someone else's port of the name is left alone:
    /// [`crate::Refusal::PortConflict`].
    SetPort {
        /// The port's name.
        name: IfName,
        /// How it shall be.
        settings: PortSettings,
    },
}

/// Open vSwitch on the DPU.
#[async_trait]
pub trait Switch: Send + Sync + fmt::Debug {
    /// The bridges and ports.
    async fn observe(&self) -> Result<SwitchState, PartError>;

    /// Makes all changes in one transaction and waits until vswitchd has acted on it. The answer has a result for each
    /// change, in order: one that can't be made (no such bridge, someone else's port) does not stop the others. The
    /// outer error: none was made, or it is not known whether they were; observe tells.
    ///
    /// Whether a port came up is not in the answer: observe tells its `ofport` and `error`.
    async fn apply(&self, changes: &[SwitchChange]) -> Result<Vec<Result<(), PartError>>, PartError>;

    /// Bridges and ports come, go and change.
    fn events(&self) -> Events;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(user: &[(&str, &str)]) -> PortSettings {
        PortSettings {
            bridge: "ovsbr1".parse().unwrap(),
            interface_type: String::new(),
            tag: None,
            trunks: BTreeSet::new(),
            external_ids: user.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            owner: Owner { dpu: "dpu-0".into(), device: "default/web-0".into(), uid: "u1".into() },
        }
    }

    fn made(wanted: &PortSettings) -> Port {
        Port {
            bridge: wanted.bridge.clone(),
            interface_type: wanted.interface_type.clone(),
            tag: wanted.tag.map(VlanId::get),
            trunks: wanted.trunks.iter().map(|trunk| trunk.get()).collect(),
            external_ids: wanted.marked_external_ids(),
            ofport: Some(1),
            error: None,
        }
    }

    #[test]
    fn the_owner_is_read_back_from_the_marks() {
        let wanted = settings(&[("iface-id", "a")]);
        assert_eq!(made(&wanted).owner(), Some(wanted.owner.clone()));
        let mut stranger = made(&wanted);
        stranger.external_ids.remove("virtnet-uid");
        assert_eq!(stranger.owner(), None);
    }

    #[test]
    fn a_foreign_key_is_no_difference_and_a_dropped_one_is() {
        let wanted = settings(&[("iface-id", "a")]);
        let mut port = made(&wanted);
        port.external_ids.insert("ovn-installed".into(), "true".into());
        assert!(port.matches(&wanted));
        assert!(!port.our_keys().contains("ovn-installed"));
        assert!(!port.matches(&settings(&[])), "iface-id was ours and is no longer wanted");
        assert!(!port.matches(&settings(&[("iface-id", "b")])));
    }

    #[test]
    fn a_port_without_a_number_is_not_attached() {
        let mut port = made(&settings(&[]));
        assert!(port.is_attached());
        port.ofport = Some(-1);
        assert!(!port.is_attached());
        port.ofport = None;
        assert!(!port.is_attached());
        port.ofport = Some(1);
        port.error = Some("could not open network device".into());
        assert!(!port.is_attached());
    }
}
