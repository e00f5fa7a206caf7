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
