//! The fleet: sets, devices and DPUs as the API last told of them, by watch or in answer to writes, with what the controllers
//! need of each and no more.

mod device;
mod set;
mod target;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use tracing::warn;
use virtnet_client::is_newer;
use virtnet_crds::Dpu;

pub(crate) use device::{Device, Need, Readiness};
pub(crate) use set::Set;
pub(crate) use target::{Reported, Target, Undeclared, none_selected};

/// All that is known.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) sets: Known<Set>,
    pub(crate) devices: Known<Device>,
    pub(crate) dpus: Known<Target>,
}

impl Fleet {
    /// Whether this very Dpu is known, in whatever version.
    pub(crate) fn knows_dpu(&self, dpu: &Dpu) -> bool {
        self.dpus.present.contains_key(&dpu.uid().unwrap_or_default())
    }

    /// Forgets a DPU that a request found gone.
    pub(crate) fn forget_dpu(&mut self, name: &str) {
        let known = self.dpus.present.iter().find(|(_, target)| target.name() == name);
        if let Some(uid) = known.map(|(uid, _)| uid.clone()) {
            self.dpus.forget(&uid);
        }
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

    /// Forgets one that is gone: a request found it so, and the watch will tell of it.
    pub(crate) fn forget(&mut self, uid: &str) {
        self.present.remove(uid);
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
