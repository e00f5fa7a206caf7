//! The liveness controller: where an agent is silent it says of the agent's devices and DPU that nothing is known of them, and
//! lets go what is deleted and nobody else would let go.
//!
//! An agent is silent when its Lease was not seen to be renewed for as long as it holds, by the clock of this operator; it is
//! looked past the watch before that is believed. The agent takes back what was said when it returns.

mod beats;
mod plan;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use kube::{Client, ResourceExt};
use tokio::time::Instant;
use tracing::{info, warn};
use virtnet_client::{Clock, Events, about, chain, is_overtaken};
use virtnet_crds::metadata::dpu_name;
use virtnet_crds::{Dpu, Reason, VirtnetDevice};

use crate::fleet::{Fleet, Target};
use crate::pace::Pace;
use crate::writes::{self, LONGEST_RETRY};
pub(crate) use beats::Beats;
use beats::Pulse;
use plan::{Plan, plan};

/// How long a deleted device that was taken from its DPU is left to the agent that had it.
const TAKEN: Duration = Duration::from_secs(60);

/// A request.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// The Lease of this DPU's agent, past every cache.
    Look(String),
    Mark((Reason, String)),
    /// The finalizer, if the agent of this DPU, where there is one, is still silent.
    Release(Option<String>),
}

/// The answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Lease(Option<Box<Lease>>),
    /// The DPU is declared.
    Declared,
    Device(Box<VirtnetDevice>),
    Dpu(Box<Dpu>),
}

type Writes = writes::Writes<Write, Answer>;
type Done = writes::Done<Write, Answer>;

pub(crate) struct Liveness {
    pub(crate) pace: Pace,
    pub(crate) writes: Writes,
    pub(crate) beats: Beats,
    client: Client,
    clock: Clock,
    events: Events,
    lease_namespace: String,
    /// DPUs whose agents are known to be silent.
    silent: BTreeSet<String>,
    /// Devices by uid that are being deleted and bound to nothing, and since when.
    unbound: BTreeMap<String, Instant>,
    /// When an object may be marked once more, and how long it is from then to the next time: where someone says otherwise, the
    /// two contradict each other ever more rarely.
    marked: BTreeMap<String, (Instant, Duration)>,
}

/// Begins the key of a look at a DPU's Lease, and no uid.
const LOOK: &str = "(lease) ";

impl Liveness {
    pub(crate) fn new(client: Client, clock: Clock, lease_namespace: String, events: Events) -> Self {
        Self {
            pace: Pace::new(),
            writes: Writes::default(),
            beats: Beats::default(),
            client,
            clock,
            events,
            lease_namespace,
            silent: BTreeSet::new(),
            unbound: BTreeMap::new(),
            marked: BTreeMap::new(),
        }
    }

    /// Takes in what the API tells of Leases. A renewal is cause to plan only where the agent was silent.
    pub(crate) fn hear(&mut self, event: Event<DeserializeGuard<Lease>>, now: Instant) {
        let of = match &event {
            Event::Apply(guard) => Some(guard.name_any()),
            Event::Delete(_) | Event::Init | Event::InitApply(_) | Event::InitDone => None,
        };
        self.beats.apply(event, now);
        if of.is_none_or(|dpu| self.silent.contains(&dpu)) {
            self.pace.wake();
        }
    }

    /// Plans and begins to write, where there is cause; says whether there was.
    pub(crate) fn act(&mut self, fleet: &Fleet, now: Instant) -> bool {
        if !self.pace.begin(now) {
            return false;
        }
        let (devices, dpus) = (fleet.devices.all(), fleet.dpus.all());
        // A name becomes a part of requests: one that no object can have is asked for by none. Older schemas took any.
        let bound = devices.values().filter_map(|device| device.dpu()).filter(|dpu| dpu_name(dpu).is_ok());
        let names: BTreeSet<&str> = dpus.values().map(Target::name).chain(bound).collect();
        self.beats.retain(|dpu| names.contains(dpu));
        let mut silent = BTreeSet::new();
        for dpu in &names {
            match self.beats.pulse(dpu, now) {
                Pulse::Alive(until) => {
                    self.pace.look_again_at(Some(until));
                    if self.silent.remove(*dpu) {
                        info!(dpu, "its agent lives");
                        if let Some(target) = dpus.values().find(|target| target.name() == *dpu) {
                            let about = about::<Dpu>(&target.metadata);
                            self.events.normal(about, "DpuReachable", "its agent lives again".to_owned());
                        }
                    }
                }
                Pulse::Suspect(at) => self.look(dpu, at, now),
                Pulse::Silent(at) => {
                    self.look(dpu, at, now);
                    silent.insert((*dpu).to_owned());
                    if self.silent.insert((*dpu).to_owned()) {
                        warn!(dpu, "its agent is silent: its Lease has expired");
                    }
                }
            }
        }
        self.silent.retain(|dpu| names.contains(dpu.as_str()));
        let Plan { mark, mark_dpus, release, release_unbound, release_dpus } = plan(devices, dpus, &silent);
        for (uid, why) in mark {
            if self.may_mark(&uid, now) {
                self.begin(fleet, uid, Write::Mark(why), now);
            }
        }
        for (uid, why) in mark_dpus {
            if self.may_mark(&uid, now) {
                self.begin(fleet, uid, Write::Mark(why), now);
            }
        }
        for uid in release {
            let dpu = devices.get(&uid).and_then(|device| device.dpu()).map(str::to_owned);
            self.begin(fleet, uid, Write::Release(dpu), now);
        }
        for uid in release_dpus {
            let dpu = dpus.get(&uid).map(|target| target.name().to_owned());
            self.begin(fleet, uid, Write::Release(dpu), now);
        }
        // An agent that was making the function when the device was taken from it needs the object to know that it may go.
        self.unbound.retain(|uid, _| release_unbound.contains(uid));
        for uid in release_unbound {
            let due = *self.unbound.entry(uid.clone()).or_insert(now) + TAKEN;
            if due > now {
                self.pace.look_again_at(Some(due));
            } else {
                self.begin(fleet, uid, Write::Release(None), now);
            }
        }
        let is_known = |uid: &str| devices.contains_key(uid) || dpus.contains_key(uid);
        self.writes
            .retain(|key| key.strip_prefix(LOOK).map_or_else(|| is_known(key), |dpu| names.contains(dpu)));
        self.marked.retain(|uid, _| is_known(uid));
        self.pace.end(now);
        true
    }

