//! What is wanted: a `VirtnetDevice` as planning takes it, parsed once into validated values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use sha2::{Digest, Sha256};
use virtnet_crds::conditions::FUNCTION_READY;
use virtnet_crds::{
    FUNCTION_FINALIZER, Function as FunctionChoice, FunctionType, LinkState, PortSpec, Reason, RebindPolicy,
    Uplink as UplinkSpec, VirtnetDevice, VirtnetDeviceSpec, noted_mac,
};
use virtnet_model::{
    BridgeName, Features, Mac, Mtu, Owner, ParseError, PfId, QueueSize, SfNumber, Uplink, VfId, VlanId, Vuid,
};

/// `metadata.uid` of a device.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Arc<str>);

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Uid {
    /// The uid as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Namespace and name of a device, written `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl DeviceKey {
    /// That of the object with this metadata.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One `VirtnetDevice` of this DPU.
#[derive(Clone, Debug)]
pub struct Device {
    /// Who it is.
    pub key: DeviceKey,
    /// Its uid.
    pub uid: Uid,
    /// Its generation: which spec this is.
    pub generation: i64,
    /// When it was created.
    pub created: Timestamp,
    /// It has a `deletionTimestamp`.
    pub deleting: bool,
    /// It bears our finalizer.
    pub finalizer: bool,
    /// The MACs that its labels note: a hot-plugged function's, and one that is declared for another.
    ///
    /// They are written before the function is made or its MAC is changed, with the finalizer where that is missing too. So
    /// an agent that was killed in between, and finds the spec edited since, still knows the function for this device's;
    /// and no other agent of the fleet makes a function with the same MAC.
    pub macs: BTreeSet<Mac>,
    /// The function that its status last told of.
    pub known: Option<Known>,
    /// Its status tells that the wanted MAC is another's.
    pub mac_refused: bool,
    /// Its status tells that this DPU, or the one before, refuses it.
    pub refused: bool,
    /// What its spec wants, or why that can't be understood.
    pub wanted: Result<Wanted, Unusable>,
}

/// The function that a status told of: a hint, believed only where the DPU agrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The MAC.
    pub mac: Option<Mac>,
    /// The MAC of a hot-plugged function: by it the function is found again.
    pub hotplug_mac: Option<Mac>,
    /// The VUID, which names a function only together with MAC and SF.
    pub vuid: Option<Vuid>,
    /// The number of its SF.
    pub sf: Option<SfNumber>,
}

/// What a spec wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which function.
    pub function: WantedFunction,
    /// The MAC that the spec names, which others may have too; `None`: one derived of the uid, or the controller's own.
    pub declared_mac: Option<Mac>,
    /// MTU in bytes; `None`: the controller's own.
    pub mtu: Option<Mtu>,
    /// Virtqueues, the control queue included; `None`: the controller's own.
    pub max_queues: Option<u16>,
    /// Descriptors a queue; `None`: the controller's own.
    pub queue_size: Option<QueueSize>,
    /// MSI-X vectors; `None`: the controller's own.
    pub num_msix: Option<u16>,
    /// Features, with what they need; `None`: the controller's own.
    pub features: Option<Features>,
    /// Admin state of the representor, which the controller mirrors to the driver as link state.
    pub up: bool,
    /// What may be done about a change that needs the driver gone.
    pub rebind: RebindPolicy,
    /// The OVS port; `None`: none.
    pub port: Option<WantedPort>,
}

/// Which function is wanted, with what its identity is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedFunction {
    /// A hot-plugged PF. Its MAC is its identity, with the SF number where that is given.
    HotPlug {
        /// The wanted MAC, declared or derived.
        mac: Mac,
        /// The port; `None`: the bond where there is one, else p0.
        uplink: Option<Uplink>,
        /// Usable by legacy drivers.
        transitional: bool,
        /// The SF's number.
        sf_number: Option<SfNumber>,
        /// Which of several hosts.
        host: Option<String>,
    },
    /// A static PF: its index is its identity.
    Static {
        /// The index.
        pf: PfId,
        /// The wanted MAC; `None`: the controller's own.
        mac: Option<Mac>,
    },
    /// A VF: the indices of its PF and of itself are its identity.
    Vf {
        /// The PF's index.
        pf: PfId,
        /// The VF's index.
        vf: VfId,
        /// The wanted MAC; `None`: the controller's own.
        mac: Option<Mac>,
        /// Usable by legacy drivers.
        transitional: bool,
    },
}

