//! [`Target`]: a `Dpu`, with what the controllers need of it and no more.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use virtnet_crds::conditions::READY;
use virtnet_crds::{Allocated, Capacity, Dpu, DpuSelector, FunctionType, Reason};

use super::Kept;

/// A DPU.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) metadata: ObjectMeta,
    /// What its agent reported; `None`: nothing yet.
    pub(crate) reported: Option<Reported>,
    /// Its Ready is Unknown.
    pub(crate) is_unknown: bool,
    /// Why nothing can be made on it now.
    pub(crate) trouble: Option<&'static str>,
}

/// What an agent reported of its DPU that tells what there is room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) capacity: Capacity,
    pub(crate) allocated: Allocated,
    /// Functions that no object declares.
    pub(crate) undeclared: Vec<Undeclared>,
    /// The version of its controller, which decides on what it can do.
    pub(crate) controller: Option<String>,
}

/// A function that no object declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Undeclared {
    pub(crate) vuid: String,
    pub(crate) type_: FunctionType,
    /// The index of a static PF, or that of the VF's PF.
    pub(crate) pf: Option<u16>,
    pub(crate) vf: Option<u16>,
    pub(crate) mac: Option<String>,
    pub(crate) representor: Option<String>,
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
        let is_unknown = ready.is_some_and(|condition| condition.status == "Unknown");
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
            let undeclared = undeclared.map(|function| Undeclared {
                vuid: function.vuid,
                type_: function.type_,
                pf: function.pf,
                vf: function.vf,
                mac: function.mac.map(|mac| mac.to_ascii_lowercase()),
                representor: function.representor,
            });
            let controller = status.versions.and_then(|versions| versions.controller);
            Some(Reported { capacity, allocated, undeclared: undeclared.collect(), controller })
        });
        Self { metadata, reported, is_unknown, trouble }
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

/// Says that a selector matches no DPU.
pub(crate) fn none_selected(selector: Option<&DpuSelector>) -> String {
    let labels = selector.iter().flat_map(|selector| &selector.match_labels);
    let labels: Vec<_> = labels.map(|(key, value)| format!("{key}={value}")).collect();
    if labels.is_empty() {
        "there is no Dpu".to_owned()
    } else {
        format!("no Dpu has the labels {}", labels.join(","))
    }
}
