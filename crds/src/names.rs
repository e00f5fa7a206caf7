//! Names that several programs must agree on: group and version, finalizers, field managers, OVS keys.

/// API group of all kinds of this crate.
pub const GROUP: &str = "virtnet.dev";
/// The one version served and stored.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every object of this crate: group and version.
pub const API_VERSION: &str = "virtnet.dev/v1alpha1";
/// Category under which `kubectl get virtnet` lists all three kinds.
pub const CATEGORY: &str = "virtnet";

/// Finalizer of a `VirtnetDevice`: its agent removes function, representor and port before the object goes.
pub const FUNCTION_FINALIZER: &str = "virtnet.dev/function";
/// Finalizer of a `Dpu`: it stays while devices are bound to it.
pub const BOUND_FINALIZER: &str = "virtnet.dev/bound";

/// Namespace of the agents' Leases, where they are not told another one. Each is named as its DPU.
pub const LEASE_NAMESPACE: &str = "virtnet-system";

/// Label on a device made from a set: the name of that `VirtnetDeviceSet`.
pub const SET_LABEL: &str = "virtnet.dev/set";
/// Prefix of the labels that note the MACs which a device's function bears or may come to bear, one label a MAC.
///
/// Its agent writes them before a MAC is used, and looks by them for others of the fleet that have it.
pub const MAC_LABEL_PREFIX: &str = "mac.virtnet.dev/";

/// The key of the label that notes this MAC, such as `mac.virtnet.dev/0c-c4-7a-ff-22-93` for `0c:c4:7a:ff:22:93`.
#[must_use]
pub fn mac_label(mac: &str) -> String {
    format!("{MAC_LABEL_PREFIX}{}", mac.to_ascii_lowercase().replace(':', "-"))
}

/// The MAC that a label of this key notes, with colons; `None` for any other label. Where the key is not as [`mac_label`]
/// writes it, nobody who looks for the MAC would find it, so that notes nothing.
#[must_use]
pub fn noted_mac(label: &str) -> Option<String> {
    let mac = label.strip_prefix(MAC_LABEL_PREFIX)?.replace('-', ":");
    (mac_label(&mac) == label).then_some(mac)
}

/// Annotation on a device made from a set: which of its templates it was made from or last changed to.
pub const REVISION_ANNOTATION: &str = "virtnet.dev/set-revision";

/// Field managers of server-side apply. One writer each, see the crate's documentation.
pub mod manager {
    /// The set controller: the devices it owns.
    pub const SET: &str = "virtnet-set";
    /// The binder: `spec.dpu` where it was empty.
    pub const BINDER: &str = "virtnet-binder";
    /// The agent: status of its devices and of its `Dpu`, its Lease.
    pub const AGENT: &str = "virtnet-agent";
    /// The liveness controller: the condition `Ready` while a DPU's Lease is expired.
    pub const LIVENESS: &str = "virtnet-liveness";
    /// The operator as a whole: the Lease of the one that leads, and Events.
    pub const OPERATOR: &str = "virtnet-operator";
}

/// Keys in the `external_ids` of the OVS ports that the agent owns.
///
/// They mark a port as ours. A manifest can't set a key that begins with [`external_id::RESERVED_PREFIX`].
pub mod external_id {
    /// Prefix of all keys that the agent keeps for itself.
    pub const RESERVED_PREFIX: &str = "virtnet-";
    /// Name of the DPU whose agent made the port.
    pub const DPU: &str = "virtnet-dpu";
    /// `namespace/name` of the `VirtnetDevice`.
    pub const DEVICE: &str = "virtnet-device";
    /// `metadata.uid` of the `VirtnetDevice`.
    pub const UID: &str = "virtnet-uid";
}
