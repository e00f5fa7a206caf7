//! [`DpuView`]: what is shown of a `Dpu`: how it stands, what is in use of it, and the functions that no object declares.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;
use virtnet_crds::conditions::{
    FIRMWARE_CONFIGURED, READY, REBOOT_REQUIRED, RECONCILING, RESTART_REQUIRED, UPDATING,
};
use virtnet_crds::{Capacity, Dpu, Port, UndeclaredFunction};

use super::{Standing, State, find, kind};

/// A DPU.
#[derive(Debug, Serialize)]
pub(crate) struct DpuView<'a> {
    #[serde(flatten)]
    standing: Standing<'a>,
    /// It is being deleted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleting: bool,
    /// Hot-plug slots.
    slots: Use,
    /// VFs of all static PFs.
    vfs: Use,
    /// SFs of each port.
    sfs: Vec<(Port, Use)>,
    /// What else a person should know: a cold boot that is due, say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undeclared: Vec<UndeclaredView<'a>>,
}

/// How much of something is in use, and how much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Use {
    used: u32,
    all: u32,
}

/// A function that no object declares.
#[derive(Debug, Serialize)]
struct UndeclaredView<'a> {
    vuid: &'a str,
    kind: String,
    order: (u16, i32),
    #[serde(skip_serializing_if = "Option::is_none")]
    bdf: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    representor: Option<&'a str>,
}

impl<'a> DpuView<'a> {
    /// What is shown of it.
    pub(crate) fn of(dpu: &'a Dpu) -> Self {
        let Dpu { metadata, spec: _, status } = dpu;
        let status = status.as_ref();
        let conditions = status.map_or(&[][..], |status| &status.conditions);
        let is_current = status.is_some_and(|status| Some(status.observed_generation) == metadata.generation);
        let Capacity { hotplug_slots: slots, sfs, vfs, msix: _ } =
            status.and_then(|status| status.capacity.clone()).unwrap_or_default();
        let allocated = status.and_then(|status| status.allocated.clone()).unwrap_or_default();
        let sfs_in_use = |port| allocated.sfs.iter().find(|sfs| sfs.port == port).map_or(0, |sfs| sfs.count);
        Self {
            standing: Standing::of(conditions, is_current),
            deleting: metadata.deletion_timestamp.is_some(),
            slots: Use { used: allocated.hotplug_slots, all: slots },
            vfs: Use {
                used: allocated.vfs.iter().map(|vfs| vfs.count).sum(),
                all: vfs.iter().map(|vfs| vfs.count).sum(),
            },
            sfs: sfs
                .iter()
                .map(|sfs| (sfs.port, Use { used: sfs_in_use(sfs.port), all: sfs.count }))
                .collect(),
            notes: notes(conditions),
            undeclared: status.iter().flat_map(|status| &status.undeclared).map(UndeclaredView::of).collect(),
        }
    }
}

/// What conditions beside `Ready` say that is not so of a DPU with which all is well; the same words once.
fn notes(conditions: &[Condition]) -> Vec<&str> {
    let is_ready = find(conditions, READY).is_some_and(|ready| State::of(ready) == State::Ready);
    let is_notable = |condition: &&Condition| match condition.type_.as_str() {
        REBOOT_REQUIRED | RESTART_REQUIRED | UPDATING => condition.status == "True",
        FIRMWARE_CONFIGURED => condition.status == "False",
        // It works, and something that its spec wants is yet to come. Where it does not work, that is what `Ready` says.
        RECONCILING => is_ready && condition.status == "True",
        _ => false,
    };
    let mut notes = Vec::new();
    for Condition { type_, message, .. } in conditions.iter().filter(is_notable) {
        let note = if message.is_empty() { type_ } else { message }.as_str();
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    notes
}

impl<'a> UndeclaredView<'a> {
    fn of(function: &'a UndeclaredFunction) -> Self {
        let (pf, vf) = (function.pf, function.vf);
        Self {
            vuid: &function.vuid,
            kind: kind(function.type_, pf, vf),
            order: (pf.unwrap_or(u16::MAX), vf.map_or(-1, i32::from)),
            bdf: function.bdf.as_deref(),
            mac: function.mac.as_deref(),
            representor: function.representor.as_deref(),
        }
    }
}
