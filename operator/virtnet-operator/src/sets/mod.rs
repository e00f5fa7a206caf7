//! The set controller: makes the devices of each `VirtnetDeviceSet`, changes them a few at a time, takes away those that are too
//! many, and tells how the set stands.
//!
//! What is declared of a set is looked at anew before its devices are written, past the cache: an operator whose watch is behind
//! would else undo what another one does, and that one do it again. What the set owns goes with it by the API's own garbage
//! collection.

mod plan;
mod standing;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::core::Status;
use kube::{Client, ResourceExt};
use tokio::time::Instant;
use tracing::{info, warn};
use virtnet_client::{Clock, Events, about, chain, is_overtaken};
use virtnet_crds::{
    Member, REVISION_ANNOTATION, Reason, VirtnetDevice, VirtnetDeviceSet, VirtnetDeviceSetStatus,
};

use crate::fleet::{Device, Fleet, Set, Target};
use crate::pace::Pace;
use crate::writes::{self, LONGEST_RETRY};
use plan::{Input, Plan, plan};
use standing::Standing;
use write::Looked;

/// A state other than Ready is told when the one before was told, or has not been true, for this long.
const LASTING: Duration = Duration::from_secs(1);
/// How many devices of one set are written at once, so that what is declared anew meanwhile is followed soon, and other sets are
/// not kept waiting. Where the API refuses some there are fewer.
const AT_ONCE: usize = 16;
/// How long the watch may take to tell of a device that was made, before it is made sure of by another request.
const EXPECTED: Duration = Duration::from_secs(10);

/// A request about a set.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// What the API has of the set at this moment, and of DPUs.
    Look,
    /// A device of it.
    Device { name: String, doing: Doing },
    /// Its status.
    Tell,
}

/// What is done with a device.
#[derive(Clone, Debug)]
pub(crate) enum Doing {
    Create(Member),
    Change(Member),
    Delete,
}

/// The answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Looked(Box<Looked>),
    /// A device that was made.
    Made(Box<VirtnetDevice>),
    /// A device as it is now.
    Changed(Box<VirtnetDevice>),
    /// The uid of a device that is gone.
    Gone(String),
    Set(Box<VirtnetDeviceSet>),
}

type Writes = writes::Writes<Write, Answer>;
type Done = writes::Done<Write, Answer>;

pub(crate) struct Sets {
    pub(crate) pace: Pace,
    pub(crate) writes: Writes,
    client: Client,
    clock: Clock,
    events: Events,
    /// Sets by uid that were looked at since the last plan, each with the DPUs that were looked at for it.
    fresh: BTreeMap<String, BTreeSet<String>>,
    /// What the API said against writes of devices, by the key of the write.
    refusals: BTreeMap<String, (Reason, String)>,
    /// Devices that were made and of which the watch has not told, by the key of the write: their uid, and until when that is
    /// awaited.
    expected: BTreeMap<String, (String, Instant)>,
    /// Sets by uid whose status differs from how they stand, and since when.
    untold: BTreeMap<String, Instant>,
    /// What was told of sets last, by uid, and how long something else waits where someone contradicted that.
    told: BTreeMap<String, (VirtnetDeviceSetStatus, Duration)>,
}

/// The key of a write: the set's uid, and what it is of.
fn key(set: &str, of: &str) -> String {
    format!("{set} {of}")
}

/// What no device is named.
const LOOK: &str = "(look)";
const TELL: &str = "(tell)";

