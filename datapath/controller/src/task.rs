//! The task behind an [`crate::Engine`]: it alone calls the device.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use virtnet_model::{
    Change, ControllerState, Function, HotplugRequest, Mac, Moderation, PartError, Refusal, Target,
};

use crate::jobs::{Job, Subject};
use crate::limits::Bounds;
use crate::modify::ModifyPlan;
use crate::pool::Grant;
use crate::table::Table;
use crate::{DeviceEvent, DeviceModel, Emulation, EngineConfig, Memory, Notifier, Place, Stop};

/// The first wait after something failed that nobody asked for; it doubles up to [`LAST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// What the handle asks of the task.
#[derive(Debug)]
pub(crate) enum Command {
    Hotplug(HotplugRequest, Plugging, Reply<Function>),
    Unplug(Target, Reply<()>),
    Modify(Target, Change, Reply<()>),
    Moderate(Target, Moderation, Reply<()>),
    SetUpdating(bool, Reply<()>),
    Stop(Stop, Reply<()>),
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, PartError>>;

/// How far the controller is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// It has not yet taken over the device and made the static PFs.
    Starting,
    /// It serves.
    Running,
    /// It can't serve, and why.
    Down(String),
}

/// What handle and task share. No lock is held across an await.
#[derive(Debug)]
pub(crate) struct Shared {
    table: Mutex<Option<Table>>,
    /// The MACs of hot-plugs that wait or are under way; one may be asked for twice.
    plugging: Mutex<Vec<Mac>>,
    pub(crate) notifier: Notifier,
}

/// A hot-plug that was asked for, from then until it has ended however that was.
#[derive(Debug)]
pub(crate) struct Plugging {
    shared: Arc<Shared>,
    mac: Mac,
}

impl Plugging {
    pub(crate) fn begin(shared: &Arc<Shared>, mac: Mac) -> Self {
        shared.plugs().push(mac);
        Self { shared: Arc::clone(shared), mac }
    }
}

impl Drop for Plugging {
    fn drop(&mut self) {
        let mut plugs = self.shared.plugs();
        if let Some(at) = plugs.iter().position(|mac| *mac == self.mac) {
            plugs.swap_remove(at);
        }
        drop(plugs);
        self.shared.notifier.notify();
    }
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self { table: Mutex::new(None), plugging: Mutex::default(), notifier: Notifier::new() }
    }

    fn plugs(&self) -> MutexGuard<'_, Vec<Mac>> {
        self.plugging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that there is to report; `None`: there is no device.
    pub(crate) fn report(&self) -> Option<ControllerState> {
        // In this order, for a function is in the table before its hot-plug has ended.
        let plugging = self.plugs().iter().copied().collect();
        let report = self.table().as_ref().map(Table::report)?;
        Some(ControllerState { plugging, ..report })
    }

    /// The table; every write to it is a whole step, so one that panicked left it usable.
    pub(crate) fn table(&self) -> MutexGuard<'_, Option<Table>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, step: impl FnOnce(&mut Table) -> T) -> Result<T, PartError> {
        self.table().as_mut().map(step).ok_or_else(|| PartError::unavailable("the controller has no device"))
    }
}

/// The task's own state.
pub(crate) struct Task<D> {
    pub(crate) device: Arc<D>,
    pub(crate) config: EngineConfig,
    pub(crate) memory: Arc<dyn Memory>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::Receiver<Command>,
    /// Dropped with the task, which tells those who wait for it to start.
    pub(crate) phase: watch::Sender<Phase>,
}

impl<D> fmt::Debug for Task<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}

impl<D: DeviceModel> Task<D> {
    /// Serves until the handle is dropped. Without a device it answers so, and tries again.
    pub(crate) async fn run(mut self) {
        let mut wait = FIRST_RETRY;
        loop {
            match self.take_over().await {
                Ok(mut session) => {
                    wait = FIRST_RETRY;
                    session.start().await;
                    self.set_phase(Phase::Running);
                    if session.serve(&mut self.commands).await == Ended::ByHandle {
                        return;
                    }
                    self.set_phase(Phase::Down("the device is gone".to_owned()));
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the controller can't start");
                    self.set_phase(Phase::Down(error.message));
                }
            }
            *self.shared.table() = None;
            if !self.refuse_for(wait).await {
                return;
            }
            wait = (wait * 2).min(LAST_RETRY);
        }
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
        self.shared.notifier.notify();
    }

