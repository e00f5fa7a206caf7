//! The loop: whatever happens wakes it, it observes, plans, starts what is to be done, and reports.
//!
//! One task, one `select!`. Steps, writes and observations run beside one another in [`Reconciler::work`] and end here, so
//! nothing that is slow delays anything else, and dropping the reconciler drops all that is under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, StreamExt, select_all};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::{DeserializeGuard, DynamicObject};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};
use virtnet_client::{Clock, Events, chain, is_overtaken};
use virtnet_crds::conditions::is_agents;
use virtnet_crds::{Dpu, Reason, VirtnetDevice, VirtnetDeviceStatus};
use virtnet_telemetry::Pulse;

use crate::api;
use crate::busy::Busy;
use crate::desired::{Device, DeviceKey, Known, Uid};
use crate::devices::{Devices, News};
use crate::dpu_object::{self, DpuObject, dpu_status};
use crate::execute::{Done, Hands, StepError};
use crate::gather::{Gather, more_ports_to_come};
use crate::key::Key;
use crate::macs::Macs;
use crate::metrics::{Metrics, StepLabels};
use crate::observe::{Observed, Parts};
use crate::plan::{Assessment, For, Free, Input, Part, Plan, Step, plan};
use crate::report::{Reports, Verdict, is_ready};
use crate::retry::Retries;
use crate::status::device_status;
use crate::suspects::Suspects;

/// Observations begin at least this far apart: events that come in a burst are answered together.
const PACE: Duration = Duration::from_millis(10);
/// A part that could not be observed is observed again after this long, should it not tell by an event that it is back.
const OUT_OF_REACH: Duration = Duration::from_secs(5);
/// So many looks, over half a minute, a junior has for giving a MAC up; who keeps it for longer waits for something with it.
const PATIENCE: u32 = 5;
/// So often in a row a write of an object may come too late before that is taken for a refusal.
const OVERTAKEN: u32 = 3;
/// The longest that is waited before the API is asked again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Devices of this DPU, as the API tells of them.
pub(crate) type DeviceEvents =
    BoxStream<'static, Result<watcher::Event<DeserializeGuard<VirtnetDevice>>, watcher::Error>>;
/// The Dpu object, as the API tells of it; `None`: there is none.
pub(crate) type DpuEvents = BoxStream<'static, Result<Option<Dpu>, watcher::Error>>;

/// All that the reconciler works with.
#[derive(Clone)]
pub(crate) struct Surroundings {
    /// The DPU's name.
    pub dpu: String,
    /// The API.
    pub client: Client,
    /// The DPU.
    pub parts: Parts,
    /// The time of day.
    pub clock: Clock,
    /// Where Events go.
    pub events: Events,
    /// What is counted.
    pub metrics: Metrics,
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("dpu", &self.dpu).finish_non_exhaustive()
    }
}

/// The state of the loop.
pub(crate) struct Reconciler {
    around: Surroundings,
    hands: Hands,
    api_calls: Arc<Semaphore>,
    devices: Devices,
    dpu: DpuObject,
    busy: Busy,
    retries: Retries,
    reports: Reports,
    suspects: Suspects,
    macs: Macs,
    gather: Gather,
    /// Devices whose status is being written, and whether it was to be judged again meanwhile.
    reporting: BTreeMap<Uid, bool>,
    work: FuturesUnordered<BoxFuture<'static, Finished>>,
    observing: bool,
    observed_at: Option<Instant>,
    /// Something happened that the last observation may not show.
    dirty: bool,
    /// What waits for time to pass: statuses that must last, the Dpu's next write.
    look_again: Option<Instant>,
}

/// Something under way that ended.
enum Finished {
    Observed(u64, Box<Observed>),
    Step(Box<Done>),
    Transaction(Vec<Done>),
    Status(Box<Reported>),
    Dpu(Box<kube::Result<Dpu>>),
    /// A device that left, and its object as it is now.
    Left(Box<Device>, Box<Option<DynamicObject>>),
    /// The MAC that the device waits for was given up; or the wait was.
    MacGivenUp(Uid),
}

/// What came of writing a status.
struct Reported {
    uid: Uid,
    /// The version of the object that it was to replace.
    version: Option<String>,
    /// It says Ready, and the object did not.
    became_ready: bool,
    result: kube::Result<VirtnetDevice>,
}