impl WantedFunction {
    /// The MAC that is wanted, if any.
    pub fn mac(&self) -> Option<Mac> {
        match self {
            Self::HotPlug { mac, .. } => Some(*mac),
            Self::Static { mac, .. } | Self::Vf { mac, .. } => *mac,
        }
    }
}

/// The OVS port that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedPort {
    /// The bridge.
    pub bridge: BridgeName,
    /// The interface's type.
    pub interface_type: String,
    /// Access VLAN.
    pub tag: Option<VlanId>,
    /// VLANs of a trunk.
    pub trunks: BTreeSet<VlanId>,
    /// The user's keys.
    pub external_ids: BTreeMap<String, String>,
}

/// A spec that can't be understood, although the API server let it in (its schema may be older or newer than ours).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec{}{field}: {reason}", if field.is_empty() { "" } else { "." })]
pub struct Unusable {
    /// The field's path below `spec`.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Unusable {
    fn at(field: &'static str) -> impl Fn(ParseError) -> Self {
        move |error| Self { field, reason: error.to_string() }
    }
}

/// The MAC of a hot-plugged function whose spec names none: `02` and 40 bits of a hash of the object's uid.
pub fn derived_mac(uid: &Uid) -> Mac {
    let digest = Sha256::digest(uid.as_str());
    Mac::local([digest[0], digest[1], digest[2], digest[3], digest[4]])
}

fn noted_macs(metadata: &ObjectMeta) -> BTreeSet<Mac> {
    let keys = metadata.labels.iter().flat_map(|labels| labels.keys());
    keys.filter_map(|key| noted_mac(key)?.parse().ok()).collect()
}

impl Device {
    /// Parses an object as the API server gave it.
    pub fn parse(object: &VirtnetDevice) -> Self {
        let uid = Uid::from(object.uid().unwrap_or_default().as_str());
        let status = object.status.as_ref();
        let known = status.and_then(|status| status.function.as_ref()).map(|function| {
            let mac = function.mac.as_deref().and_then(|mac| mac.parse().ok());
            Known {
                mac,
                hotplug_mac: mac.filter(|_| function.type_ == FunctionType::HotPlug),
                vuid: function.vuid.parse().ok(),
                sf: status
                    .and_then(|status| status.representor.as_ref()?.sf_number)
                    .and_then(|number| number.try_into().ok()),
            }
        });
        let mut conditions = status.into_iter().flat_map(|status| &status.conditions);
        let mac_refused = conditions.any(|condition| {
            condition.type_ == FUNCTION_READY && condition.reason == Reason::MacClaimed.as_str()
        });
        Self {
            key: DeviceKey::of(&object.metadata),
            generation: object.metadata.generation.unwrap_or_default(),
            created: object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            deleting: object.metadata.deletion_timestamp.is_some(),
            finalizer: object.finalizers().iter().any(|finalizer| finalizer == FUNCTION_FINALIZER),
            macs: noted_macs(&object.metadata),
            known,
            mac_refused,
            refused: status.is_some_and(|status| status.refusal().is_some()),
            wanted: Wanted::parse(&object.spec, &uid),
            uid,
        }
    }

