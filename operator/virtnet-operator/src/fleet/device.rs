//! [`Device`]: a `VirtnetDevice`, with what the controllers need of it and no more.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::ResourceExt;
use tracing::warn;
use virtnet_crds::conditions::{BOUND, READY, STALLED};
use virtnet_crds::{
    Function, FunctionType, NotOneFunction, Port, REVISION_ANNOTATION, Reason, Uplink, VirtnetDevice,
    VirtnetDeviceSpec, VirtnetDeviceStatus, manager, noted_mac,
};

use super::{Kept, Undeclared};

/// What a function takes of a DPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A hot-plug slot, and an SF of the port.
    HotPlug { port: Port, sf_number: Option<u32> },
    /// The static PF of this index, and no other.
    Static { pf: u16 },
    /// The VF of this index, and no other.
    Vf { pf: u16, vf: u16 },
}

impl Need {
    /// Whether this is the function that is needed, or could be.
    pub(crate) fn is(&self, function: &Undeclared) -> bool {
        match (self, function.type_) {
            (Self::HotPlug { .. }, FunctionType::HotPlug) => true,
            (Self::Static { pf }, FunctionType::Static) => function.pf == Some(*pf),
            (Self::Vf { pf, vf }, FunctionType::Vf) => (function.pf, function.vf) == (Some(*pf), Some(*vf)),
            _ => false,
        }
    }

    fn of(spec: &VirtnetDeviceSpec) -> Result<Self, NotOneFunction> {
        Ok(match spec.function.choice()? {
            Function::Hotplug(function) => Self::HotPlug {
                // A bond's SFs are the first port's, its emulation manager's.
                port: match function.uplink {
                    Some(Uplink::P1) => Port::P1,
                    Some(Uplink::P0 | Uplink::Bond) | None => Port::P0,
                },
                sf_number: function.sf_number,
            },
            Function::Static(function) => Self::Static { pf: function.pf },
            Function::Vf(function) => Self::Vf { pf: function.pf, vf: function.vf },
        })
    }
}

/// A device.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    /// Its metadata: who it is, and which version.
    pub(crate) metadata: ObjectMeta,
    /// What is wanted of it, `dpu` among that: the DPU that it is bound to.
    pub(crate) spec: VirtnetDeviceSpec,
    /// The binder set `spec.dpu`, and nobody else does.
    pub(crate) bound_by_us: bool,
    /// The MAC that its spec names, in lower case.
    pub(crate) wanted_mac: Option<String>,
    /// The MACs that it notes, and that its status tells of.
    pub(crate) macs: Vec<String>,
    /// What it takes.
    pub(crate) need: Need,
    /// All that it wants but the DPU, as a number that tells whether that has changed.
    pub(crate) wanted: u64,
    /// The agent may have made its function.
    pub(crate) has_function: bool,
    /// Whether it is in service.
    pub(crate) readiness: Readiness,
    /// The representor, where one is known.
    pub(crate) representor: Option<String>,
    /// Why the agent of its DPU does not make the function, where that is for what the DPU is or has.
    pub(crate) refusal: Option<(Reason, String)>,
    /// Its agent makes no function before a person changes the spec.
    pub(crate) is_stalled: bool,
    /// Which of its conditions says that it is stalled, of whatever spec.
    pub(crate) stalled_at: Option<usize>,
    /// The conditions, where those of the binder are among them.
    pub(crate) told: Option<Vec<Condition>>,
}

/// Whether a device is in service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It is, as it is wanted now.
    Ready,
    /// It is not, or that is not known of what is wanted now; why, where someone said.
    Not(Option<String>),
    /// Its agent is silent, or its DPU is gone, and what was said of it is old.
    Unknown(String),
}

impl Readiness {
    fn of(status: &VirtnetDeviceStatus, generation: Option<i64>) -> Self {
        let ready = status.conditions.iter().find(|condition| condition.type_ == READY);
        let Some(Condition { status: value, reason, message, .. }) = ready else { return Self::Not(None) };
        let said = || format!("{reason}: {message}");
        match value.as_str() {
            "Unknown" => Self::Unknown(said()),
            _ if Some(status.observed_generation) != generation => Self::Not(None),
            "True" => Self::Ready,
            _ => Self::Not(Some(said())),
        }
    }
}

