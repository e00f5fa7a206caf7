//! The operator: what one agent can't know. It writes only to the API, and never touches a DPU.
//!
//! | module | what lives there |
//! |---|---|
//! | `binder` | gives each device without `spec.dpu` a DPU that its selector matches and that has room for it |
//! | `sets` | makes the devices of each set, changes them a few at a time, and takes away those that are too many |
//! | `liveness` | says of a silent agent's devices that nothing is known of them, and lets go what is deleted |
//! | `fleet` | sets, devices and DPUs as the API last told of them, with what the controllers need of each |
//! | `leadership` | [`Leadership`]: which of several operators acts |
//! | `metrics` | [`Metrics`]: what is counted, and what is served of it |
//! | `pace`, `writes` | when a controller plans, and what it has under way at the API |
//!
//! One loop: what the API tells, and what becomes of each write, wakes the controllers; each plans over the whole fleet (pure),
//! and begins to write. One of several operators acts and the others watch, but any number may act at once, each with a cache that
//! is behind: every write is bound to the version of the object that was seen, and what still overlaps the DPU's own agent decides.

mod binder;
mod fleet;
mod leadership;
mod liveness;
mod metrics;
mod pace;
mod sets;
mod writes;

use std::fmt::Debug;

use futures::StreamExt;
use futures::stream::BoxStream;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::sync::watch::Sender;
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use virtnet_client::{Clock, Events, chain, events, in_time, watch};
use virtnet_crds::manager;
use virtnet_page::Board;
use virtnet_telemetry::Pulse;

use binder::Binder;
use fleet::{Fleet, Kept, Known};
use liveness::Liveness;
use metrics::KindLabel;
use pace::Pace;
use sets::Sets;

pub use leadership::Leadership;
pub use metrics::{Metrics, SERIES};

/// What an operator is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The namespace of the agents' Leases.
    pub lease_namespace: String,
    /// What its Events say who reports them: no other operator is called so.
    pub identity: String,
    /// Where what the watches tell is shown too, whether this operator acts or not.
    pub board: Option<Board>,
}

/// Runs all controllers. It has no end of its own: dropping the future stops it wherever it is, and a next one goes on from
/// what is there.
pub async fn run(config: Config, client: Client, clock: Clock, metrics: Metrics, leadership: &Leadership) {
    let client = in_time(client);
    let (events, publisher) = events(client.clone(), manager::OPERATOR, &config.identity);
    let controllers = Controllers::new(config, client, clock, metrics, events);
    // Who knows nothing yet had better not lead: another may know the fleet already.
    let mut knows = controllers.knows.subscribe();
    let contend = async {
        // Without a sender the controllers have ended, and all of this with them.
        let _ = knows.wait_for(|knows| *knows).await;
        leadership.contend().await;
    };
    futures::join!(controllers.run(leadership), publisher.run(), contend);
}

/// The controllers, and what they know together.
struct Controllers {
    client: Client,
    clock: Clock,
    metrics: Metrics,
    lease_namespace: String,
    board: Option<Board>,
    fleet: Fleet,
    binder: Binder,
    sets: Sets,
    liveness: Liveness,
    /// When what is known is counted.
    census: Pace,
    /// All lists have come.
    knows: Sender<bool>,
}

impl Controllers {
    fn new(config: Config, client: Client, clock: Clock, metrics: Metrics, events: Events) -> Self {
        let Config { lease_namespace, identity: _, board } = config;
        Self {
            fleet: Fleet::default(),
            binder: Binder::new(client.clone(), clock.clone(), events.clone()),
            sets: Sets::new(client.clone(), clock.clone(), events.clone()),
            liveness: Liveness::new(client.clone(), clock.clone(), lease_namespace.clone(), events),
            census: Pace::new(),
            knows: Sender::new(false),
            client,
            clock,
            metrics,
            lease_namespace,
            board,
        }
    }