    /// An object that could not be decoded: what its metadata tells is enough to leave its function in peace, and to
    /// delete it.
    pub fn undecodable(metadata: &ObjectMeta, error: &str) -> Self {
        Self {
            key: DeviceKey::of(metadata),
            uid: Uid::from(metadata.uid.as_deref().unwrap_or_default()),
            generation: metadata.generation.unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            deleting: metadata.deletion_timestamp.is_some(),
            finalizer: metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FUNCTION_FINALIZER),
            macs: noted_macs(metadata),
            known: None,
            mac_refused: false,
            refused: false,
            wanted: Err(Unusable { field: "", reason: error.to_owned() }),
        }
    }

    /// The MAC that its function is to have, if any is wanted.
    pub fn wanted_mac(&self) -> Option<Mac> {
        self.wanted.as_ref().ok().and_then(|wanted| wanted.function.mac())
    }

    /// Whether the wanted MAC is one that its spec names.
    pub fn declares_mac(&self) -> bool {
        self.wanted.as_ref().is_ok_and(|wanted| wanted.declared_mac.is_some())
    }

    /// The MAC that its hot-plugged function is to have; `None` where it is of another kind or can't be understood.
    pub fn wanted_hotplug_mac(&self) -> Option<Mac> {
        match &self.wanted {
            Ok(Wanted { function: WantedFunction::HotPlug { mac, .. }, .. }) => Some(*mac),
            Ok(_) | Err(_) => None,
        }
    }

    /// The MACs that a hot-plugged function of this device may bear, the wanted one first.
    pub fn hotplug_macs(&self) -> impl Iterator<Item = Mac> + '_ {
        self.wanted_hotplug_mac().into_iter().chain(self.told_macs())
    }

    /// The MACs that the object tells of beside its spec: the status what its function last bore, the labels what that may
    /// bear.
    pub fn told_macs(&self) -> impl Iterator<Item = Mac> + '_ {
        let known = self.known.as_ref().and_then(|known| known.hotplug_mac);
        known.into_iter().chain(self.macs.iter().copied())
    }

    /// It is being deleted and no longer ours: nothing of it is on the DPU, and another's finalizer keeps the object.
    pub fn is_released(&self) -> bool {
        self.deleting && !self.finalizer
    }

    /// Whether a function was already in service for it when it was last reported: it then keeps what it has.
    pub fn in_service(&self) -> bool {
        self.known.is_some()
    }
}

impl Wanted {
    /// Parses a spec. The uid is what a hot-plugged function's MAC is derived from where the spec gives none.
    pub fn parse(spec: &VirtnetDeviceSpec, uid: &Uid) -> Result<Self, Unusable> {
        let VirtnetDeviceSpec {
            dpu: _,
            dpu_selector: _,
            function,
            mac,
            mtu,
            queues,
            msix,
            features,
            link_state,
            rebind_policy,
            port,
        } = spec;
        let mac: Option<Mac> = mac.as_deref().map(str::parse).transpose().map_err(Unusable::at("mac"))?;
        let choice =
            function.choice().map_err(|error| Unusable { field: "function", reason: error.to_string() })?;
        let pf = |field, pf: u16| PfId::try_from(u32::from(pf)).map_err(Unusable::at(field));
        let function = match choice {
            FunctionChoice::Hotplug(hotplug) => WantedFunction::HotPlug {
                mac: mac.unwrap_or_else(|| derived_mac(uid)),
                uplink: hotplug.uplink.map(|uplink| match uplink {
                    UplinkSpec::P0 => Uplink::P0,
                    UplinkSpec::P1 => Uplink::P1,
                    UplinkSpec::Bond => Uplink::Bond,
                }),
                transitional: hotplug.transitional,
                sf_number: hotplug
                    .sf_number
                    .map(SfNumber::try_from)
                    .transpose()
                    .map_err(Unusable::at("function.hotplug.sfNumber"))?,
                host: hotplug.host.filter(|host| !host.is_empty()),
            },
            FunctionChoice::Static(function) => {
                WantedFunction::Static { pf: pf("function.static.pf", function.pf)?, mac }
            }
            FunctionChoice::Vf(function) => WantedFunction::Vf {
                pf: pf("function.vf.pf", function.pf)?,
                vf: VfId::try_from(u32::from(function.vf)).map_err(Unusable::at("function.vf.vf"))?,
                mac,
                transitional: function.transitional,
            },
        };
        let queues = queues.clone().unwrap_or_default();
        let features = features.as_ref().map(|features| {
            features.iter().map(|feature| feature.name().parse()).collect::<Result<Features, ParseError>>()
        });
        Ok(Self {
            function,
            declared_mac: mac,
            mtu: mtu.map(|mtu| Mtu::try_from(u32::from(mtu))).transpose().map_err(Unusable::at("mtu"))?,
            max_queues: queues.max,
            queue_size: queues
                .size
                .map(|size| QueueSize::try_from(u32::from(size)))
                .transpose()
                .map_err(Unusable::at("queues.size"))?,
            num_msix: *msix,
            features: features
                .transpose()
                .map_err(Unusable::at("features"))?
                .as_ref()
                .map(Features::completed),
            up: *link_state == LinkState::Up,
            rebind: *rebind_policy,
            port: port.as_ref().map(WantedPort::parse).transpose()?,
        })
    }
}