impl Sets {
    pub(crate) fn new(client: Client, clock: Clock, events: Events) -> Self {
        Self {
            pace: Pace::new(),
            writes: Writes::default(),
            client,
            clock,
            events,
            fresh: BTreeMap::new(),
            refusals: BTreeMap::new(),
            expected: BTreeMap::new(),
            untold: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// Plans for each set and begins to write, where there is cause; says whether there was.
    pub(crate) fn act(&mut self, fleet: &Fleet, now: Instant) -> bool {
        if !self.pace.begin(now) {
            return false;
        }
        let sets = fleet.sets.all();
        let is_known = |key: &str| key.split_once(' ').is_some_and(|(uid, _)| sets.contains_key(uid));
        self.writes.retain(is_known);
        self.refusals.retain(|key, _| is_known(key));
        self.untold.retain(|uid, _| sets.contains_key(uid));
        self.told.retain(|uid, _| sets.contains_key(uid));
        let devices = fleet.devices.all();
        self.expected.retain(|_, (uid, until)| *until > now && !devices.contains_key(uid));
        self.pace.look_again_at(self.expected.values().map(|(_, until)| *until).min());
        if sets.is_empty() {
            return true;
        }
        let index = Index::of(fleet);
        for set in sets.values().filter(|set| set.metadata.deletion_timestamp.is_none()) {
            self.act_on(set, &index, now);
        }
        self.fresh.clear();
        self.pace.end(now);
        true
    }

    fn act_on(&mut self, set: &Set, index: &Index<'_>, now: Instant) {
        static NONE: BTreeMap<&str, &Device> = BTreeMap::new();
        let uid = set.uid();
        let named = index.named.get(set.namespace()).unwrap_or(&NONE);
        let prefix = key(uid, "");
        let under_way = self.writes.busy_of(&prefix).filter_map(|(_, write)| match write {
            Write::Device { name, .. } => Some(name.clone()),
            Write::Look | Write::Tell => None,
        });
        let expected = self.expected.range(prefix.clone()..).map(|(key, _)| key.as_str());
        let expected = expected.map_while(|key| key.strip_prefix(&prefix)).map(str::to_owned);
        let under_way = under_way.chain(expected).collect();
        let mut held = BTreeMap::new();
        let mut next = None;
        for (key, of, until) in self.writes.all_held(&prefix, now) {
            let name = &key[prefix.len()..];
            if of == Some(version(set, named.get(name).copied()).as_str()) {
                held.insert(name.to_owned(), self.refusals.get(key).cloned());
                next = [next, Some(until)].into_iter().flatten().min();
            }
        }
        self.pace.look_again_at(next);
        let owned = index.owned.get(uid).map(Vec::as_slice).unwrap_or_default();
        let plan = plan(&Input { set, owned, named, dpus: &index.dpus, under_way: &under_way, held: &held });
        if plan.has_work() {
            let refusals = held.values().flatten().count();
            let room = (AT_ONCE / (1 + refusals)).max(1).saturating_sub(self.writes.busy_of(&prefix).count());
            match self.fresh.get(uid) {
                // What is under way wakes the next plan.
                _ if room == 0 => {}
                Some(looked_at) if plan.hinges_on.is_subset(looked_at) => {
                    self.carry_out(set, named, &plan, room);
                    // How it stands while that is under way.
                    self.pace.look_again_at(Some(now));
                }
                _ => self.look(set, plan.hinges_on.clone(), now),
            }
        }
        self.tell(set, &plan.standing, now);
    }

    /// Looks at the set anew; the next plan is carried out.
    fn look(&mut self, set: &Set, dpus: BTreeSet<String>, now: Instant) {
        let (key, version) = (key(set.uid(), LOOK), set.metadata.resource_version.clone());
        if let Some(at) = self.writes.held(&key, version.as_deref(), now) {
            self.pace.look_again_at(Some(at));
            return;
        }
        let (client, metadata) = (self.client.clone(), set.metadata.clone());
        self.writes.begin(key, version, Write::Look, async move {
            write::look(&client, &metadata, dpus).await.map(|looked| Answer::Looked(Box::new(looked)))
        });
    }

    /// Begins what there is room for; the rest comes with later plans, which know more.
    fn carry_out(&mut self, set: &Set, named: &BTreeMap<&str, &Device>, plan: &Plan, room: usize) {
        let delete = plan.delete.iter().map(|name| (name.clone(), Doing::Delete));
        let change = plan.change.iter().map(|(name, member)| (name.clone(), Doing::Change(member.clone())));
        let create =
            plan.create.iter().map(|member| (member.name(set.name()), Doing::Create(member.clone())));
        for (name, doing) in delete.chain(change).chain(create).take(room) {
            let device = named.get(name.as_str()).copied();
            self.begin(set, name, doing, device);
        }
    }

    fn begin(&mut self, set: &Set, name: String, doing: Doing, device: Option<&Device>) {
        let (client, set, device, what) = (self.client.clone(), set.clone(), device.cloned(), doing.clone());
        let (key, version) = (key(set.uid(), &name), version(&set, device.as_ref()));
        self.writes.begin(key, Some(version), Write::Device { name, doing }, async move {
            Ok(match (&what, &device) {
                (Doing::Change(member), Some(device)) => {
                    let changed = write::apply(&client, &set, member, Some(&device.metadata)).await?;
                    Answer::Changed(Box::new(changed))
                }
                (Doing::Delete, Some(device)) => match write::delete(&client, device).await? {
                    Some(marked) => Answer::Changed(Box::new(marked)),
                    None => Answer::Gone(device.uid().to_owned()),
                },
                (Doing::Create(member) | Doing::Change(member), _) => {
                    Answer::Made(Box::new(write::apply(&client, &set, member, None).await?))
                }
                (Doing::Delete, None) => Answer::Gone(String::new()),
            })
        });
    }

    /// Tells how the set stands, where that is other than was told and has been so for long enough.
    fn tell(&mut self, set: &Set, standing: &Standing, now: Instant) {
        let status = write::status(set, standing, &self.clock);
        if write::tells(&set.status, &status) {
            self.untold.remove(set.uid());
            return;
        }
        let since = *self.untold.entry(set.uid().to_owned()).or_insert(now);
        // Where another operator sees it otherwise, the two contradict each other ever more rarely.
        let told = self.told.get(set.uid());
        let contradicted = told.filter(|(told, _)| !write::tells(&set.status, told)).map(|(_, wait)| *wait);
        let wait = match contradicted {
            Some(wait) => wait,
            None if standing.reason == Reason::Ready => Duration::ZERO,
            None => LASTING,
        };
        let due = since + wait;
        let (key, version) = (key(set.uid(), TELL), set.metadata.resource_version.clone());
        let due = self.writes.held(&key, version.as_deref(), now).unwrap_or(due);
        if due > now {
            self.pace.look_again_at(Some(due));
            return;
        }
        if self.writes.busy().contains_key(&key) {
            return;
        }
        let next = contradicted.map_or(LASTING, |wait| (wait * 2).min(LONGEST_RETRY));
        self.untold.insert(set.uid().to_owned(), now);
        self.told.insert(set.uid().to_owned(), (status.clone(), next));
        let (client, metadata) = (self.client.clone(), set.metadata.clone());
        self.writes.begin(key, version, Write::Tell, async move {
            write::tell(&client, &metadata, &status).await.map(|set| Answer::Set(Box::new(set)))
        });
    }

    /// Takes in how a request ended.
    pub(crate) fn finish(&mut self, done: Done, fleet: &mut Fleet, now: Instant) {
        let uid = done.key.split_once(' ').map(|(uid, _)| uid.to_owned()).unwrap_or_default();
        let Some(set) = fleet.sets.all().get(&uid) else { return };
        if let Ok(Answer::Looked(looked)) = &done.result
            && looked.dpus.iter().flat_map(|(_, dpu)| dpu).any(|dpu| !fleet.knows_dpu(dpu))
        {
            // The watch will tell of it.
            self.writes.try_again(&done, now);
            return;
        }
        if let Ok(Answer::Made(device) | Answer::Changed(device)) = &done.result
            && device.metadata.deletion_timestamp.is_none()
            && device.annotations().get(REVISION_ANNOTATION) != Some(&set.revision)
        {
            let wait = self.writes.try_again(&done, now);
            let (set, device) = (set.key(), device.name_any());
            warn!(
                set,
                device, "the API took a device and made something else of it; it is tried again in {wait:?}"
            );
            return;
        }
        let error = match done.result {
            Ok(answer) => {
                if let Write::Device { name, doing } = &done.write {
                    info!(set = set.key(), device = name, "{}", doing.done());
                    self.refusals.remove(&done.key);
                }
                if let Answer::Set(told) = &answer {
                    self.publish(set, told);
                }
                self.take(uid, done.key, answer, fleet, now);
                return;
            }
            Err(ref error) => error,
        };
        let said = chain(error);
        let (overtaken, refusal) = match error {
            kube::Error::Api(status) if is_overtaken(status) => (true, None),
            kube::Error::Api(status) => (false, refusal(status)),
            _ => (false, None),
        };
        let set = set.key();
        let wait = self.writes.try_again(&done, now);
        match (&done.write, refusal) {
            // Another version is on its way by the watch.
            _ if overtaken => {}
            (Write::Device { name, .. }, refusal) => {
                warn!(
                    set,
                    device = name,
                    error = said,
                    "a device was not written; it is tried again in {wait:?}"
                );
                match refusal {
                    Some(reason) => self.refusals.insert(done.key, (reason, said)),
                    None => self.refusals.remove(&done.key),
                };
            }
            _ => warn!(set, error = said, "a request about a set failed; it is tried again in {wait:?}"),
        }
    }

    /// That a set stands otherwise than before is an Event.
    fn publish(&self, set: &Set, told: &VirtnetDeviceSet) {
        let before = write::ready(&set.status).map(|condition| condition.reason.as_str());
        let Some(now) = told.status.as_ref().and_then(write::ready) else { return };
        if before == Some(now.reason.as_str()) {
            return;
        }
        let about = about::<VirtnetDeviceSet>(&set.metadata);
        if [Reason::Ready, Reason::Progressing].iter().any(|reason| reason.as_str() == now.reason) {
            self.events.normal(about, &now.reason, now.message.clone());
        } else {
            self.events.warning(about, &now.reason, now.message.clone());
        }
    }

    fn take(&mut self, uid: String, key: String, answer: Answer, fleet: &mut Fleet, now: Instant) {
        match answer {
            Answer::Set(set) => fleet.sets.written(*set),
            Answer::Made(device) => {
                // Not taken into the fleet: it may have gone since, of which the watch has told then.
                let uid = device.metadata.uid.unwrap_or_default();
                self.expected.insert(key, (uid, now + EXPECTED));
            }
            Answer::Changed(device) => fleet.devices.written(*device),
            Answer::Gone(uid) => fleet.devices.forget(&uid),
            Answer::Looked(looked) => {
                let Looked { set, dpus } = *looked;
                match set {
                    Some(set) => {
                        fleet.sets.written(set);
                        self.fresh.insert(uid, dpus.iter().map(|(name, _)| name.clone()).collect());
                    }
                    None => fleet.sets.forget(&uid),
                }
                for (name, dpu) in dpus {
                    match dpu {
                        Some(dpu) => fleet.dpus.written(dpu),
                        None => fleet.forget_dpu(&name),
                    }
                }
            }
        }
    }
}

/// What the API has against a write as such.
fn refusal(status: &Status) -> Option<Reason> {
    match status.code {
        409 => Some(Reason::DeviceConflict),
        400 | 403 | 422 => Some(Reason::DeviceRefused),
        _ => None,
    }
}

/// What a write of a device depends on: where it failed it is tried at once when that is another.
fn version(set: &Set, device: Option<&Device>) -> String {
    let seen = device.and_then(|device| device.metadata.resource_version.as_deref());
    format!("{} {}", set.revision, seen.unwrap_or_default())
}

impl Doing {
    fn done(&self) -> &'static str {
        match self {
            Self::Create(_) => "made",
            Self::Change(_) => "changed",
            Self::Delete => "deleted",
        }
    }
}

/// The fleet as the plans of all sets look at it.
struct Index<'a> {
    /// Devices by the uid of the set that made them.
    owned: BTreeMap<&'a str, Vec<&'a Device>>,
    /// Devices by namespace and name.
    named: BTreeMap<&'a str, BTreeMap<&'a str, &'a Device>>,
    /// DPUs by name.
    dpus: BTreeMap<&'a str, &'a Target>,
}

impl<'a> Index<'a> {
    fn of(fleet: &'a Fleet) -> Self {
        let (mut owned, mut named) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, BTreeMap<_, _>>::new());
        for device in fleet.devices.all().values() {
            if let Some(set) = device.set_uid() {
                owned.entry(set).or_default().push(device);
            }
            named.entry(device.namespace()).or_default().insert(device.name(), device);
        }
        let dpus = fleet.dpus.all().values().map(|target| (target.name(), target)).collect();
        Self { owned, named, dpus }
    }
}
