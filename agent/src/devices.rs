//! The devices of this DPU as the API server last told of them, by watch or in answer to our own writes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use virtnet_crds::VirtnetDevice;

use crate::desired::{Device, Uid};

/// What an event of the watch means for the loop.
#[derive(Debug)]
pub(crate) enum News {
    /// Nothing that planning would see.
    None,
    /// There is cause to plan.
    Changed,
    /// A device is no longer among ours, and it is not known why.
    Left(Box<Device>),
}

/// The objects, and what planning needs of them.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    present: Known,
    /// What a list has brought so far; it takes the place of the above when it is complete.
    listing: Option<Known>,
    complete: bool,
    /// Devices that were given to another DPU while we may have been making their function: what there is of them here is
    /// removed as if they were being deleted.
    departed: BTreeMap<Uid, Device>,
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

    /// The device is another DPU's now.
    pub(crate) fn depart(&mut self, device: Device) {
        self.departed.insert(device.uid.clone(), Device { deleting: true, finalizer: false, ..device });
    }

    /// Forgets departed devices of which nothing is left.
    pub(crate) fn forget_departed(&mut self, is_left: impl Fn(&Uid) -> bool) {
        self.departed.retain(|uid, _| is_left(uid));
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
                self.present = listed;
                self.complete = true;
                News::Changed
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
                match self.present.parsed.remove(&uid) {
                    // Gone without being deleted: it may have been given to another DPU.
                    Some(device) if guard.meta().deletion_timestamp.is_none() && device.finalizer => {
                        News::Left(Box::new(device))
                    }
                    Some(_) | None => News::Changed,
                }
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

    fn insert_newer(&mut self, object: Result<VirtnetDevice, InvalidObject>) -> bool {
        let metadata = match &object {
            Ok(object) => &object.metadata,
            Err(invalid) => &invalid.metadata,
        };
        let uid = Uid::from(metadata.uid.as_deref().unwrap_or_default());
        if self.present.objects.get(&uid).is_some_and(|known| !is_newer(metadata, &known.metadata)) {
            return false;
        }
        self.departed.remove(&uid);
        self.present.insert(object);
        true
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