impl WantedPort {
    fn parse(spec: &PortSpec) -> Result<Self, Unusable> {
        let PortSpec { bridge, type_, tag, trunks, external_ids } = spec;
        let vlan = |field| move |id: &u16| VlanId::try_from(u32::from(*id)).map_err(Unusable::at(field));
        Ok(Self {
            bridge: bridge.parse().map_err(Unusable::at("port.bridge"))?,
            interface_type: interface_type(type_)?,
            tag: tag.as_ref().map(vlan("port.tag")).transpose()?,
            trunks: trunks.iter().map(vlan("port.trunks")).collect::<Result<_, _>>()?,
            external_ids: parse_external_ids(external_ids)?,
        })
    }
}

/// Whether this can be a type of interfaces or datapaths in OVSDB. Empty: the default one.
pub(crate) fn is_ovs_type(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

fn interface_type(text: &str) -> Result<String, Unusable> {
    if is_ovs_type(text) {
        return Ok(text.to_owned());
    }
    let reason = format!("{text:?} is not a type of OVS interfaces: letters, digits, - and _");
    Err(Unusable { field: "port.type", reason })
}

/// The keys that we wrote are noted with commas between them, and ovsdb-server ends a connection that brings it a NUL.
fn parse_external_ids(ids: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Unusable> {
    let unusable = |reason| Unusable { field: "port.externalIds", reason };
    for (key, value) in ids {
        if key.contains(',') || key.starts_with(Owner::KEY_PREFIX) {
            return Err(unusable(format!(
                "the key {key:?} has a comma, or begins with {}",
                Owner::KEY_PREFIX
            )));
        }
        if key.contains(char::is_control) || value.contains(char::is_control) {
            return Err(unusable(format!("{key:?}={value:?} has control characters")));
        }
    }
    Ok(ids.clone())
}

#[cfg(test)]
mod tests {
    use virtnet_crds::Feature as Declared;
    use virtnet_model::Feature;

    use super::*;

    #[test]
    fn every_feature_that_can_be_declared_is_one_that_a_function_can_have() {
        let declared: Vec<_> =
            Declared::ALL.iter().map(|feature| (feature.name(), u32::from(feature.bit()))).collect();
        let had: Vec<_> = Feature::ALL.iter().map(|feature| (feature.name(), feature.bit())).collect();
        assert_eq!(declared, had);
    }

    #[test]
    fn our_keys_in_open_vswitch_are_those_that_a_manifest_may_not_set() {
        use virtnet_crds::external_id;
        assert_eq!(virtnet_model::Owner::KEY_PREFIX, external_id::RESERVED_PREFIX);
    }

    #[test]
    fn what_the_switch_could_not_take_or_keep_is_not_wanted() {
        let parse = |type_: &str, key: &str, value: &str| {
            let port = PortSpec {
                bridge: "ovsbr1".to_owned(),
                type_: type_.to_owned(),
                external_ids: [(key.to_owned(), value.to_owned())].into(),
                ..PortSpec::default()
            };
            WantedPort::parse(&port).map(drop).map_err(|unusable| unusable.field)
        };
        assert_eq!(parse("dpdk", "iface-id", "a b=ü,\u{2028}"), Ok(()));
        for (type_, key, value, field) in [
            ("dpdk\0", "iface-id", "a", "port.type"),
            ("", "iface,id", "a", "port.externalIds"),
            ("", "iface\0id", "a", "port.externalIds"),
            ("", "iface-id", "a\0", "port.externalIds"),
            ("", "iface-id", "a\n", "port.externalIds"),
            ("", "virtnet-uid", "a", "port.externalIds"),
        ] {
            assert_eq!(parse(type_, key, value), Err(field), "{type_:?} {key:?}={value:?}");
        }
    }

    #[test]
    fn a_derived_mac_is_local_unicast_and_always_the_same() {
        let mac = derived_mac(&Uid::from("5d3f9c1e-0000-4000-8000-000000000000"));
        assert_eq!(mac, derived_mac(&Uid::from("5d3f9c1e-0000-4000-8000-000000000000")));
        assert_eq!(mac.octets()[0], 0x02);
        assert_ne!(mac, derived_mac(&Uid::from("another")));
    }
}
