//! The devices of this DPU as the API server last told of them, by watch or in answer to our own writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use kube::runtime::watcher::Event;
use virtnet_crds::VirtnetDevice;

use crate::desired::{Device, Uid};

/// The objects, and what planning needs of them.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    present: Known,
    /// What a list has brought so far; it takes the place of the above when it is complete.
    listing: Option<Known>,
    complete: bool,
}

#[derive(Debug, Default)]
struct Known {
    parsed: BTreeMap<Uid, Device>,
    /// Without those that could not be decoded.
    objects: BTreeMap<Uid, Arc<VirtnetDevice>>,
}

impl Devices {
    /// Whether a first list was complete: before that an object that is not here says nothing.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The devices as planning takes them.
    pub(crate) fn parsed(&self) -> &BTreeMap<Uid, Device> {
        &self.present.parsed
    }

    /// The object as it was last seen; none where it could not be decoded.
    pub(crate) fn object(&self, uid: &Uid) -> Option<&Arc<VirtnetDevice>> {
        self.present.objects.get(uid)
    }

    /// Takes in what the watch tells.
    pub(crate) fn apply(&mut self, event: Event<DeserializeGuard<VirtnetDevice>>) {
        match event {
            Event::Init => self.listing = Some(Known::default()),
            Event::InitApply(guard) => self.listing.get_or_insert_default().insert(guard.0),
            Event::InitDone => {
                let mut listed = self.listing.take().unwrap_or_default();
                // A list may be older than the answer to a write of ours.
                for (uid, object) in &self.present.objects {
                    if listed.objects.get(uid).is_some_and(|old| is_newer(&object.metadata, &old.metadata)) {
                        listed.insert(Ok(VirtnetDevice::clone(object)));
                    }
                }
                self.present = listed;
                self.complete = true;
            }
            Event::Apply(guard) => self.insert_newer(guard.0),
            Event::Delete(guard) => {
                let uid = Uid::from(guard.uid().unwrap_or_default().as_str());
                self.present.parsed.remove(&uid);
                self.present.objects.remove(&uid);
            }
        }
    }

    /// Takes in the answer to a write of ours, so that the next plan doesn't wait for the watch to tell of it. An object
    /// that has gone since stays gone.
    pub(crate) fn written(&mut self, object: VirtnetDevice) {
        let uid = Uid::from(object.uid().unwrap_or_default().as_str());
        if self.present.parsed.contains_key(&uid) {
            self.insert_newer(Ok(object));
        }
    }

    fn insert_newer(&mut self, object: Result<VirtnetDevice, InvalidObject>) {
        let metadata = match &object {
            Ok(object) => &object.metadata,
            Err(invalid) => &invalid.metadata,
        };
        let uid = Uid::from(metadata.uid.as_deref().unwrap_or_default());
        if self.present.objects.get(&uid).is_some_and(|known| is_newer(&known.metadata, metadata)) {
            return;
        }
        self.present.insert(object);
    }
}

impl Known {
    fn insert(&mut self, object: Result<VirtnetDevice, InvalidObject>) {
        let device = match object {
            Ok(mut object) => {
                object.metadata.managed_fields = None;
                let device = Device::parse(&object);
                self.objects.insert(device.uid.clone(), Arc::new(object));
                device
            }
            Err(invalid) => {
                let device = Device::undecodable(&invalid.metadata, &invalid.error);
                self.objects.remove(&device.uid);
                device
            }
        };
        self.parsed.insert(device.uid.clone(), device);
    }
}

/// Whether `a` is a later version than `b`: versions of one resource are ordered as numbers (Kubernetes 1.35 and later say
/// so; earlier servers behave so).
fn is_newer(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    let version =
        |meta: &ObjectMeta| meta.resource_version.as_deref().and_then(|text| text.parse::<u64>().ok());
    version(a) > version(b)
}