    async fn run(mut self, leadership: &Leadership) {
        let mut leads = leadership.leads();
        let mut sets_told = told(Api::all(self.client.clone()));
        let mut devices_told = told(Api::all(self.client.clone()));
        let mut dpus_told = told(Api::all(self.client.clone()));
        let mut leases_told = told(Api::namespaced(self.client.clone(), &self.lease_namespace));
        loop {
            self.metrics.pulse.turn(self.clock.now());
            let leads_now = *leads.borrow_and_update();
            self.metrics.lead(leads_now);
            let wake = self.act(leads_now);
            // Biased, so that the same events are taken in the same order whenever they come again.
            tokio::select! {
                biased;
                Ok(()) = leads.changed() => {}
                Some(event) = sets_told.next() => {
                    if take(&mut self.fleet.sets, event, "VirtnetDeviceSet", &self.metrics) {
                        self.sets.pace.wake();
                        self.census.wake();
                    }
                }
                Some(event) = devices_told.next() => {
                    if let (Some(board), Ok(event)) = (&self.board, &event) {
                        board.device(event);
                    }
                    if take(&mut self.fleet.devices, event, "VirtnetDevice", &self.metrics) {
                        self.wake();
                    }
                }
                Some(event) = dpus_told.next() => {
                    if let (Some(board), Ok(event)) = (&self.board, &event) {
                        board.dpu(event);
                    }
                    if take(&mut self.fleet.dpus, event, "Dpu", &self.metrics) {
                        self.wake();
                    }
                }
                Some(event) = leases_told.next() => match event {
                    // Plans wait for Leases to expire, not for each renewal.
                    Ok(event) => self.liveness.hear(event, Instant::now()),
                    Err(error) => {
                        cut("Lease", &error, &self.metrics);
                        self.liveness.beats.cut(Instant::now());
                    }
                },
                Some(done) = self.sets.writes.next() => {
                    self.metrics.ended("sets", &done.result);
                    self.sets.finish(done, &mut self.fleet, Instant::now());
                    self.wake();
                }
                Some(done) = self.binder.writes.next() => {
                    self.metrics.ended("binder", &done.result);
                    self.binder.finish(done, &mut self.fleet, Instant::now());
                    self.wake();
                }
                Some(done) = self.liveness.writes.next() => {
                    self.metrics.ended("liveness", &done.result);
                    self.liveness.finish(done, &mut self.fleet, Instant::now());
                    self.wake();
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Lets the controllers plan and begin to write, where this operator acts, and says when to turn at the latest.
    fn act(&mut self, leads: bool) -> Instant {
        let Self { fleet, binder, sets, liveness, census, metrics, knows, .. } = self;
        let now = Instant::now();
        let mut wake = now + Pulse::BEAT;
        if !(fleet.dpus.is_complete() && fleet.devices.is_complete() && fleet.sets.is_complete()) {
            return wake;
        }
        metrics.complete();
        knows.send_if_modified(|knows| !std::mem::replace(knows, true));
        if census.begin(now) {
            metrics.count(fleet);
            census.end(now);
        }
        wake = wake.min(census.next(now));
        if !leads {
            return wake;
        }
        metrics.timed("binder", || binder.act(fleet, now));
        metrics.timed("sets", || sets.act(fleet, now));
        wake = wake.min(binder.pace.next(now)).min(sets.pace.next(now));
        if liveness.beats.is_complete() {
            metrics.timed("liveness", || liveness.act(fleet, now));
            wake = wake.min(liveness.pace.next(now));
        }
        wake
    }

    fn wake(&mut self) {
        for pace in [&mut self.sets.pace, &mut self.binder.pace, &mut self.liveness.pace, &mut self.census] {
            pace.wake();
        }
    }
}

/// What the API tells of objects of one kind. It has no end.
type Told<T> = BoxStream<'static, watcher::Result<Event<DeserializeGuard<T>>>>;

fn told<K>(api: Api<DeserializeGuard<K>>) -> Told<K>
where
    K: kube::Resource + Clone + Debug + Send + Sync + DeserializeOwned + 'static,
    K::DynamicType: Default,
{
    watch(api, watcher::Config::default().streaming_lists(), "operator").boxed()
}

/// Takes in what is told; answers whether anything was.
fn take<T: Kept>(
    known: &mut Known<T>,
    event: watcher::Result<Event<DeserializeGuard<T::Object>>>,
    kind: &'static str,
    metrics: &Metrics,
) -> bool {
    match event {
        Ok(event) => known.apply(event),
        Err(error) => {
            cut(kind, &error, metrics);
            return false;
        }
    }
    true
}

fn cut(kind: &'static str, error: &watcher::Error, metrics: &Metrics) {
    warn!(error = chain(error), "the watch of {kind}s was cut; it is taken up again");
    metrics.watch_cuts.get_or_create(&KindLabel { kind }).inc();
}