impl Reconciler {
    /// A reconciler that knows nothing yet.
    pub(crate) fn new(around: Surroundings) -> Self {
        let hands = Hands::new(around.parts.clone(), around.client.clone(), around.dpu.clone());
        Self {
            api_calls: hands.api_calls(),
            hands,
            around,
            devices: Devices::default(),
            dpu: DpuObject::default(),
            busy: Busy::default(),
            retries: Retries::default(),
            reports: Reports::default(),
            suspects: Suspects::default(),
            macs: Macs::default(),
            gather: Gather::default(),
            reporting: BTreeMap::new(),
            work: FuturesUnordered::new(),
            observing: false,
            observed_at: None,
            dirty: true,
            look_again: None,
        }
    }

    /// Runs until dropped. Ends by itself only when the watches do, which they don't.
    pub(crate) async fn run(mut self, mut devices: DeviceEvents, mut dpu: DpuEvents) {
        let Parts { controller, switch, links, firmware, host } = &self.around.parts;
        let mut parts = select_all([
            controller.events(),
            switch.events(),
            links.events(),
            firmware.events(),
            host.events(),
        ]);
        loop {
            self.wake();
            self.begin_observation();
            let wake = self.next_wake();
            // Biased, so that the same events are taken in the same order whenever they come again.
            tokio::select! {
                biased;
                event = devices.next() => match event {
                    Some(Ok(event)) => {
                        self.around.metrics.watch_events.inc();
                        self.told(event);
                    }
                    Some(Err(error)) => warn!(error = chain(&error), "the watch of VirtnetDevices was cut; it is taken up again"),
                    None => return,
                },
                event = dpu.next() => match event {
                    Some(Ok(object)) => {
                        self.dpu.watched(object);
                        self.dirty = true;
                    }
                    Some(Err(error)) => {
                        warn!(error = chain(&error), "the watch of the Dpu was cut; it is taken up again");
                        self.dpu.cut();
                        self.dirty = true;
                    }
                    None => return,
                },
                Some(_) = parts.next() => self.dirty = true,
                Some(finished) = self.work.next() => self.finish(finished),
                () = sleep_until(wake) => {}
            }
            self.around.metrics.pulse.turn(self.around.clock.now());
        }
    }

    /// The API told of a device.
    fn told(&mut self, event: watcher::Event<DeserializeGuard<VirtnetDevice>>) {
        match self.devices.apply(event) {
            News::None => {}
            News::Changed => self.dirty = true,
            News::Left(devices) => {
                self.dirty = true;
                for device in devices {
                    // What its object wants is known already, wherever that is now.
                    if device.deleting {
                        self.devices.depart(device);
                        continue;
                    }
                    let (client, calls) = (self.around.client.clone(), Arc::clone(&self.api_calls));
                    self.work.push(Box::pin(async move {
                        let object = look_up(&client, &calls, &device).await;
                        Finished::Left(Box::new(device), Box::new(object))
                    }));
                }
            }
        }
    }

    /// Starts an observation if there is cause for one and none is under way.
    fn begin_observation(&mut self) {
        let paced = self.observed_at.is_none_or(|at| at + PACE <= Instant::now());
        if !self.dirty || self.observing || !paced || !self.devices.is_complete() {
            return;
        }
        self.dirty = false;
        self.observing = true;
        self.observed_at = Some(Instant::now());
        let number = self.busy.begin_observation();
        let parts = self.around.parts.clone();
        self.work.push(Box::pin(async move { Finished::Observed(number, Box::new(parts.observe().await)) }));
    }

