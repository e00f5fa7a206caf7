//! [`Set`]: a `VirtnetDeviceSet`, with what is reckoned from it once for all its devices.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use virtnet_crds::{VirtnetDeviceSet, VirtnetDeviceSetSpec, VirtnetDeviceSetStatus};

use super::Kept;

/// A set.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    /// Its metadata: who it is, and which version.
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: VirtnetDeviceSetSpec,
    /// The revision that its devices are to have.
    pub(crate) revision: String,
    /// What was written of it last.
    pub(crate) status: VirtnetDeviceSetStatus,
}

impl Set {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// `namespace/name`.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }

    /// Its uid.
    pub(crate) fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }
}

impl Kept for Set {
    type Object = VirtnetDeviceSet;
    fn keep(object: VirtnetDeviceSet) -> Option<Self> {
        let VirtnetDeviceSet { mut metadata, spec, status } = object;
        metadata.managed_fields = None;
        metadata.annotations = None;
        Some(Self { revision: spec.revision(), metadata, spec, status: status.unwrap_or_default() })
    }
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}
