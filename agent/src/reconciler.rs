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
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};
use virtnet_crds::conditions::READY;
use virtnet_crds::{Dpu, VirtnetDevice, VirtnetDeviceStatus};

use crate::api;
use crate::busy::Busy;
use crate::clock::Clock;
use crate::desired::{Device, Uid};
use crate::devices::{Devices, News};
use crate::dpu_object::{self, DpuObject, dpu_status};
use crate::events::Events;
use crate::execute::{Done, Hands};
use crate::metrics::{Metrics, StepLabels};
use crate::observe::{Observed, Parts};
use crate::plan::{Assessment, Input, Part, Plan, Stand, Step, plan};
use crate::report::{Reports, Verdict};
use crate::retry::Retries;
use crate::status::device_status;
use crate::suspects::Suspects;

/// Observations begin at least this far apart: events that come in a burst are answered together.
const PACE: Duration = Duration::from_millis(10);
/// A part that could not be observed is observed again after this long, should it not tell by an event that it is back.
const OUT_OF_REACH: Duration = Duration::from_secs(5);
/// The loop turns at least this often, so that a loop that hangs can be told from one with nothing to do.
const HEARTBEAT: Duration = Duration::from_secs(10);

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
    Steps(Vec<Done>),
    Status(Uid, Box<kube::Result<VirtnetDevice>>),
    Dpu(Box<kube::Result<Dpu>>),
    /// A device that left, and its object as it is now.
    Left(Box<Device>, Box<kube::Result<Option<VirtnetDevice>>>),
}