    async fn take_over(&self) -> Result<Session<D>, PartError> {
        let watch = self.device.watch().await?;
        let bounds = Bounds::new(&watch.state, &self.config)?;
        let mut table = Table::new(self.config.clone(), bounds, watch.state);
        table.prepared = self.memory.recall().await?;
        for (pf, vf) in table.drop_applied() {
            // An earlier controller was stopped between the two.
            self.memory.keep(pf, vf, &Change::default()).await?;
        }
        *self.shared.table() = Some(table);
        Ok(Session {
            device: Arc::clone(&self.device),
            memory: Arc::clone(&self.memory),
            shared: Arc::clone(&self.shared),
            events: watch.events,
            aside: BTreeSet::new(),
            retry: None,
            wait: FIRST_RETRY,
        })
    }

    /// Answers every request with the reason for which there is no service. False: the handle is gone.
    async fn refuse_for(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        while let Ok(command) = tokio::time::timeout_at(until, self.commands.recv()).await {
            let Some(command) = command else { return false };
            let why = match &*self.phase.borrow() {
                Phase::Down(why) => why.clone(),
                Phase::Starting | Phase::Running => "the controller has no device".to_owned(),
            };
            let error = PartError::unavailable(why);
            match command {
                Command::Hotplug(_, plugging, reply) => {
                    drop(plugging);
                    answer(reply, Err(error));
                }
                Command::Unplug(_, reply)
                | Command::Modify(_, _, reply)
                | Command::Moderate(_, _, reply)
                | Command::SetUpdating(_, reply) => {
                    answer(reply, Err(error));
                }
                Command::Stop(stop, reply) => {
                    let stopped = match stop {
                        Stop::Restart => Ok(()),
                        Stop::Service => self.unplug_all().await,
                    };
                    answer(reply, stopped);
                    return false;
                }
            }
        }
        true
    }