    /// When to wake if nothing happens.
    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let can_observe = self.dirty && !self.observing && self.devices.is_complete();
        let paced = can_observe.then(|| self.observed_at.map_or(now, |at| at + PACE));
        [paced, self.look_again, self.retries.next(now), self.suspects.next(now)]
            .into_iter()
            .flatten()
            .min()
            .map_or(now + Pulse::BEAT, |at| at.min(now + Pulse::BEAT))
    }

    /// What waited for time to pass is looked at again when it has. A mere heartbeat is no cause.
    fn wake(&mut self) {
        let now = Instant::now();
        if self.look_again.is_some_and(|at| at <= now) {
            self.look_again = None;
            self.dirty = true;
        }
        let retry_due = self.retries.take_due(now);
        let second_look_due = self.suspects.take_due(now);
        self.dirty |= retry_due || second_look_due;
    }

    fn finish(&mut self, finished: Finished) {
        match finished {
            Finished::Observed(number, observed) => {
                self.observing = false;
                self.around.metrics.observations.inc();
                self.busy.observed(number);
                self.act(&observed);
                self.dirty |= self.busy.needs_observation();
            }
            Finished::Step(done) => {
                self.stepped(*done);
                self.dirty = true;
            }
            Finished::Transaction(mut steps) => {
                self.busy.end(Key::Switch);
                // A device's failure is told last, so that a success of another of its ports doesn't make it forgotten.
                steps.sort_by_key(|done| done.result.is_err());
                for done in steps {
                    self.stepped(done);
                }
                self.dirty = true;
            }
            Finished::Status(reported) => self.reported(*reported),
            Finished::Left(device, object) => self.left(*device, *object),
            Finished::MacGivenUp(uid) => {
                self.retries.succeeded(&Key::Device(uid.clone(), Part::Mac));
                self.macs.waits_no_longer(&uid);
                self.dirty = true;
            }
            Finished::Dpu(result) => {
                match *result {
                    Ok(object) => self.dpu.written(object, Instant::now()),
                    Err(error) => {
                        if self.dpu.failed(Instant::now()) {
                            warn!(error = chain(&error), "the Dpu was not written; it is tried again");
                        }
                    }
                }
                self.dirty = true;
            }
        }
    }

    /// A device that is not ours any more: where another DPU has it now, what there is of it here is removed. An object that
    /// is gone tells nothing of what is wanted, so its function stays and is reported as undeclared.
    fn left(&mut self, device: Device, object: Option<DynamicObject>) {
        let Some(object) = object.filter(|object| object.uid().as_deref() == Some(device.uid.as_str()))
        else {
            return;
        };
        if api::bound_to(&object) != Some(&self.around.dpu) {
            let key = device.key.clone();
            if self.devices.depart(device) {
                info!(device = %key, "given to another DPU: removing what there is of it here");
                self.dirty = true;
            }
        }
    }

    /// Plans from what was observed, starts what is to be done, and reports how things stand.
    fn act(&mut self, observed: &Observed) {
        let now = Instant::now();
        self.retries.prune(&self.devices.for_planning(), self.dpu.generation());
        let spec = self.dpu.spec();
        let all_devices = self.devices.for_planning();
        self.macs.prune(&all_devices);
        let refused = self.reports.refused(self.devices.parsed());
        let Plan { steps, devices, suspects, dpu } = plan(&Input {
            dpu: &self.around.dpu,
            dpu_spec: &spec,
            devices: &all_devices,
            observed,
            busy: &self.busy.of_devices(),
            held: &self.retries.held(now),
            free: self.macs.free(),
            lost: &self.macs.lost(),
            refused: &refused,
            reported: self.dpu.reported().as_ref(),
            suspects: &self.suspects.ripe(now),
        });
        self.suspects.seen(suspects, now);
        // Who has a MAC that its object notes still has it where the function is to be plugged anew.
        for (uid, device) in all_devices.iter() {
            let borne = devices
                .get(uid)
                .and_then(|assessment| assessment.found.as_ref())
                .map(|function| function.mac);
            if let Some(mac) = borne
                && device.wanted_mac() == Some(mac)
                && device.macs.contains(&mac)
            {
                self.macs.is_free(uid, Free { mac, noted: true });
            }
        }
        if !observed.is_complete() {
            self.look_again_at(Some(now + OUT_OF_REACH));
        }
        let (gone, steps): (Vec<_>, Vec<_>) = steps.into_iter().partition(
            |step| matches!(step, Step::Release { device } if self.devices.is_departed(&device.uid)),
        );
        // The finalizer is the other agent's now; that it may go says that nothing is left here.
        for device in gone.iter().filter_map(Step::device) {
            self.devices.forget_departed(&device.uid);
            // This plan still gave it what another may be waiting for.
            self.dirty = true;
        }
        let more = more_ports_to_come(&devices, &steps);
        self.start(steps, more, now);
        let ready = devices.values().filter(|assessment| assessment.overall().is_ready()).count();
        self.around.metrics.devices.set(i64::try_from(devices.len()).unwrap_or(i64::MAX));
        self.around.metrics.ready.set(i64::try_from(ready).unwrap_or(i64::MAX));
        for (uid, assessment) in &devices {
            self.report(uid, assessment, now);
        }
        let live = self.devices.parsed();
        self.reports.retain(|uid| live.contains_key(uid));
        let bound = self.devices.for_planning().len();
        let clock = &self.around.clock;
        let status = |before: &_, generation| dpu_status(observed, &dpu, &spec, before, generation, clock);
        match self.dpu.next(status, bound, now) {
            Ok(write) => {
                let (client, name) = (self.around.client.clone(), self.around.dpu.clone());
                self.work.push(Box::pin(async move {
                    Finished::Dpu(Box::new(dpu_object::write(client, name, write).await))
                }));
            }
            Err(again) => self.look_again_at(again),
        }
    }

    fn look_again_at(&mut self, at: Option<Instant>) {
        self.look_again = [self.look_again, at].into_iter().flatten().min();
    }

    /// Starts the steps: those of the switch together in one transaction, if none is under way. `more`: devices wait for
    /// something else before they have a port to set.
    fn start(&mut self, steps: Vec<Step>, more: bool, now: Instant) {
        let (ports, others): (Vec<_>, Vec<_>) = steps
            .into_iter()
            .filter(|step| !self.retries.holds(&Key::of(step), now))
            .partition(|step| step.part() == Part::Port);
        if ports.is_empty() {
            self.gather.nothing_waits();
        }
        let waits = !ports.is_empty() && !self.busy.contains(&Key::Switch);
        if waits && let Some(due) = self.gather.wait(ports.len(), more, now) {
            self.look_again_at(Some(due));
        } else if waits {
            self.busy.start(Key::Switch);
            for step in &ports {
                info!(%step, "start");
                self.busy.start(Key::of(step));
            }
            self.around.metrics.transactions.inc();
            let work = self.hands.take_ports(ports);
            self.work.push(Box::pin(async move { Finished::Transaction(work.await) }));
        }
        for step in others {
            let key = Key::of(&step);
            let uid = step.device().map(|device| &device.uid);
            // A write of the status under way would make one of the object a conflict.
            let reporting =
                uid.is_some_and(|uid| self.reporting.contains_key(uid)) && step.part() == Part::Object;
            if reporting || self.busy.contains(&key) {
                continue;
            }
            let object = uid.and_then(|uid| self.devices.metadata(uid)).cloned();
            let told = step.to_string();
            let Some(work) = self.hands.take(step, object) else { continue };
            info!(step = told, "start");
            self.busy.start(key);
            self.work.push(Box::pin(async move { Finished::Step(Box::new(work.await)) }));
        }
    }

    /// A step ended.
    fn stepped(&mut self, Done { step, result }: Done) {
        let key = Key::of(&step);
        let uid = step.device().map(|device| device.uid.clone());
        self.busy.end(key.clone());
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        let labels = StepLabels { step: step.event_reason(), result: outcome };
        self.around.metrics.steps.get_or_create(&labels).inc();
        let about = self.about(step.device());
        match result {
            Ok(object) => {
                debug!(%step, "done");
                self.retries.succeeded(&key);
                if self.is_news(&step, uid.as_ref()) {
                    self.around.events.normal(about, step.event_reason(), step.to_string());
                }
                if let Some(object) = object {
                    self.devices.written(object);
                }
                match &step {
                    Step::Release { device } => self.devices.released(&device.uid),
                    Step::ClaimMac { device, mac, noted, .. } => {
                        self.macs.is_free(&device.uid, Free { mac: *mac, noted: *noted });
                    }
                    _ => {}
                }
            }
            Err(error) => {
                let all_devices = self.devices.for_planning();
                let device = uid.as_ref().and_then(|uid| all_devices.get(uid));
                if device.is_none() && uid.is_some() {
                    return;
                }
                let error = match (&step, error.rival.clone()) {
                    (Step::ClaimMac { mac, .. }, Some(rival)) if self.retries.attempts(&key) >= PATIENCE => {
                        StepError::claimed(*mac, rival)
                    }
                    // One that comes too late is planned from a newer version of the object; so often none does.
                    (Step::Register { .. } | Step::Release { .. }, _)
                        if error.conflict && self.retries.attempts(&key) >= OVERTAKEN =>
                    {
                        StepError::new(Reason::StepFailed, error.message)
                    }
                    _ => error,
                };
                if let (Step::ClaimMac { device, mac, .. }, Reason::MacClaimed) = (&step, error.reason) {
                    self.macs.is_lost(&device.uid, *mac);
                }
                if let (Step::ClaimMac { device, mac, .. }, Some(rival)) = (&step, error.rival)
                    && let Some(wait) = self.macs.wait(&device.uid, *mac, self.hands.given_up(*mac, rival))
                {
                    let uid = device.uid.clone();
                    self.work.push(Box::pin(async move {
                        wait.await;
                        Finished::MacGivenUp(uid)
                    }));
                }
                let generation = match &key {
                    Key::Device(..) => device.map(|device| device.generation),
                    Key::Bridge(_) | Key::Vfs(_) | Key::Firmware(_) => self.dpu.generation(),
                    Key::Orphan(_) | Key::Switch => None,
                };
                let (now, message) = (Instant::now(), error.message.clone());
                let news = self.retries.failed(key, generation, now, error.reason, message);
                if news && !error.conflict {
                    warn!(%step, error = error.message, "failed");
                    self.around.events.warning(about, error.reason.as_str(), error.message);
                }
            }
        }
    }

    /// Whether a step that was taken deserves an Event: what changes the DPU, and repairs of what was Ready.
    fn is_news(&self, step: &Step, uid: Option<&Uid>) -> bool {
        match step {
            Step::Register { .. } | Step::ClaimMac { .. } | Step::Release { .. } => false,
            Step::SetLink { .. } | Step::SetPort { .. } => uid
                .and_then(|uid| self.devices.object(uid))
                .is_some_and(|object| object.status.as_ref().is_some_and(is_ready)),
            Step::AddBridge { .. }
            | Step::RemovePort { .. }
            | Step::Unplug { .. }
            | Step::Hotplug { .. }
            | Step::Modify { .. }
            | Step::SetNumVfs { .. }
            | Step::SetFirmware { .. } => true,
        }
    }

    /// What an Event is about: the device, or the Dpu.
    fn about(&self, device: Option<&For>) -> ObjectReference {
        match device {
            Some(For { uid, key }) => ObjectReference {
                api_version: Some(virtnet_crds::API_VERSION.into()),
                kind: Some("VirtnetDevice".into()),
                namespace: Some(key.namespace.clone()),
                name: Some(key.name.clone()),
                uid: Some(uid.to_string()),
                ..ObjectReference::default()
            },
            None => self.dpu.object().map(|object| object.object_ref(&())).unwrap_or_default(),
        }
    }

    /// Writes the device's status if it differs and has lasted.
    fn report(&mut self, uid: &Uid, assessment: &Assessment, now: Instant) {
        let (Some(device), Some(object)) = (self.devices.parsed().get(uid), self.devices.object(uid)) else {
            return;
        };
        if let Some(again) = self.reporting.get_mut(uid) {
            *again = true;
            return;
        }
        if self.busy.contains(&Key::Device(uid.clone(), Part::Object)) || is_leaving(device) {
            return;
        }
        let mut before = object.status.clone().unwrap_or_default();
        before.conditions.retain(is_agents);
        let status = device_status(device.generation, assessment, &before, self.around.clock.now());
        let version = object.resource_version();
        match self.reports.judge(uid, version.as_deref(), &before, &status, assessment.overall(), now) {
            Verdict::Same => {}
            Verdict::Wait(until) => self.look_again_at(Some(until)),
            Verdict::Write => {
                let became_ready = assessment.overall().is_ready() && !is_ready(&before);
                self.around.metrics.status_writes.inc();
                self.reporting.insert(uid.clone(), false);
                self.reports.begin(uid, &status);
                let (client, object, uid) = (self.around.client.clone(), Arc::clone(object), uid.clone());
                let calls = Arc::clone(&self.api_calls);
                self.work.push(Box::pin(async move {
                    let _permit = calls.acquire().await;
                    let result = write_status(&client, &object, &status).await;
                    Finished::Status(Box::new(Reported { uid, version, became_ready, result }))
                }));
            }
        }
    }

    /// The function that the device's status tells of.
    fn known(&self, uid: &Uid) -> Option<Known> {
        self.devices.parsed().get(uid)?.known.clone()
    }

    /// A status was written, or not: then it is judged anew when its object changes, or after a while.
    fn reported(&mut self, Reported { uid, version, became_ready, result }: Reported) {
        let to_judge_again = self.reporting.remove(&uid) == Some(true);
        match result {
            Ok(object) => {
                let status = object.status.clone().unwrap_or_default();
                let others_waited = self.reports.written(&uid, &status, Instant::now());
                if became_ready {
                    let note = format!("{} is Ready", DeviceKey::of(&object.metadata));
                    self.around.events.normal(object.object_ref(&()), "Ready", note);
                }
                let before = self.known(&uid);
                let was_refused = self.devices.parsed().get(&uid).is_some_and(|device| device.refused);
                self.devices.written(DeserializeGuard(Ok(object)));
                // Another device may have waited until this one's object tells of another function.
                self.dirty |= to_judge_again || others_waited || self.known(&uid) != before || was_refused;
            }
            Err(error) => {
                // Whoever removed or changed the object meanwhile is heard of by the watch.
                let overtaken = matches!(&error, kube::Error::Api(status) if is_overtaken(status));
                let refused = matches!(&error, kube::Error::Api(status) if status.code < 500);
                if self.reports.failed(&uid, version, !refused, Instant::now()) && !overtaken {
                    let device = self.devices.parsed().get(&uid);
                    let device = device.map(|device| device.key.to_string()).unwrap_or_default();
                    warn!(%device, error = chain(&error), "a status was not written; it is tried again");
                }
                self.dirty = true;
            }
        }
    }
}

