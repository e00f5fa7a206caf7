//! The binder: gives each device without `spec.dpu` a DPU that its selector matches and that has room for it, spread by what
//! is free. A device for which there is none says so by `Bound=False`, and is bound when room appears.
//!
//! What is bound stays, with one exception: a device that was bound here and that the DPU's agent refuses before it has a
//! function is bound elsewhere.

mod bars;
mod plan;
mod room;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, StreamExt};
use kube::Client;
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};
use virtnet_client::{Clock, chain, is_overtaken};
use virtnet_crds::{Dpu, Reason, VirtnetDevice};

use crate::fleet::{Device, Known, Target};
use bars::Bars;
use plan::{Input, Plan, plan};

/// Plans are at least this far apart: events that come in a burst are answered together.
const PACE: Duration = Duration::from_millis(50);
/// How many writes are under way at once.
const WRITES: usize = 32;
/// That a device can't be bound is said when it has been so for this long.
const LASTING: Duration = Duration::from_secs(1);
/// A write that failed is tried again after this long, which doubles with each failure in a row.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What the API tells of objects of one kind.
pub(crate) type Told<T> = BoxStream<'static, watcher::Result<watcher::Event<DeserializeGuard<T>>>>;

/// Runs the binder until dropped. Ends by itself only when the watches do, which they don't.
pub(crate) async fn run(client: Client, clock: Clock, mut devices: Told<VirtnetDevice>, mut dpus: Told<Dpu>) {
    let mut binder = Binder::new(client, clock);
    loop {
        binder.act();
        let wake = binder.next_wake();
        // Biased, so that the same events are taken in the same order whenever they come again.
        tokio::select! {
            biased;
            event = devices.next() => match event {
                Some(Ok(event)) => binder.devices.apply(event),
                Some(Err(error)) => {
                    warn!(error = chain(&error), "the watch of VirtnetDevices was cut; it is taken up again");
                    continue;
                }
                None => return,
            },
            event = dpus.next() => match event {
                Some(Ok(event)) => binder.dpus.apply(event),
                Some(Err(error)) => {
                    warn!(error = chain(&error), "the watch of Dpus was cut; it is taken up again");
                    continue;
                }
                None => return,
            },
            Some(done) = binder.work.next() => binder.finish(done),
            () = sleep_until(wake) => continue,
        }
        binder.dirty = true;
    }
}

/// A write of a device.
#[derive(Clone, Debug)]
enum Write {
    Bind(String),
    Say((Reason, String)),
    Clear,
}

struct Done {
    uid: String,
    /// The version of the object that was seen.
    version: Option<String>,
    write: Write,
    result: kube::Result<VirtnetDevice>,
}

/// A device that can't be bound.
#[derive(Debug)]
struct Wait {
    /// When that may be said, or something else than was said.
    due: Instant,
    /// How long it is from then to the next time.
    next: Duration,
}

/// A write that failed.
#[derive(Debug)]
struct Failure {
    /// The version of the object for which it did; any other one is tried at once.
    version: Option<String>,
    again_at: Instant,
    wait: Duration,
}

struct Binder {
    client: Client,
    clock: Clock,
    devices: Known<Device>,
    dpus: Known<Target>,
    bars: Bars,
    /// Devices that can't be bound.
    waiting: BTreeMap<String, Wait>,
    /// Devices that are being written, those that are being bound with their DPU.
    busy: BTreeMap<String, Option<String>>,
    writes: Arc<Semaphore>,
    failures: BTreeMap<String, Failure>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Something was told or has ended since the last plan.
    dirty: bool,
    planned_at: Option<Instant>,
    /// What waits for time to pass.
    look_again: Option<Instant>,
}

impl Binder {
    fn new(client: Client, clock: Clock) -> Self {
        Self {
            client,
            clock,
            devices: Known::default(),
            dpus: Known::default(),
            bars: Bars::default(),
            waiting: BTreeMap::new(),
            busy: BTreeMap::new(),
            writes: Arc::new(Semaphore::new(WRITES)),
            failures: BTreeMap::new(),
            work: FuturesUnordered::new(),
            dirty: true,
            planned_at: None,
            look_again: None,
        }
    }

