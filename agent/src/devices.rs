//! The devices of this DPU as the API server last told of them, by watch or in answer to our own writes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use tracing::warn;
use virtnet_client::is_newer;
use virtnet_crds::VirtnetDevice;

use crate::api::Written;
use crate::desired::{Device, Uid};

/// What an event of the watch means for the loop.
#[derive(Debug)]
pub(crate) enum News {
    /// Nothing that planning would see.
    None,
    /// There is cause to plan.
    Changed,
    /// There is cause to plan, and these devices are no longer among ours: it is not known why.
    Left(Vec<Device>),
}

/// The objects, and what planning needs of them.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    present: Known,
    /// What a list has brought so far; it takes the place of the above when it is complete.
    listing: Option<Known>,
    complete: bool,
    /// Devices that were given to another DPU while we may have been making their function, and those that left while they
    /// were being deleted: what there is of them here is removed as if they were being deleted.
    departed: BTreeMap<Uid, Device>,
}

#[derive(Debug, Default)]
struct Known {
    parsed: BTreeMap<Uid, Device>,
    metadata: BTreeMap<Uid, Arc<ObjectMeta>>,
    /// Without those that could not be decoded.
    objects: BTreeMap<Uid, Arc<VirtnetDevice>>,
}

impl Devices {
    /// Whether a first list was complete: before that an object that is not here says nothing.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The devices of this DPU.
    pub(crate) fn parsed(&self) -> &BTreeMap<Uid, Device> {
        &self.present.parsed
    }

    /// The devices as planning takes them: with those that have departed.
    pub(crate) fn for_planning(&self) -> Cow<'_, BTreeMap<Uid, Device>> {
        if self.departed.is_empty() {
            return Cow::Borrowed(&self.present.parsed);
        }
        let mut devices = self.present.parsed.clone();
        for (uid, device) in &self.departed {
            devices.entry(uid.clone()).or_insert_with(|| device.clone());
        }
        Cow::Owned(devices)
    }

    /// The metadata of the object as it was last seen.
    pub(crate) fn metadata(&self, uid: &Uid) -> Option<&Arc<ObjectMeta>> {
        self.present.metadata.get(uid)
    }

    /// What there is of the device here is to be removed, unless it has come back meanwhile. Says whether it is.
    pub(crate) fn depart(&mut self, device: Device) -> bool {
        if self.present.parsed.contains_key(&device.uid) {
            return false;
        }
        // It keeps the finalizer here, for without it planning would take it that nothing of it is left.
        self.departed.insert(device.uid.clone(), Device { deleting: true, finalizer: true, ..device });
        true
    }

    /// Whether the device has departed, and something of it may still be here.
    pub(crate) fn is_departed(&self, uid: &Uid) -> bool {
        self.departed.contains_key(uid)
    }

    /// Our finalizer is off the object. Where it was the last one the object is gone with it, and the answer bears no later
    /// version than the one that was known; so it is not left to the watch to tell.
    pub(crate) fn released(&mut self, uid: &Uid) {
        if let Some(device) = self.present.parsed.get_mut(uid) {
            device.finalizer = false;
        }
    }

    /// Nothing of the departed device is left here.
    pub(crate) fn forget_departed(&mut self, uid: &Uid) {
        self.departed.remove(uid);
    }

    /// The object as it was last seen; none where it could not be decoded.
    pub(crate) fn object(&self, uid: &Uid) -> Option<&Arc<VirtnetDevice>> {
        self.present.objects.get(uid)
    }

    /// Takes in what the watch tells, and says whether that is news: an echo of a write of ours is none.
    pub(crate) fn apply(&mut self, event: Event<DeserializeGuard<VirtnetDevice>>) -> News {
        match event {
            Event::Init => {
                self.listing = Some(Known::default());
                News::None
            }
            Event::InitApply(guard) => {
                self.listing.get_or_insert_default().insert(guard.0);
                News::None
            }
            Event::InitDone => {
                let mut listed = self.listing.take().unwrap_or_default();
                // A list may be older than the answer to a write of ours.
                for (uid, object) in &self.present.objects {
                    if listed.objects.get(uid).is_some_and(|old| is_newer(&object.metadata, &old.metadata)) {
                        listed.insert(Ok(VirtnetDevice::clone(object)));
                    }
                }
                let before = std::mem::replace(&mut self.present, listed);
                self.complete = true;
                let here = &self.present.parsed;
                self.departed.retain(|uid, _| !here.contains_key(uid));
                // What happened while the watch was cut is seen only by what is missing.
                let missing = before.parsed.into_values().filter(|device| !here.contains_key(&device.uid));
                News::Left(missing.filter(|device| device.finalizer).collect())
            }
            Event::Apply(guard) => {
                if self.insert_newer(guard.0) {
                    News::Changed
                } else {
                    News::None
                }
            }
            Event::Delete(guard) => {
                let uid = Uid::from(guard.uid().unwrap_or_default().as_str());
                self.present.objects.remove(&uid);
                self.present.metadata.remove(&uid);
                match self.present.parsed.remove(&uid) {
                    // We have not released it, deleted or not: it may have been given to another DPU.
                    Some(device) if device.finalizer => {
                        let deleting = device.deleting || guard.meta().deletion_timestamp.is_some();
                        News::Left(vec![Device { deleting, ..device }])
                    }
                    Some(_) | None => News::Changed,
                }
            }
        }
    }

    /// Takes in the answer to a write of ours, so that the next plan doesn't wait for the watch to tell of it. An object
    /// that has gone since stays gone.
    pub(crate) fn written(&mut self, object: Written) {
        let uid = Uid::from(object.uid().unwrap_or_default().as_str());
        if self.present.parsed.contains_key(&uid) {
            self.insert_newer(object.0);
        }
    }

    fn insert_newer(&mut self, object: Result<VirtnetDevice, InvalidObject>) -> bool {
        let metadata = match &object {
            Ok(object) => &object.metadata,
            Err(invalid) => &invalid.metadata,
        };
        let uid = Uid::from(metadata.uid.as_deref().unwrap_or_default());
        if self.present.metadata.get(&uid).is_some_and(|known| !is_newer(metadata, known)) {
            return false;
        }
        self.departed.remove(&uid);
        self.present.insert(object);
        true
    }
}

impl Known {
    fn insert(&mut self, object: Result<VirtnetDevice, InvalidObject>) {
        let (device, metadata) = match object {
            Ok(mut object) => {
                object.metadata.managed_fields = None;
                let device = Device::parse(&object);
                let metadata = object.metadata.clone();
                self.objects.insert(device.uid.clone(), Arc::new(object));
                (device, metadata)
            }
            Err(invalid) => {
                let device = Device::undecodable(&invalid.metadata, &invalid.error);
                warn!(device = %device.key, error = %invalid.error, "an object could not be decoded; it is left as it is");
                self.objects.remove(&device.uid);
                (device, ObjectMeta { managed_fields: None, ..invalid.metadata })
            }
        };
        self.metadata.insert(device.uid.clone(), Arc::new(metadata));
        self.parsed.insert(device.uid.clone(), device);
    }
}
