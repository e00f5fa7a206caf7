//! The fleet: devices and DPUs as the API last told of them, by watch or in answer to writes, with what the controllers need
//! of each and no more.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use tracing::warn;
use virtnet_client::is_newer;
use virtnet_crds::conditions::{BOUND, FUNCTION_READY, READY, STALLED};
use virtnet_crds::{
    Allocated, Capacity, Dpu, DpuSelector, Function, FunctionType, NotOneFunction, Port, Reason, Uplink,
    VirtnetDevice, VirtnetDeviceSpec, manager,
};

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
    /// The DPU that it is bound to.
    pub(crate) dpu: Option<String>,
    /// The binder set that, and nobody else does.
    pub(crate) bound_by_us: bool,
    /// Which DPUs it may be bound to.
    pub(crate) selector: Option<DpuSelector>,
    /// What it takes.
    pub(crate) need: Need,
    /// The MSI-X vectors that it wants.
    pub(crate) msix: Option<u16>,
    /// All that it wants but the DPU, as a number that tells whether that has changed.
    pub(crate) wanted: u64,
    /// The agent may have made its function.
    pub(crate) has_function: bool,
    /// The representor, where one is known.
    pub(crate) representor: Option<String>,
    /// Why the agent of its DPU does not make the function, where that is for what the DPU is or has.
    pub(crate) refusal: Option<(Reason, String)>,
    /// Its agent makes no function before a person changes the spec.
    pub(crate) is_stalled: bool,
    /// The conditions, where those of the binder are among them.
    pub(crate) told: Option<Vec<Condition>>,
}

/// Reasons that another DPU may not have.
const OF_THE_DPU: [Reason; 11] = [
    Reason::NoFreeSlot,
    Reason::SfExhausted,
    Reason::SfNumberInUse,
    Reason::NoSuchPf,
    Reason::VfOutOfRange,
    Reason::EmulationDisabled,
    Reason::UplinkAbsent,
    Reason::FunctionClaimed,
    Reason::MsixAboveLimit,
    Reason::TransitionalUnsupported,
    Reason::FeatureUnsupported,
];

impl Device {
    fn parse(object: VirtnetDevice) -> Result<Self, NotOneFunction> {
        let need = Need::of(&object.spec)?;
        let VirtnetDevice { mut metadata, spec, status } = object;
        let bound_by_us = owns_dpu(&metadata);
        metadata.managed_fields = None;
        metadata.annotations = None;
        let status = status.unwrap_or_default();
        let of_this_spec = Some(status.observed_generation) == metadata.generation;
        let refusal = status.conditions.iter().find(|condition| condition.type_ == FUNCTION_READY);
        let refusal = refusal.filter(|_| of_this_spec && status.function.is_none()).and_then(|condition| {
            let reason = OF_THE_DPU.into_iter().find(|reason| reason.as_str() == condition.reason)?;
            Some((reason, condition.message.clone()))
        });
        let wanted = {
            let mut hasher = DefaultHasher::new();
            let spec = VirtnetDeviceSpec { dpu: None, ..spec.clone() };
            serde_json::to_string(&spec).unwrap_or_default().hash(&mut hasher);
            hasher.finish()
        };
        let is_stalled = of_this_spec && status.conditions.iter().any(|condition| condition.type_ == STALLED);
        let told = status.conditions.iter().any(|condition| condition.type_ == BOUND);
        Ok(Self {
            dpu: spec.dpu,
            bound_by_us,
            selector: spec.dpu_selector,
            need,
            msix: spec.msix,
            wanted,
            has_function: status.function.is_some(),
            is_stalled,
            representor: status.representor.map(|representor| representor.name),
            refusal,
            told: told.then_some(status.conditions),
            metadata,
        })
    }

    /// `namespace/name`.
    pub(crate) fn key(&self) -> String {
        let ObjectMeta { namespace, name, .. } = &self.metadata;
        format!("{}/{}", namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default())
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

/// A DPU.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) metadata: ObjectMeta,
    /// What its agent reported; `None`: nothing yet.
    pub(crate) reported: Option<Reported>,
    /// Why nothing can be made on it now.
    pub(crate) trouble: Option<&'static str>,
}

/// What an agent reported of its DPU that tells what there is room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) capacity: Capacity,
    pub(crate) allocated: Allocated,
    /// Functions that no object declares, each with its representor.
    pub(crate) undeclared: Vec<(FunctionType, Option<String>)>,
    /// The version of its controller, which decides on what it can do.
    pub(crate) controller: Option<String>,
}

