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
use virtnet_client::{Clock, chain, is_overtaken};
use virtnet_crds::{Dpu, Reason, VirtnetDevice};

use crate::fleet::{Fleet, Target};
use crate::pace::Pace;
use crate::writes::{self, LONGEST_RETRY};
pub(crate) use beats::Beats;
use beats::Pulse;
use plan::{Plan, plan};

/// A request.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// The Lease of this DPU's agent, past every cache.
    Look(String),
    Mark((Reason, String)),
    Release,
}

/// The answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Lease(Option<Box<Lease>>),
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
    lease_namespace: String,
    /// DPUs whose agents were silent when it was planned last.
    silent: BTreeSet<String>,
    /// When an object may be marked once more, and how long it is from then to the next time: where someone says otherwise, the
    /// two contradict each other ever more rarely.
    marked: BTreeMap<String, (Instant, Duration)>,
}

/// What no uid is.
fn look_of(dpu: &str) -> String {
    format!("(lease) {dpu}")
}

impl Liveness {
    pub(crate) fn new(client: Client, clock: Clock, lease_namespace: String) -> Self {
        Self {
            pace: Pace::new(),
            writes: Writes::default(),
            beats: Beats::default(),
            client,
            clock,
            lease_namespace,
            silent: BTreeSet::new(),
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

    /// Plans and begins to write, where there is cause.
    pub(crate) fn act(&mut self, fleet: &Fleet, now: Instant) {
        if !self.pace.begin(now) {
            return;
        }
        let (devices, dpus) = (fleet.devices.all(), fleet.dpus.all());
        let bound = devices.values().filter_map(|device| device.dpu());
        let names: BTreeSet<&str> = dpus.values().map(Target::name).chain(bound).collect();
        self.beats.retain(|dpu| names.contains(dpu));
        let mut silent = BTreeSet::new();
        for dpu in names {
            match self.beats.pulse(dpu, now) {
                Pulse::Alive(until) => self.pace.look_again_at(Some(until)),
                Pulse::Suspect => self.look(dpu, now),
                Pulse::Silent => {
                    if !self.silent.contains(dpu) {
                        warn!(dpu, "its agent is silent: its Lease has expired");
                    }
                    silent.insert(dpu.to_owned());
                }
            }
        }
        for dpu in self.silent.difference(&silent) {
            info!(dpu, "its agent lives");
        }
        self.silent = silent;
        let Plan { mark, mark_dpus, release, release_dpus } = plan(devices, dpus, &self.silent);
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
        for uid in release.into_iter().chain(release_dpus) {
            self.begin(fleet, uid, Write::Release, now);
        }
        self.writes.retain(|uid| devices.contains_key(uid) || dpus.contains_key(uid));
        self.marked.retain(|uid, _| devices.contains_key(uid) || dpus.contains_key(uid));
        self.pace.end(now);
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

    fn look(&mut self, dpu: &str, now: Instant) {
        let key = look_of(dpu);
        if let Some(at) = self.writes.held(&key, None, now) {
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
        self.writes.begin(uid, version, write, async move {
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
                if let Write::Look(dpu) = &done.write {
                    self.beats.looked(dpu, lease.as_deref(), now);
                }
                return;
            }
            // Without its last finalizer it is gone; the answer is then what it was at last.
            Ok(Answer::Device(device)) if is_gone(&device.metadata) => {
                return fleet.devices.forget(&done.key);
            }
            Ok(Answer::Dpu(dpu)) if is_gone(&dpu.metadata) => return fleet.dpus.forget(&done.key),
            Ok(Answer::Device(device)) => return fleet.devices.written(*device),
            Ok(Answer::Dpu(dpu)) => return fleet.dpus.written(*dpu),
            Err(ref error) => error,
        };
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