impl Reconciler {
    /// A reconciler that knows nothing yet.
    pub(crate) fn new(around: Surroundings) -> Self {
        let hands = Hands::new(around.parts.clone(), around.client.clone());
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
            self.begin_observation();
            let wake = self.next_wake();
            tokio::select! {
                event = devices.next() => match event {
                    Some(Ok(event)) => self.told(event),
                    Some(Err(error)) => warn!(%error, "the watch of VirtnetDevices was cut; it is taken up again"),
                    None => return,
                },
                event = dpu.next() => match event {
                    Some(Ok(object)) => {
                        self.dpu.watched(object);
                        self.dirty = true;
                    }
                    Some(Err(error)) => warn!(%error, "the watch of the Dpu was cut; it is taken up again"),
                    None => return,
                },
                Some(_) = parts.next() => self.dirty = true,
                Some(finished) = self.work.next() => self.finish(finished),
                () = sleep_until(wake) => self.wake(),
            }
            self.around
                .metrics
                .turned
                .set(u64::try_from(self.around.clock.now().as_second()).unwrap_or_default());
        }
    }

    /// The API told of a device.
    fn told(&mut self, event: watcher::Event<DeserializeGuard<VirtnetDevice>>) {
        match self.devices.apply(event) {
            News::None => {}
            News::Changed => self.dirty = true,
            News::Left(device) => {
                self.dirty = true;
                let client = self.around.client.clone();
                self.work.push(Box::pin(async move {
                    let object = api::get(&client, &device.key).await;
                    Finished::Left(device, Box::new(object))
                }));
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
        self.around.metrics.observations.inc();
        let number = self.busy.begin_observation();
        let parts = self.around.parts.clone();
        self.work.push(Box::pin(async move { Finished::Observed(number, Box::new(parts.observe().await)) }));
    }

    /// When to wake if nothing happens.
    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let paced = (self.dirty && !self.observing).then(|| self.observed_at.map_or(now, |at| at + PACE));
        [paced, self.look_again, self.retries.next(now), self.suspects.next(now)]
            .into_iter()
            .flatten()
            .min()
            .map_or(now + HEARTBEAT, |at| at.min(now + HEARTBEAT))
    }

    /// Time has passed: what waited for it is looked at again. A mere heartbeat is no cause.
    fn wake(&mut self) {
        let now = Instant::now();
        if self.look_again.is_some_and(|at| at <= now) {
            self.look_again = None;
            self.dirty = true;
        }
        let retry_due = self.retries.take_due(now);
        self.dirty |= retry_due || !self.suspects.ripe(now).is_empty();
    }

    fn finish(&mut self, finished: Finished) {
        match finished {
            Finished::Observed(number, observed) => {
                self.observing = false;
                self.busy.observed(number);
                self.act(&observed);
                self.dirty |= self.busy.needs_observation();
            }
            Finished::Steps(steps) => {
                for done in steps {
                    self.stepped(done);
                }
                self.dirty = true;
            }
            Finished::Status(uid, result) => {
                self.dirty |= self.reporting.remove(&uid) == Some(true);
                match *result {
                    Ok(object) => self.devices.written(object),
                    Err(error) => self.not_reported(&uid, &error),
                }
            }
            Finished::Left(device, object) => self.left(*device, *object),
            Finished::Dpu(result) => {
                let now = Instant::now();
                match *result {
                    Ok(object) => self.dpu.written(Some(object), now),
                    Err(error) => {
                        debug!(%error, "the Dpu was not written; it is tried again");
                        self.dpu.written(None, now);
                    }
                }
                self.dirty = true;
            }
        }
    }

    /// A device that is not ours any more: where another DPU has it now, what there is of it here is removed. An object that
    /// is gone tells nothing of what is wanted, so its function stays and is reported as undeclared.
    fn left(&mut self, device: Device, object: kube::Result<Option<VirtnetDevice>>) {
        match object {
            Ok(Some(object)) if object.uid().as_deref() == Some(device.uid.as_str()) => {
                if object.spec.dpu.as_deref() != Some(&self.around.dpu) {
                    info!(device = %device.key, "given to another DPU: removing what there is of it here");
                    self.devices.depart(device);
                    self.dirty = true;
                }
            }
            Ok(_) => {}
            Err(error) => {
                warn!(device = %device.key, %error, "could not be looked up after it left; left as it is");
            }
        }
    }

    /// Plans from what was observed, starts what is to be done, and reports how things stand.
    fn act(&mut self, observed: &Observed) {
        let now = Instant::now();
        self.retries.prune(&self.devices.for_planning());
        let spec = self.dpu.spec();
        let all_devices = self.devices.for_planning();
        let Plan { steps, devices, suspects, dpu } = plan(&Input {
            dpu: &self.around.dpu,
            dpu_spec: &spec,
            devices: &all_devices,
            observed,
            busy: &self.busy.of_devices(),
            held: &self.retries.held(now),
            suspects: &self.suspects.ripe(now),
        });
        self.suspects.seen(suspects, now);
        if !observed.is_complete() {
            self.look_again_at(Some(now + OUT_OF_REACH));
        }
        self.devices.forget_departed(|uid| {
            let has_step = steps.iter().any(|step| step.device().is_some_and(|device| device.uid == *uid));
            has_step || self.busy.of_devices().iter().any(|(busy, _)| busy == uid) || !observed.is_complete()
        });
        self.start(steps, now);
        let ready = devices.values().filter(|assessment| assessment.overall().is_ready()).count();
        self.around.metrics.devices.set(i64::try_from(devices.len()).unwrap_or(i64::MAX));
        self.around.metrics.ready.set(i64::try_from(ready).unwrap_or(i64::MAX));
        for (uid, assessment) in &devices {
            self.report(uid, assessment, now);
        }
        let live = self.devices.parsed();
        self.reports.retain(|uid| live.contains_key(uid));
        let bound = self.devices.parsed().len();
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

    /// Starts the steps: those of the switch together in one transaction, if none is under way.
    fn start(&mut self, steps: Vec<Step>, now: Instant) {
        let (ports, others): (Vec<_>, Vec<_>) = steps.into_iter().partition(|step| step.part() == Part::Port);
        if !ports.is_empty()
            && !self.busy.contains(None, Part::Port)
            && !self.retries.holds_dpu(Part::Port, now)
        {
            self.busy.start(None, Part::Port);
            for step in &ports {
                info!(%step, "start");
                self.busy.start(step.device().map(|device| device.uid.clone()), Part::Port);
            }
            self.around.metrics.transactions.inc();
            let work = self.hands.take_ports(ports);
            self.work.push(Box::pin(async move { Finished::Steps(work.await) }));
        }
        for step in others {
            let uid = step.device().map(|device| device.uid.clone());
            let part = step.part();
            let waits =
                uid.is_none() && (self.busy.contains(None, part) || self.retries.holds_dpu(part, now));
            if waits
                || uid.as_ref().is_some_and(|uid| part == Part::Object && self.reporting.contains_key(uid))
            {
                continue;
            }
            info!(%step, "start");
            let object = uid.as_ref().and_then(|uid| self.devices.object(uid)).cloned();
            self.busy.start(uid, part);
            let work = self.hands.take(step, object);
            self.work.push(Box::pin(async move { Finished::Steps(work.await) }));
        }
    }

    /// A step ended.
    fn stepped(&mut self, Done { step, result }: Done) {
        let part = step.part();
        let uid = step.device().map(|device| device.uid.clone());
        self.busy.end(uid.clone(), part);
        if part == Part::Port {
            self.busy.end(None, Part::Port);
        }
        let outcome = if result.is_ok() { "ok" } else { "failed" };
        self.around
            .metrics
            .steps
            .get_or_create(&StepLabels { step: step.event_reason(), result: outcome })
            .inc();
        let about = self.about(uid.as_ref());
        match result {
            Ok(object) => {
                debug!(%step, "done");
                self.retries.succeeded(uid.as_ref(), part);
                if self.is_news(&step, uid.as_ref()) {
                    self.around.events.normal(about, step.event_reason(), step.to_string());
                }
                if let Some(object) = object {
                    self.devices.written(object);
                }
            }
            Err(error) => {
                let device = uid.as_ref().and_then(|uid| self.devices.parsed().get(uid));
                if device.is_none() && uid.is_some() {
                    return;
                }
                let now = Instant::now();
                let news = self.retries.failed(device, part, now, error.reason, error.message.clone());
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
            Step::Register { .. } | Step::Release { .. } => false,
            Step::SetLink { .. } | Step::SetPort { .. } => uid
                .and_then(|uid| self.devices.object(uid))
                .is_some_and(|object| is_ready(object.status.as_ref())),
            Step::RemovePort { .. }
            | Step::Unplug { .. }
            | Step::Hotplug { .. }
            | Step::Modify { .. }
            | Step::SetNumVfs { .. }
            | Step::SetFirmware { .. } => true,
        }
    }

    /// What an Event is about: the device, or the Dpu.
    fn about(&self, uid: Option<&Uid>) -> ObjectReference {
        match uid.and_then(|uid| self.devices.object(uid)) {
            Some(object) => object.object_ref(&()),
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
        if self.busy.contains(Some(uid), Part::Object) || is_leaving(device) {
            return;
        }
        let before = object.status.clone().unwrap_or_default();
        let status = device_status(device.generation, assessment, &before, self.around.clock.now());
        match self.reports.judge(uid, &before, &status, assessment.overall(), now) {
            Verdict::Same => {}
            Verdict::Wait(until) => self.look_again_at(Some(until)),
            Verdict::Write => {
                if let (Stand::Ready, false) = (assessment.overall(), is_ready(Some(&before))) {
                    let note = format!("{} is Ready", device.key);
                    self.around.events.normal(object.object_ref(&()), "Ready", note);
                }
                self.around.metrics.status_writes.inc();
                self.reporting.insert(uid.clone(), false);
                let (client, object, uid) = (self.around.client.clone(), Arc::clone(object), uid.clone());
                let calls = Arc::clone(&self.api_calls);
                self.work.push(Box::pin(async move {
                    let _permit = calls.acquire().await;
                    let result = write_status(&client, &object, &status).await;
                    Finished::Status(uid, Box::new(result))
                }));
            }
        }
    }

    /// A status that was not written is judged anew when its object changes, or after a while.
    fn not_reported(&mut self, uid: &Uid, error: &kube::Error) {
        let device = self.devices.parsed().get(uid).map(|device| device.key.to_string()).unwrap_or_default();
        debug!(%device, %error, "a status was not written; it is tried again");
        self.look_again_at(Some(Instant::now() + Duration::from_secs(1)));
    }
}

/// Its finalizer is off and it is being deleted: nothing is left to say.
fn is_leaving(device: &Device) -> bool {
    device.deleting && !device.finalizer
}

fn is_ready(status: Option<&VirtnetDeviceStatus>) -> bool {
    status
        .into_iter()
        .flat_map(|status| &status.conditions)
        .any(|condition| condition.type_ == READY && condition.status == "True")
}

/// Writes a status; where the liveness controller holds the condition Ready, takes it back.
async fn write_status(
    client: &Client,
    object: &VirtnetDevice,
    status: &VirtnetDeviceStatus,
) -> kube::Result<VirtnetDevice> {
    match api::apply_status(client, object, status, false).await {
        Err(kube::Error::Api(refusal)) if api::is_held_by_liveness(&refusal) => {
            api::apply_status(client, object, status, true).await
        }
        result => result,
    }
}