impl Target {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Whether a device with this selector may be bound to it. Without a selector it may be bound to none.
    pub(crate) fn is_selected(&self, selector: Option<&DpuSelector>) -> bool {
        static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
        selector.is_some_and(|selector| selector.matches(self.metadata.labels.as_ref().unwrap_or(&NO_LABELS)))
    }

    fn parse(object: Dpu) -> Self {
        let Dpu { mut metadata, spec: _, status } = object;
        metadata.managed_fields = None;
        let ready =
            status.iter().flat_map(|status| &status.conditions).find(|condition| condition.type_ == READY);
        let trouble =
            ready.and_then(|condition| match (condition.status.as_str(), condition.reason.as_str()) {
                ("Unknown", _) => Some("its agent is silent"),
                ("False", reason) if reason == Reason::ControllerUnavailable.as_str() => {
                    Some("its virtio-net controller can't be reached")
                }
                _ => None,
            });
        let reported = status.and_then(|status| {
            let (capacity, allocated) = (status.capacity?, status.allocated.unwrap_or_default());
            let undeclared = status.undeclared.into_iter();
            let undeclared = undeclared.map(|function| (function.type_, function.representor));
            let controller = status.versions.and_then(|versions| versions.controller);
            Some(Reported { capacity, allocated, undeclared: undeclared.collect(), controller })
        });
        Self { metadata, reported, trouble }
    }
}

/// Objects of one kind.
#[derive(Debug)]
pub(crate) struct Known<T> {
    present: BTreeMap<String, T>,
    /// What a list has brought so far; it takes the place of the above when it is complete.
    listing: Option<BTreeMap<String, T>>,
    complete: bool,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self { present: BTreeMap::new(), listing: None, complete: false }
    }
}

/// What can be known of.
pub(crate) trait Kept: Sized {
    /// The kind of object.
    type Object: ResourceExt;
    /// What is needed of it; `None`: it can't be understood.
    fn keep(object: Self::Object) -> Option<Self>;
    fn metadata(&self) -> &ObjectMeta;
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

impl Kept for Target {
    type Object = Dpu;
    fn keep(object: Dpu) -> Option<Self> {
        Some(Self::parse(object))
    }
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

impl<T: Kept> Known<T> {
    /// All of them, by uid.
    pub(crate) fn all(&self) -> &BTreeMap<String, T> {
        &self.present
    }

    /// Whether a first list was complete: before that an object that is not here says nothing.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes in what the watch tells.
    pub(crate) fn apply(&mut self, event: Event<DeserializeGuard<T::Object>>) {
        match event {
            Event::Init => self.listing = Some(BTreeMap::new()),
            Event::InitApply(guard) => {
                if let Some((uid, kept)) = understood(guard) {
                    self.listing.get_or_insert_default().insert(uid, kept);
                }
            }
            Event::InitDone => {
                let mut listed = self.listing.take().unwrap_or_default();
                // A list may be older than the answer to a write of ours.
                for (uid, kept) in std::mem::take(&mut self.present) {
                    if listed.get(&uid).is_some_and(|old| is_newer(kept.metadata(), old.metadata())) {
                        listed.insert(uid, kept);
                    }
                }
                (self.present, self.complete) = (listed, true);
            }
            Event::Apply(guard) => match guard.0 {
                Ok(object) => self.put(object),
                Err(invalid) => {
                    self.present.remove(invalid.metadata.uid.as_deref().unwrap_or_default());
                }
            },
            Event::Delete(guard) => {
                self.present.remove(&guard.uid().unwrap_or_default());
            }
        }
    }

    /// Takes in the answer to a write of ours, so that the next plan doesn't wait for the watch to tell of it. An object
    /// that has gone since stays gone.
    pub(crate) fn written(&mut self, object: T::Object) {
        if self.present.contains_key(&object.uid().unwrap_or_default()) {
            self.put(object);
        }
    }

    fn put(&mut self, object: T::Object) {
        let uid = object.uid().unwrap_or_default();
        if self.present.get(&uid).is_some_and(|known| !is_newer(object.meta(), known.metadata())) {
            return;
        }
        match T::keep(object) {
            Some(kept) => self.present.insert(uid, kept),
            None => self.present.remove(&uid),
        };
    }
}

fn understood<T: Kept>(guard: DeserializeGuard<T::Object>) -> Option<(String, T)> {
    match guard.0 {
        Ok(object) => Some((object.uid().unwrap_or_default(), T::keep(object)?)),
        Err(invalid) => {
            let name = invalid.metadata.name.as_deref().unwrap_or_default();
            warn!(name, error = %invalid.error, "an object could not be decoded; it is left as it is");
            None
        }
    }
}