    /// Ends a service that never came to serve: what an earlier one plugged is unplugged all the same. The SFs are cleared away by
    /// the next that serves.
    async fn unplug_all(&self) -> Result<(), PartError> {
        let doing = "stop the controller: what is plugged stays";
        let watch = self.device.watch().await.map_err(|error| PartError::failed(doing).caused_by(error))?;
        let mut failed = Vec::new();
        for place in watch.state.functions.keys() {
            let Place::Slot(slot) = place else { continue };
            if let Err(error) = self.device.unplug(*slot).await {
                failed.push(format!("{place}: {error}"));
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(PartError::failed(format!("{doing}: {}", failed.join("; "))))
    }
}

/// Answers a caller. One that went away learns the outcome by observing.
fn answer<T>(reply: Reply<T>, result: Result<T, PartError>) {
    if reply.send(result).is_err() {
        tracing::debug!("a caller went away before its answer");
    }
}

/// Why serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It was dropped, or asked to stop.
    ByHandle,
    ByDevice,
}

/// One device from taking it over to losing it.
struct Session<D> {
    device: Arc<D>,
    memory: Arc<dyn Memory>,
    shared: Arc<Shared>,
    events: mpsc::UnboundedReceiver<DeviceEvent>,
    /// Jobs that failed, until the next retry.
    aside: BTreeSet<Subject>,
    retry: Option<Instant>,
    wait: Duration,
}

impl<D: DeviceModel> Session<D> {
    /// Clears away what a stop in the middle left and makes the static PFs, so that the first answer has them.
    async fn start(&mut self) {
        loop {
            self.drain();
            match self.next_job() {
                Some(job @ (Job::DestroySf(_) | Job::Configure(Place::Static(_), ..))) => {
                    self.work(job).await;
                }
                Some(Job::Configure(..) | Job::FillPool(_)) | None => return,
            }
        }
    }

    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> Ended {
        loop {
            tokio::task::consume_budget().await;
            self.drain();
            let job = self.next_job();
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => if self.handle(command).await.is_break() {
                        return Ended::ByHandle;
                    },
                    None => return Ended::ByHandle,
                },
                () = std::future::ready(()), if job.is_some() => {
                    if let Some(job) = job {
                        self.work(job).await;
                    }
                }
                event = self.events.recv() => match event {
                    Some(event) => self.absorb(event),
                    None => return Ended::ByDevice,
                },
                () = sleep_until(self.retry), if self.retry.is_some() => {
                    self.retry = None;
                    self.aside.clear();
                }
            }
        }
    }

    /// Takes in all that the device has told until now.
    fn drain(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.absorb(event);
        }
    }

    fn absorb(&mut self, event: DeviceEvent) {
        if let Some(table) = self.shared.table().as_mut() {
            table.absorb(event);
        }
        self.shared.notifier.notify();
    }

    fn next_job(&self) -> Option<Job> {
        let next = |table: &mut Table| {
            let job = table.next_job(&self.aside);
            if !matches!(job, Some(Job::DestroySf(_))) {
                table.drain_pool = false;
            }
            if job.is_none() && self.aside.is_empty() {
                if let Some(why) = table.pool_short() {
                    tracing::error!("{why}");
                }
                // The percentage is that of the start: what VFs take from the pool later is not made up for.
                table.pool_wanted = 0;
            }
            job
        };
        self.shared.with(next).ok().flatten()
    }

    /// Answers a request; one to stop is the last.
    async fn handle(&mut self, command: Command) -> ControlFlow<()> {
        self.drain();
        match command {
            Command::Hotplug(request, plugging, reply) => {
                let result = self.hotplug(&request).await;
                // Before the answer, so that who observes after that does not see it still under way.
                drop(plugging);
                answer(reply, result);
            }
            Command::Unplug(target, reply) => answer(reply, self.unplug(&target).await),
            Command::Modify(target, change, reply) => answer(reply, self.modify(&target, &change).await),
            Command::Moderate(target, moderation, reply) => {
                answer(reply, self.moderate(&target, moderation).await);
            }
            Command::SetUpdating(updating, reply) => {
                let result = self.shared.with(|table| table.updating = updating);
                self.shared.notifier.notify();
                answer(reply, result);
            }
            Command::Stop(stop, reply) => {
                answer(reply, self.stop(stop).await);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Leaves the device as one that is served no more, or not for a while, should be left. What fails stops nothing else.
    async fn stop(&mut self, stop: Stop) -> Result<(), PartError> {
        let slots = self.shared.with(|table| {
            table.drain_pool = table.config.sf_pool.force_destroy;
            let slots = table.functions.keys().filter_map(|place| match (place, stop) {
                (Place::Slot(slot), Stop::Service) => Some(*slot),
                _ => None,
            });
            slots.collect::<Vec<_>>()
        })?;
        let mut failed = Vec::new();
        for slot in slots {
            let result = self.device.unplug(slot).await;
            self.drain();
            if self.shared.with(|table| table.functions.contains_key(&Place::Slot(slot)))? {
                let why =
                    result.err().map_or_else(|| "the device still has it".to_owned(), |error| error.message);
                failed.push(format!("unplug from slot {slot}: {why}"));
            }
        }
        self.aside.clear();
        self.clear_orphans().await;
        failed.extend(self.aside.iter().filter_map(|subject| match subject {
            Subject::Sf(sf) => Some(format!("destroy {sf}: it is still there")),
            Subject::Function(_) | Subject::Pool => None,
        }));
        if failed.is_empty() {
            return Ok(());
        }
        Err(PartError::failed(format!("stop the controller: left behind: {}", failed.join("; "))))
    }

    async fn hotplug(&mut self, request: &HotplugRequest) -> Result<Function, PartError> {
        let plan = self.shared.with(|table| table.admit(request))??;
        let place = Place::Slot(plan.slot);
        let made = async {
            self.acquire(&plan.grant).await?;
            let result = self.device.plug(plan.slot, &plan.emulation).await;
            self.confirm(place, &plan.emulation, result)
        };
        let made = made.await;
        self.clear_orphans().await;
        made?;
        let function = self.shared.with(|table| table.function(place))?;
        function
            .ok_or_else(|| PartError::failed(format!("hot-plug {}: it vanished from {place}", request.mac)))
    }

    async fn unplug(&mut self, target: &Target) -> Result<(), PartError> {
        let slot = self.shared.with(|table| table.admit_unplug(target))??;
        let result = self.device.unplug(slot).await;
        self.drain();
        if self.shared.with(|table| table.functions.contains_key(&Place::Slot(slot)))? {
            return Err(result.err().unwrap_or_else(|| {
                PartError::failed(format!("unplug {target}: the device still has it in slot {slot}"))
            }));
        }
        self.clear_orphans().await;
        Ok(())
    }

    async fn modify(&mut self, target: &Target, change: &Change) -> Result<(), PartError> {
        match self.shared.with(|table| table.admit_modify(target, change))?? {
            ModifyPlan::Nothing => Ok(()),
            ModifyPlan::Prepare(pf, vf, change) => {
                self.memory.keep(pf, vf, &change).await?;
                self.shared.with(|table| {
                    if change.is_empty() {
                        table.prepared.remove(&(pf, vf))
                    } else {
                        table.prepared.insert((pf, vf), change)
                    }
                })?;
                self.shared.notifier.notify();
                Ok(())
            }
            ModifyPlan::Configure(place, emulation) => {
                let result = self.device.configure(place, &emulation).await;
                self.confirm(place, &emulation, result)
            }
        }
    }

    async fn moderate(&mut self, target: &Target, moderation: Moderation) -> Result<(), PartError> {
        let place = self.shared.with(|table| table.admit_moderate(target))??;
        self.device.moderate(place, moderation).await
    }

    /// Does a job; one that fails is left aside until the next retry.
    async fn work(&mut self, job: Job) {
        let subject = job.subject();
        let result = match &job {
            Job::DestroySf(sf) => {
                let result = self.device.destroy_sf(*sf).await;
                self.drain();
                match self.shared.with(|table| table.sfs.contains_key(sf)) {
                    Ok(true) => result,
                    Ok(false) | Err(_) => Ok(()),
                }
            }
            Job::Configure(place, emulation, grant) => {
                self.configure(*place, emulation, grant.as_ref()).await
            }
            Job::FillPool(grant) => self.acquire(grant).await,
        };
        match result {
            Ok(()) => self.wait = FIRST_RETRY,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, ?subject, "left aside for a while");
                self.aside.insert(subject);
                if self.retry.is_none() {
                    self.retry = Some(Instant::now() + self.wait);
                    self.wait = (self.wait * 2).min(LAST_RETRY);
                }
            }
        }
    }

    async fn configure(
        &mut self,
        place: Place,
        emulation: &Emulation,
        grant: Option<&Grant>,
    ) -> Result<(), PartError> {
        if let Some(grant) = grant {
            self.acquire(grant).await?;
        }
        let result = self.device.configure(place, emulation).await;
        let confirmed = self.confirm(place, emulation, result);
        if confirmed.is_err() && !self.shared.with(|table| table.functions.contains_key(&place))? {
            // The host took it away meanwhile: nothing is left to configure.
            return Ok(());
        }
        confirmed?;
        if let Place::Vf(pf, vf) = place {
            let prepared = self.shared.with(|table| {
                let change = table.prepared.remove(&(pf, vf))?;
                let mut wanted = emulation.settings.clone();
                table.apply(&change, &mut wanted, place);
                Some((wanted == emulation.settings, change))
            })?;
            self.shared.notifier.notify();
            if let Some((is_so, change)) = prepared {
                if !is_so {
                    tracing::warn!(%place, %change, "its machine was started with other settings than were prepared for it");
                }
                self.memory.keep(pf, vf, &Change::default()).await?;
            }
        }
        Ok(())
    }

    /// Sees to it that the granted SF exists.
    async fn acquire(&mut self, grant: &Grant) -> Result<(), PartError> {
        if grant.pooled {
            return Ok(());
        }
        if let Some(why) = self.shared.with(|table| table.rebonded())? {
            return Err(PartError::refused(Refusal::NoSuchUplink, format!("create {}: {why}", grant.sf)));
        }
        if let Some(evicted) = grant.evict {
            self.device.destroy_sf(evicted).await?;
        }
        let result = self.device.create_sf(grant.uplink, grant.sf.number).await;
        self.drain();
        if self.shared.with(|table| table.sfs.contains_key(&grant.sf))? {
            return Ok(());
        }
        Err(result
            .err()
            .unwrap_or_else(|| PartError::failed(format!("create {}: it is not there", grant.sf))))
    }

    /// What the device shows decides, whatever the operation answered: an operation may fail after its effect.
    fn confirm(
        &mut self,
        place: Place,
        wanted: &Emulation,
        result: Result<(), PartError>,
    ) -> Result<(), PartError> {
        self.drain();
        let there = self.shared.with(|table| {
            table.functions.get(&place).and_then(|emulated| emulated.emulation.as_ref()) == Some(wanted)
        })?;
        if there {
            return Ok(());
        }
        Err(result.err().unwrap_or_else(|| PartError::failed(format!("{place} is not as it was configured"))))
    }

    /// Destroys SFs that lost their function; what fails is a job for later.
    async fn clear_orphans(&mut self) {
        loop {
            self.drain();
            let orphan = self.shared.with(|table| table.next_orphan(&self.aside)).ok().flatten();
            match orphan {
                Some(job) => self.work(job).await,
                None => return,
            }
        }
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
