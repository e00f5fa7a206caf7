//! [`Standing`]: how a set stands, in numbers and in the words of its condition.

use std::collections::BTreeMap;

use virtnet_crds::Reason;

use crate::fleet::{Device, Readiness, Set, none_selected};

/// How many devices a message names, and how long what is said of each may be, in bytes.
const NAMED: usize = 5;
const SAID: usize = 512;

/// How a set stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// How many devices there are, and how many of those have a DPU, are Ready, and have the present template.
    pub(super) replicas: usize,
    pub(super) bound: usize,
    pub(super) ready: usize,
    pub(super) updated: usize,
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Default for Standing {
    fn default() -> Self {
        Self { replicas: 0, bound: 0, ready: 0, updated: 0, reason: Reason::Ready, message: String::new() }
    }
}

impl Standing {
    /// A set that can't be understood.
    pub(super) fn of_error(owned: &[&Device], message: &str) -> Self {
        Self { reason: Reason::Undecodable, message: message.to_owned(), ..Self::counted("", owned) }
    }

    fn counted(revision: &str, owned: &[&Device]) -> Self {
        let count = |holds: &dyn Fn(&Device) -> bool| owned.iter().filter(|device| holds(device)).count();
        Self {
            replicas: owned.len(),
            bound: count(&|device| device.dpu().is_some()),
            ready: count(&|device| device.readiness == Readiness::Ready && !device.is_deleting()),
            updated: count(&|device| device.revision() == Some(revision)),
            ..Self::default()
        }
    }
}

/// What a plan finds on its way.
#[derive(Debug)]
pub(super) struct Tally {
    counted: Standing,
    /// How many are being written or are about to be.
    pub(super) working: usize,
    /// How many are to be changed, and wait for others to be Ready.
    pub(super) waiting: usize,
    /// How many are being deleted, or are not wanted.
    pub(super) leaving: usize,
    /// Names of devices that could not be written, for no fault of theirs.
    pub(super) failed: Vec<String>,
    /// Names and fields that are someone else's.
    pub(super) conflicts: Vec<String>,
    /// Devices of the present template that do not go on before a person changes it.
    stalled: Vec<String>,
    /// Devices that are not Ready.
    not_ready: Vec<String>,
}

impl Tally {
    pub(super) fn of(set: &Set, owned: &[&Device]) -> Self {
        let not_ready = owned.iter().filter_map(|device| match &device.readiness {
            Readiness::Ready => None,
            Readiness::Not(None) => Some(format!("{} is new or changed", device.name())),
            Readiness::Not(Some(said)) | Readiness::Unknown(said) => Some(of(device.name(), said)),
        });
        Self {
            counted: Standing::counted(&set.revision, owned),
            working: 0,
            waiting: 0,
            leaving: 0,
            failed: Vec::new(),
            conflicts: Vec::new(),
            stalled: Vec::new(),
            not_ready: not_ready.collect(),
        }
    }

    /// Notes of a device of the present template what keeps it from being as wanted.
    pub(super) fn look_at(&mut self, device: &Device, overridden: &[&str]) {
        let name = device.name();
        if !overridden.is_empty() {
            self.conflicts.push(format!("{} of {name} is held by someone else", overridden.join(", ")));
        }
        if let (true, Readiness::Not(Some(said))) = (device.is_stalled, &device.readiness) {
            self.stalled.push(of(name, said));
        }
    }

    /// What it comes to, of a set that wants so many devices.
    pub(super) fn standing(
        self,
        set: &Set,
        wanted: usize,
        refused: &BTreeMap<&str, &(Reason, String)>,
    ) -> Standing {
        let Self { counted, working, waiting, leaving, failed, conflicts, stalled, not_ready } = self;
        let progress = format!("{} of {wanted} devices updated, {} Ready", counted.updated, counted.ready);
        let halted = if waiting > 0 { format!("; {waiting} wait to be changed") } else { String::new() };
        let (reason, message) = if let Some((reason, _)) = refused.values().next() {
            let refused = refused.iter().map(|(name, (_, said))| of(name, said)).collect();
            (*reason, format!("{progress}{halted}; {}", listed(refused)))
        } else if !conflicts.is_empty() {
            (Reason::DeviceConflict, format!("{progress}{halted}; {}", listed(conflicts)))
        } else if !stalled.is_empty() {
            (Reason::DeviceStalled, format!("{progress}{halted}; {}", listed(stalled)))
        } else if !failed.is_empty() {
            let failed = failed.iter().map(|name| of(name, "not written, and tried again")).collect();
            (Reason::Progressing, format!("{progress}{halted}; {}", listed(failed)))
        } else if working > 0 {
            (Reason::Progressing, progress)
        } else if leaving > 0 {
            (Reason::Progressing, format!("{progress}; {leaving} being deleted"))
        } else if waiting > 0 || !not_ready.is_empty() || counted.updated < wanted {
            (Reason::DevicesNotReady, format!("{progress}{halted}; {}", listed(not_ready)))
        } else if wanted == 0 && set.spec.per_vf.is_some() {
            (Reason::NoDpuSelected, none_selected(Some(&set.spec.dpu_selector)))
        } else {
            let are = if wanted == 1 {
                "1 device is Ready".to_owned()
            } else {
                format!("{wanted} devices are Ready")
            };
            (Reason::Ready, are)
        };
        Standing { reason, message, ..counted }
    }
}

/// What is said of a device, no longer than is good for a list.
fn of(name: &str, said: &str) -> String {
    let mut end = said.len().min(SAID);
    while !said.is_char_boundary(end) {
        end -= 1;
    }
    format!("{name}: {}", &said[..end])
}

/// The first of them, and how many more there are.
fn listed(mut all: Vec<String>) -> String {
    let more = all.len().saturating_sub(NAMED);
    all.truncate(NAMED);
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    all.join("; ")
}