    /// When to wake if nothing happens. At rest that is a long way off.
    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let cause = Some(now).filter(|_| self.dirty).into_iter().chain(self.look_again).min();
        let paced = self.planned_at.map_or(now, |at| at + PACE);
        cause.filter(|_| self.can_plan()).map_or(now + LONGEST_RETRY, |cause| cause.max(paced))
    }

    fn can_plan(&self) -> bool {
        self.devices.is_complete() && self.dpus.is_complete()
    }

    /// Plans and begins to write, where there is cause.
    fn act(&mut self) {
        let now = Instant::now();
        let due = self.look_again.is_some_and(|at| at <= now);
        let paced = self.planned_at.is_none_or(|at| at + PACE <= now);
        if !(self.dirty || due) || !paced || !self.can_plan() {
            return;
        }
        (self.dirty, self.planned_at, self.look_again) = (false, Some(now), None);
        self.bars.note(self.devices.all(), self.dpus.all());
        let barred = self.bars.standing(now);
        let under_way = self.busy.iter().filter_map(|(uid, dpu)| Some((uid.clone(), dpu.clone()?))).collect();
        let (devices, dpus) = (self.devices.all(), self.dpus.all());
        let input = Input { devices, dpus, under_way: &under_way, barred: &barred };
        let Plan { bind, waiting, clear } = plan(&input);
        self.look_again_at(self.bars.next(now));
        self.waiting.retain(|uid, _| waiting.contains_key(uid));
        let mut to_say = Vec::new();
        for (uid, dpu) in bind {
            self.begin(&uid, Write::Bind(dpu), now);
        }
        for uid in clear {
            self.begin(&uid, Write::Clear, now);
        }
        for (uid, why) in waiting {
            let wait = self.waiting.entry(uid.clone()).or_insert(Wait { due: now + LASTING, next: LASTING });
            if self.devices.all().get(&uid).is_some_and(|device| says(device, &why)) {
                continue;
            }
            if wait.due > now {
                let due = wait.due;
                self.look_again_at(Some(due));
            } else {
                // Where another operator sees it otherwise, the two contradict each other ever more rarely.
                *wait = Wait { due: now + wait.next, next: (wait.next * 2).min(LONGEST_RETRY) };
                to_say.push((uid, why));
            }
        }
        for (uid, why) in to_say {
            self.begin(&uid, Write::Say(why), now);
        }
        self.failures.retain(|uid, _| self.devices.all().contains_key(uid));
    }

    fn look_again_at(&mut self, at: Option<Instant>) {
        self.look_again = [self.look_again, at].into_iter().flatten().min();
    }

    /// Begins a write, unless one of this device is under way or has failed lately.
    fn begin(&mut self, uid: &str, write: Write, now: Instant) {
        let Some(device) = self.devices.all().get(uid) else { return };
        let version = device.metadata.resource_version.clone();
        if self.busy.contains_key(uid) {
            return;
        }
        let held =
            self.failures.get(uid).filter(|failure| failure.version == version && failure.again_at > now);
        if let Some(at) = held.map(|failure| failure.again_at) {
            self.look_again_at(Some(at));
            return;
        }
        let (client, clock, device) = (self.client.clone(), self.clock.clone(), device.clone());
        let (uid, writes) = (uid.to_owned(), Arc::clone(&self.writes));
        let dpu = match &write {
            Write::Bind(dpu) => Some(dpu.clone()),
            Write::Say(_) | Write::Clear => None,
        };
        self.busy.insert(uid.clone(), dpu);
        self.work.push(Box::pin(async move {
            let _permit = writes.acquire().await;
            let result = match &write {
                Write::Bind(dpu) => write::bind(&client, &device, dpu).await,
                Write::Say(why) => write::say(&client, &device, why, &clock).await,
                Write::Clear => write::clear(&client, &device).await,
            };
            Done { uid, version, write, result }
        }));
    }

    fn finish(&mut self, done: Done) {
        let Done { uid, version, write, result } = done;
        self.busy.remove(&uid);
        let error = match result {
            Ok(object) => {
                if let (Write::Bind(dpu), Some(device)) = (&write, self.devices.all().get(&uid)) {
                    info!(device = device.key(), %dpu, "bound");
                }
                self.failures.remove(&uid);
                self.devices.written(object);
                return;
            }
            Err(error) => error,
        };
        let now = Instant::now();
        let overtaken = matches!(&error, kube::Error::Api(status) if is_overtaken(status));
        let refused = matches!(&error, kube::Error::Api(status) if [400, 403, 422].contains(&status.code));
        if let (Write::Bind(dpu), true, Some(device)) = (&write, refused, self.devices.all().get(&uid)) {
            // The next plan knows, and chooses another or says why there is none.
            warn!(device = device.key(), %dpu, error = chain(&error), "the API refused to bind a device");
            self.bars.refused(device, dpu, &chain(&error), now);
            return;
        }
        let before = self.failures.remove(&uid);
        let wait = before.map_or(FIRST_RETRY, |failure| (failure.wait * 2).min(LONGEST_RETRY));
        if let Some(device) = self.devices.all().get(&uid) {
            // Another version is on its way by the watch.
            if !overtaken {
                warn!(
                    device = device.key(),
                    error = chain(&error),
                    "a device was not written; it is tried again in {wait:?}"
                );
            }
            self.failures.insert(uid, Failure { version, again_at: now + wait, wait });
        }
    }
}

/// Whether the device's conditions say this already, of this generation.
fn says(device: &Device, (reason, message): &(Reason, String)) -> bool {
    let bound =
        device.told.iter().flatten().find(|condition| condition.type_ == virtnet_crds::conditions::BOUND);
    bound.is_some_and(|condition| {
        condition.reason == reason.as_str()
            && condition.message == *message
            && condition.observed_generation == device.metadata.generation
    })
}