    /// Whether an object may be marked now, which is then remembered.
    fn may_mark(&mut self, uid: &str, now: Instant) -> bool {
        if self.writes.busy().contains_key(uid) {
            return false;
        }
        let (due, wait) = self.marked.get(uid).copied().unwrap_or((now, Duration::from_secs(1)));
        if due > now {
            self.pace.look_again_at(Some(due));
            return false;
        }
        self.marked.insert(uid.to_owned(), (now + wait, (wait * 2).min(LONGEST_RETRY)));
        true
    }

    fn look(&mut self, dpu: &str, at: Instant, now: Instant) {
        let key = format!("{LOOK}{dpu}");
        let at = self.writes.held(&key, None, now).map_or(at, |held| held.max(at));
        if at > now {
            self.pace.look_again_at(Some(at));
            return;
        }
        let (client, namespace, name) = (self.client.clone(), self.lease_namespace.clone(), dpu.to_owned());
        self.writes.begin(key, None, Write::Look(dpu.to_owned()), async move {
            write::look(&client, &namespace, &name).await.map(|lease| Answer::Lease(lease.map(Box::new)))
        });
    }

    fn begin(&mut self, fleet: &Fleet, uid: String, write: Write, now: Instant) {
        let device = fleet.devices.all().get(&uid).map(|device| &device.metadata);
        let dpu = fleet.dpus.all().get(&uid).map(|target| &target.metadata);
        let Some(metadata) = device.or(dpu).cloned() else { return };
        let version = metadata.resource_version.clone();
        if let Some(at) = self.writes.held(&uid, version.as_deref(), now) {
            self.pace.look_again_at(Some(at));
            return;
        }
        let (client, clock, what, is_device) =
            (self.client.clone(), self.clock.clone(), write.clone(), device.is_some());
        let namespace = self.lease_namespace.clone();
        let renewed = match &write {
            Write::Release(Some(dpu)) => self.beats.renewed(dpu).cloned(),
            _ => None,
        };
        self.writes.begin(uid, version, write, async move {
            if let Write::Release(Some(name)) = &what {
                // It can't be undone, so it is looked once more.
                let lease = write::look(&client, &namespace, name).await?;
                if lease.as_ref().and_then(|lease| lease.spec.as_ref()?.renew_time.clone()) != renewed {
                    return Ok(Answer::Lease(lease.map(Box::new)));
                }
                if is_device && write::is_declared(&client, name).await? {
                    return Ok(Answer::Declared);
                }
            }
            let device = |device| Answer::Device(Box::new(device));
            let dpu = |dpu| Answer::Dpu(Box::new(dpu));
            match (&what, is_device) {
                (Write::Mark(why), true) => write::mark(&client, &metadata, why, &clock).await.map(device),
                (Write::Mark(why), false) => write::mark_dpu(&client, &metadata, why, &clock).await.map(dpu),
                (_, true) => write::release(&client, &metadata).await.map(device),
                (_, false) => write::release_dpu(&client, &metadata).await.map(dpu),
            }
        });
    }

    /// Takes in how a request ended.
    pub(crate) fn finish(&mut self, done: Done, fleet: &mut Fleet, now: Instant) {
        let error = match done.result {
            Ok(Answer::Lease(lease)) => {
                if let Write::Look(dpu) | Write::Release(Some(dpu)) = &done.write {
                    self.beats.looked(dpu, lease.as_deref(), now);
                }
                return;
            }
            Ok(Answer::Declared) => {
                // The watch will tell of it.
                self.writes.try_again(&done, now);
                return;
            }
            // Without its last finalizer it is gone; the answer is then what it was at last.
            Ok(Answer::Device(device)) if is_gone(&device.metadata) => {
                return fleet.devices.forget(&done.key);
            }
            Ok(Answer::Dpu(dpu)) if is_gone(&dpu.metadata) => return fleet.dpus.forget(&done.key),
            Ok(Answer::Device(device)) => return fleet.devices.written(*device),
            Ok(Answer::Dpu(dpu)) => {
                if let Write::Mark((reason, message)) = &done.write {
                    self.events.warning(about::<Dpu>(&dpu.metadata), reason.as_str(), message.clone());
                }
                return fleet.dpus.written(*dpu);
            }
            Err(ref error) => error,
        };
        if let Write::Look(dpu) = &done.write {
            self.beats.not_looked(dpu);
        }
        let overtaken = matches!(error, kube::Error::Api(status) if is_overtaken(status));
        let said = chain(error);
        let wait = self.writes.try_again(&done, now);
        self.marked.remove(&done.key);
        if !overtaken {
            warn!(
                of = done.key,
                error = said,
                "a request about silent agents failed; it is tried again in {wait:?}"
            );
        }
    }
}

fn is_gone(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some() && metadata.finalizers.iter().flatten().count() == 0
}
