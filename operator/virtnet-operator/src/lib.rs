//! The operator: what one agent can't know. It writes only to the API, and never touches a DPU.
//!
//! | module | what lives there |
//! |---|---|
//! | `binder` | gives each device without `spec.dpu` a DPU that its selector matches and that has room for it |
//! | `sets` | makes the devices of each set, changes them a few at a time, and takes away those that are too many |
//! | `liveness` | says of a silent agent's devices that nothing is known of them, and lets go what is deleted |
//! | `fleet` | sets, devices and DPUs as the API last told of them, with what the controllers need of each |
//! | `pace`, `writes` | when a controller plans, and what it has under way at the API |
//!
//! One loop: what the API tells, and what becomes of each write, wakes the controllers; each plans over the whole fleet (pure),
//! and begins to write. Any number of operators may run at once, each with a cache that is behind: every write is bound to the
//! version of the object that was seen, and what still overlaps the DPU's own agent decides.

mod binder;
mod fleet;
mod liveness;
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
use tokio::time::{Instant, sleep_until};
use tracing::warn;
use virtnet_client::{Clock, chain, in_time, watch};

use binder::Binder;
use fleet::{Fleet, Kept, Known};
use liveness::Liveness;
use sets::Sets;
use writes::LONGEST_RETRY;

/// What an operator is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The namespace of the agents' Leases.
    pub lease_namespace: String,
}

/// Runs all controllers. It has no end of its own: dropping the future stops it wherever it is, and a next one goes on from
/// what is there.
pub async fn run(config: Config, client: Client, clock: Clock) {
    let client = in_time(client);
    let mut sets_told = told(Api::all(client.clone()));
    let mut devices_told = told(Api::all(client.clone()));
    let mut dpus_told = told(Api::all(client.clone()));
    let mut leases_told = told(Api::namespaced(client.clone(), &config.lease_namespace));
    let mut fleet = Fleet::default();
    let mut binder = Binder::new(client.clone(), clock.clone());
    let mut sets = Sets::new(client.clone(), clock.clone());
    let mut liveness = Liveness::new(client, clock, config.lease_namespace);
    loop {
        let now = Instant::now();
        let mut wake = now + LONGEST_RETRY;
        if fleet.dpus.is_complete() && fleet.devices.is_complete() {
            binder.act(&fleet, now);
            wake = wake.min(binder.pace.next(now));
            if fleet.sets.is_complete() {
                sets.act(&fleet, now);
                wake = wake.min(sets.pace.next(now));
            }
            if liveness.beats.is_complete() {
                liveness.act(&fleet, now);
                wake = wake.min(liveness.pace.next(now));
            }
        }
        // Biased, so that the same events are taken in the same order whenever they come again.
        tokio::select! {
            biased;
            Some(event) = sets_told.next() => {
                if take(&mut fleet.sets, event, "VirtnetDeviceSets") {
                    sets.pace.wake();
                }
            }
            Some(event) = devices_told.next() => {
                if take(&mut fleet.devices, event, "VirtnetDevices") {
                    sets.pace.wake();
                    binder.pace.wake();
                    liveness.pace.wake();
                }
            }
            Some(event) = dpus_told.next() => {
                if take(&mut fleet.dpus, event, "Dpus") {
                    sets.pace.wake();
                    binder.pace.wake();
                    liveness.pace.wake();
                }
            }
            Some(event) = leases_told.next() => match event {
                // Plans wait for Leases to expire, not for each renewal.
                Ok(event) => liveness.hear(event, Instant::now()),
                Err(error) => {
                    warn!(error = chain(&error), "the watch of Leases was cut; it is taken up again");
                    liveness.beats.cut(Instant::now());
                }
            },
            Some(done) = sets.writes.next() => {
                sets.finish(done, &mut fleet, Instant::now());
                sets.pace.wake();
                binder.pace.wake();
            }
            Some(done) = binder.writes.next() => {
                binder.finish(done, &mut fleet, Instant::now());
                sets.pace.wake();
                binder.pace.wake();
            }
            Some(done) = liveness.writes.next() => {
                liveness.finish(done, &mut fleet, Instant::now());
                liveness.pace.wake();
                sets.pace.wake();
                binder.pace.wake();
            }
            () = sleep_until(wake) => {}
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
    kind: &str,
) -> bool {
    match event {
        Ok(event) => known.apply(event),
        Err(error) => {
            warn!(error = chain(&error), "the watch of {kind} was cut; it is taken up again");
            return false;
        }
    }
    true
}