/// The object of this device's name as it is now. Goes on asking until the API answers, for a device that is another DPU's
/// now must not be forgotten.
async fn look_up(client: &Client, calls: &Semaphore, device: &Device) -> Option<DynamicObject> {
    let mut wait = Duration::from_secs(1);
    loop {
        let answer = {
            let _permit = calls.acquire().await;
            api::get(client, &device.key).await
        };
        match answer {
            Ok(object) => return object,
            Err(error) => {
                warn!(device = %device.key, error = chain(&error), "could not be looked up after it left; it is tried again in {wait:?}");
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Its finalizer is off and it is being deleted: nothing is left to say.
fn is_leaving(device: &Device) -> bool {
    device.deleting && !device.finalizer
}

/// Writes a status. A condition that it no longer has and that the operator's controllers wrote too goes with it: the API takes
/// off only what nobody else holds, and refuses what is then left of a condition where that is not a whole one.
async fn write_status(
    client: &Client,
    object: &VirtnetDevice,
    status: &VirtnetDeviceStatus,
) -> kube::Result<VirtnetDevice> {
    match apply_status(client, object, status).await {
        Ok(written) => without_left_over(client, written, status).await,
        Err(kube::Error::Api(refusal)) if refusal.code == 422 && left_over(object, status).is_some() => {
            let object = without_left_over(client, object.clone(), status).await?;
            apply_status(client, &object, status).await
        }
        result => result,
    }
}

/// Applies a status; what the operator's controllers hold of it is taken over.
async fn apply_status(
    client: &Client,
    object: &VirtnetDevice,
    status: &VirtnetDeviceStatus,
) -> kube::Result<VirtnetDevice> {
    match api::apply_status(client, object, status, false).await {
        Err(kube::Error::Api(refusal)) if api::is_held_by_operator(&refusal) => {
            api::apply_status(client, object, status, true).await
        }
        result => result,
    }
}

/// Takes off what is left of conditions that are an agent's to say and that the status does not have.
async fn without_left_over(
    client: &Client,
    mut object: VirtnetDevice,
    status: &VirtnetDeviceStatus,
) -> kube::Result<VirtnetDevice> {
    while let Some((index, type_)) = left_over(&object, status) {
        object = api::remove_condition(client, &object, index, &type_).await?;
    }
    Ok(object)
}

fn left_over(object: &VirtnetDevice, status: &VirtnetDeviceStatus) -> Option<(usize, String)> {
    let is_said = |type_: &str| status.conditions.iter().any(|condition| condition.type_ == type_);
    let mut present = object.status.iter().flat_map(|status| &status.conditions).enumerate();
    let (index, condition) = present.find(|(_, present)| is_agents(present) && !is_said(&present.type_))?;
    Some((index, condition.type_.clone()))
}