impl Device {
    fn parse(object: VirtnetDevice) -> Result<Self, NotOneFunction> {
        let need = Need::of(&object.spec)?;
        let VirtnetDevice { mut metadata, spec, status } = object;
        let bound_by_us = owns_dpu(&metadata);
        metadata.managed_fields = None;
        if let Some(annotations) = &mut metadata.annotations {
            annotations.retain(|key, _| key == REVISION_ANNOTATION);
        }
        let status = status.unwrap_or_default();
        let of_this_spec = Some(status.observed_generation) == metadata.generation;
        let refusal = status.refusal().filter(|_| of_this_spec);
        let refusal = refusal.map(|(reason, said)| (reason, said.to_owned()));
        let wanted = {
            let mut hasher = DefaultHasher::new();
            let spec = VirtnetDeviceSpec { dpu: None, ..spec.clone() };
            serde_json::to_string(&spec).unwrap_or_default().hash(&mut hasher);
            hasher.finish()
        };
        let stalled_at = status.conditions.iter().position(|condition| condition.type_ == STALLED);
        let noted = metadata.labels.iter().flat_map(|labels| labels.keys()).filter_map(|key| noted_mac(key));
        let macs = noted.chain(status.function.iter().filter_map(|function| function.mac.clone())).collect();
        let wanted_mac = spec.mac.as_deref().map(str::to_ascii_lowercase);
        let told = status.conditions.iter().any(|condition| condition.type_ == BOUND);
        let readiness = Readiness::of(&status, metadata.generation);
        Ok(Self {
            spec,
            bound_by_us,
            wanted_mac,
            macs,
            need,
            wanted,
            readiness,
            has_function: status.function.is_some(),
            is_stalled: of_this_spec && stalled_at.is_some(),
            stalled_at,
            representor: status.representor.map(|representor| representor.name),
            refusal,
            told: told.then_some(status.conditions),
            metadata,
        })
    }

    /// `namespace/name`.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.namespace(), self.name())
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The DPU that it is bound to.
    pub(crate) fn dpu(&self) -> Option<&str> {
        self.spec.dpu.as_deref()
    }

    /// What the binder says of it.
    pub(crate) fn bound_condition(&self) -> Option<&Condition> {
        self.told.iter().flatten().find(|condition| condition.type_ == BOUND)
    }

    /// The uid of the set that made it.
    pub(crate) fn set_uid(&self) -> Option<&str> {
        let owners = self.metadata.owner_references.iter().flatten();
        let mut owners = owners.filter(|owner| owner.controller == Some(true));
        owners.next().map(|owner| owner.uid.as_str())
    }

    /// Which revision of its set it has.
    pub(crate) fn revision(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(REVISION_ANNOTATION).map(String::as_str)
    }

    /// Its uid.
    pub(crate) fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Who is first where not all can be: the older, as the agents decide it too.
    pub(crate) fn seniority(&self) -> (Timestamp, &str) {
        let created = self.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        (created, self.uid())
    }

    /// It is being deleted.
    pub(crate) fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

/// Whether spec.dpu is the binder's, and only the binder's.
fn owns_dpu(metadata: &ObjectMeta) -> bool {
    let mut owners = metadata.managed_fields.iter().flatten().filter(|entry| {
        let fields = entry.fields_v1.as_ref();
        entry.subresource.is_none()
            && fields.is_some_and(|fields| fields.0.pointer("/f:spec/f:dpu").is_some())
    });
    let first = owners.next().and_then(|entry| entry.manager.as_deref());
    first == Some(manager::BINDER) && owners.next().is_none()
}

impl Kept for Device {
    type Object = VirtnetDevice;
    fn keep(object: VirtnetDevice) -> Option<Self> {
        let name = object.name_any();
        match Self::parse(object) {
            Ok(device) => Some(device),
            Err(error) => {
                warn!(device = name, %error, "an object can't be understood; it is left as it is");
                None
            }
        }
    }
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}
