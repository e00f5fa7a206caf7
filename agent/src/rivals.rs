//! Who else of the fleet has a MAC: devices by the labels that note it and by the statuses that tell of it, and functions
//! that other DPUs report and no object declares.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryFutureExt};
use jiff::Timestamp;
use kube::api::{Api, ListParams};
use kube::core::{ApiResource, DeserializeGuard, DynamicObject};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use tokio::sync::Mutex;
use virtnet_client::{begun_anew, watch};
use virtnet_crds::{Dpu, VirtnetDevice, mac_label};
use virtnet_model::Mac;

use crate::desired::{DeviceKey, Uid};

/// Another that has a MAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rival {
    /// A device.
    Device {
        /// Which.
        key: DeviceKey,
        /// Its DPU.
        dpu: Option<String>,
        /// Whether it is the one that has the MAC, or is to give it up.
        is_senior: bool,
    },
    /// A function that no object declares.
    Undeclared {
        /// Its VUID.
        vuid: String,
        /// The DPU.
        dpu: String,
    },
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { key, dpu: Some(dpu), .. } => write!(f, "{key} on {dpu}"),
            Self::Device { key, dpu: None, .. } => write!(f, "{key}"),
            Self::Undeclared { vuid, dpu } => write!(f, "{vuid} of {dpu}, which no object declares"),
        }
    }
}

/// A device that wants a MAC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant<'a> {
    /// Its uid.
    pub(crate) uid: &'a Uid,
    /// Its status tells of a function with the MAC.
    pub(crate) bore: bool,
    /// When its object was created.
    pub(crate) created: Timestamp,
}

/// Looks through the fleet.
#[derive(Clone)]
pub(crate) struct Rivals {
    client: Client,
    /// The DPU of this agent: what it has the plan itself knows.
    dpu: String,
    /// What the other DPUs last reported as undeclared.
    undeclared: Arc<Mutex<Option<Report>>>,
    /// How many requests for that have begun.
    asked: Arc<AtomicU64>,
}

/// The number of the request that it answers, and each function's MAC.
type Report = (u64, Arc<[(Mac, Rival)]>);

impl Rivals {
    pub(crate) fn new(client: Client, dpu: String) -> Self {
        Self { client, dpu, undeclared: Arc::default(), asked: Arc::default() }
    }

    /// Who else has the MAC, the most senior of several; `None`: nobody. The lists are as new as the request, so that a note
    /// that was written before is among them.
    pub(crate) async fn of(&self, mac: Mac, claimant: Claimant<'_>) -> kube::Result<Option<Rival>> {
        let kind = ApiResource::erase::<VirtnetDevice>(&());
        let devices: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        let noted = ListParams::default().labels(&mac_label(&mac.to_string()));
        let told = ListParams::default().fields(&format!("status.function.mac={mac}"));
        // A function is told of by a device or by its DPU's report, and one begins before the other ends. So what becomes a
        // device's or nobody's meanwhile is seen in one of the three.
        let before = self.undeclared().await?;
        let (noted, told) = futures::try_join!(devices.list(&noted), devices.list(&told))?;
        let after = self.undeclared().await?;
        let mut others: Vec<_> = noted
            .items
            .iter()
            .chain(&told.items)
            .filter(|object| {
                object.uid().as_deref() != Some(claimant.uid.as_str()) && dpu_of(object) != Some(&self.dpu)
            })
            .map(|object| (seniority_of(object, mac), object))
            .collect();
        others.sort_by(|(one, _), (other, _)| one.cmp(other));
        if let Some((seniority, object)) = others.first() {
            let own = (!claimant.bore, claimant.created, claimant.uid.to_string());
            return Ok(Some(Rival::Device {
                key: DeviceKey::of(&object.metadata),
                dpu: dpu_of(object).map(str::to_owned),
                is_senior: *seniority < own,
            }));
        }
        let mut undeclared = before.iter().chain(&*after);
        Ok(undeclared.find(|(theirs, _)| *theirs == mac).map(|(_, rival)| rival.clone()))
    }

    /// Waits until this one has the MAC no longer.
    pub(crate) async fn given_up(&self, mac: Mac, rival: &Rival) {
        match rival {
            Rival::Device { key, .. } => {
                let api: Api<DeserializeGuard<VirtnetDevice>> =
                    Api::namespaced(self.client.clone(), &key.namespace);
                let this = watcher::Config::default().fields(&format!("metadata.name={}", key.name));
                let mut there = false;
                let mut events = watch(api, this.streaming_lists(), &self.dpu).boxed();
                while let Some(event) = events.next().await {
                    let has = match &event {
                        Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                            there = true;
                            has_mac(object, mac)
                        }
                        Ok(watcher::Event::InitDone) => std::mem::take(&mut there),
                        Ok(watcher::Event::Delete(_)) => false,
                        Ok(watcher::Event::Init) => {
                            there = false;
                            true
                        }
                        Err(_) => true,
                    };
                    if !has {
                        return;
                    }
                }
            }
            Rival::Undeclared { vuid, dpu } => {
                let (api, name): (Api<Dpu>, _) = (Api::all(self.client.clone()), dpu.clone());
                let begin = move || watcher::watch_object(api.clone(), &name).boxed();
                let mut events = begun_anew(begin, &self.dpu).boxed();
                while let Some(event) = events.next().await {
                    let Ok(object) = event else { continue };
                    let functions = object.iter().flat_map(|object| &object.status);
                    let mut functions = functions.flat_map(|status| &status.undeclared);
                    let is_this = |mac_of: Option<&str>| mac_of.and_then(|mac| mac.parse().ok()) == Some(mac);
                    if !functions.any(|function| function.vuid == *vuid && is_this(function.mac.as_deref())) {
                        return;
                    }
                }
            }
        }
    }

    /// What other DPUs report as undeclared. All who came while one asked are answered by the next one's answer.
    async fn undeclared(&self) -> kube::Result<Arc<[(Mac, Rival)]>> {
        let came = self.asked.load(Ordering::SeqCst);
        let mut last = self.undeclared.lock().await;
        if let Some((number, functions)) = &*last
            && *number > came
        {
            return Ok(Arc::clone(functions));
        }
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let dpus: Api<DeserializeGuard<Dpu>> = Api::all(self.client.clone());
        let dpus = dpus.list(&ListParams::default()).map_ok(|list| list.items).await?;
        let others =
            dpus.into_iter().filter_map(|guard| guard.0.ok()).filter(|dpu| dpu.name_any() != self.dpu);
        let functions = others.flat_map(|dpu| {
            let name = dpu.name_any();
            let functions = dpu.status.unwrap_or_default().undeclared;
            functions.into_iter().filter_map(move |function| {
                let mac = function.mac?.parse().ok()?;
                Some((mac, Rival::Undeclared { vuid: function.vuid, dpu: name.clone() }))
            })
        });
        let functions: Arc<[_]> = functions.collect();
        *last = Some((number, Arc::clone(&functions)));
        Ok(functions)
    }
}

fn dpu_of(object: &DynamicObject) -> Option<&str> {
    object.data.pointer("/spec/dpu")?.as_str()
}

/// Who has a MAC that several want: whose function was seen with it, else the older.
fn seniority_of(object: &DynamicObject, mac: Mac) -> (bool, Timestamp, String) {
    let told = object.data.pointer("/status/function/mac").and_then(|mac| mac.as_str());
    let bears = told.and_then(|told| told.parse().ok()) == Some(mac);
    let created = object.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    (!bears, created, object.uid().unwrap_or_default())
}

/// Whether a device notes the MAC, or its status tells of it; so it may be where its object can't be decoded.
fn has_mac(object: &DeserializeGuard<VirtnetDevice>, mac: Mac) -> bool {
    let Ok(decoded) = &object.0 else { return true };
    let function = decoded.status.as_ref().and_then(|status| status.function.as_ref());
    let told = function.and_then(|function| function.mac.as_deref());
    object.labels().contains_key(&mac_label(&mac.to_string()))
        || told.and_then(|told| told.parse().ok()) == Some(mac)
}
