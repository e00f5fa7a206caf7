//! [`Leadership`]: which of several operators acts. All of them watch; the one that holds the Lease `virtnet-operator` writes too.
//!
//! Whether the Lease has expired is told by the clock of who waits for it, as that of an agent is; every write of it is bound to
//! the version that was seen. A leader that could not renew it stops acting before anyone else begins. That is for the sake of
//! quiet: two that act do no harm, since every write is bound to the version of what it changes.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::runtime::watcher::watch_object;
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};
use virtnet_client::{Clock, begun_anew, chain, is_newer};
use virtnet_crds::manager;

/// The name of the Lease.
const LEASE: &str = manager::OPERATOR;
/// How long others wait after they saw a renewal.
const HOLDS: Duration = Duration::from_secs(7);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(2);
/// A leader that has not renewed it for this long stops acting: before others may begin, who saw the renewal later than it was sent.
const GIVE_UP: Duration = Duration::from_secs(5);
/// What failed is tried again after this long.
const AGAIN: Duration = Duration::from_secs(1);
/// Who holds a Lease that was given up.
const NOBODY: &str = "";
/// How long giving it up may take when an operator ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// Whether this operator acts.
pub struct Leadership {
    leads: watch::Sender<bool>,
    election: Option<Election>,
    /// The Lease as this operator wrote it last, while it leads.
    held: Mutex<Option<Lease>>,
}

struct Election {
    api: Api<Lease>,
    identity: String,
    clock: Clock,
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership").field("leads", &*self.leads.borrow()).finish_non_exhaustive()
    }
}

/// The Lease as it was last seen.
struct Seen {
    lease: Option<Lease>,
    /// Since when it has been so.
    since: Instant,
    /// It was seen at all.
    told: bool,
}

impl Leadership {
    /// That of an operator which is the only one.
    #[must_use]
    pub fn of_one() -> Self {
        Self { leads: watch::Sender::new(true), election: None, held: Mutex::default() }
    }

    /// That of one among several, which agree by a Lease in this namespace. Each has an identity of its own.
    #[must_use]
    pub fn by_lease(client: Client, namespace: &str, identity: String, clock: Clock) -> Self {
        let election = Election { api: Api::namespaced(client, namespace), identity, clock };
        Self { leads: watch::Sender::new(false), election: Some(election), held: Mutex::default() }
    }

    /// Whether this operator acts, and whenever that changes.
    pub(crate) fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Contends for as long as it is polled. It has no end.
    pub(crate) async fn contend(&self) {
        let Some(election) = &self.election else { return std::future::pending().await };
        let watched = election.api.clone();
        let mut lease =
            begun_anew(move || watch_object(watched.clone(), LEASE).boxed(), &election.identity).boxed();
        let mut seen = Seen { lease: None, since: Instant::now(), told: false };
        // When the renewal that holds was sent; `None`: another leads, or nobody.
        let mut renewed: Option<Instant> = None;
        let mut not_before = Instant::now();
        loop {
            let now = Instant::now();
            if renewed.is_some_and(|at| at + GIVE_UP <= now) {
                warn!("the Lease could not be renewed: this operator stops acting");
                renewed = None;
                self.follow();
            }
            let due = match renewed {
                Some(at) => (at + RENEWAL).max(not_before).min(at + GIVE_UP),
                None => election.free_at(&seen).max(not_before),
            };
            tokio::select! {
                biased;
                Some(event) = lease.next() => match event {
                    Ok(lease) => seen.see(lease),
                    Err(error) => {
                        debug!(error = chain(&error), "the watch of the Lease was cut; it is taken up again");
                    }
                },
                () = sleep_until(due), if seen.told => {
                    let now = Instant::now();
                    let limit = renewed.map_or(now + GIVE_UP, |at| at + GIVE_UP).min(now + RENEWAL);
                    let error = match timeout_at(limit, election.write(&seen, &election.identity)).await {
                        Ok(Ok(lease)) => {
                            seen.see(Some(lease.clone()));
                            renewed = Some(now);
                            self.lead(lease, &election.identity);
                            continue;
                        }
                        Ok(Err(error)) => chain(&error),
                        Err(_) => "no answer from the API".to_owned(),
                    };
                    not_before = Instant::now() + AGAIN;
                    if renewed.is_some() {
                        warn!(error, "the Lease was not renewed; it is tried again");
                    } else {
                        debug!(error, "the Lease was not taken");
                    }
                    // It may be another version by now, and the watch long in telling.
                    let limit = renewed.map_or(not_before, |at| (at + GIVE_UP).min(not_before));
                    if let Ok(Ok(lease)) = timeout_at(limit, election.api.get_opt(LEASE)).await {
                        seen.see(lease);
                    }
                }
            }
            if renewed.is_some() && !election.is_ours(&seen) {
                warn!(by = seen.holder(), "the Lease was taken: this operator stops acting");
                renewed = None;
                self.follow();
            }
        }
    }

    /// Gives the Lease up, so that another operator need not wait until it has expired. Nothing of this one runs any more.
    pub async fn resign(&self) {
        let Some((election, held)) = self.election.as_ref().zip(self.held()) else { return };
        self.follow();
        let seen = Seen { lease: Some(held), since: Instant::now(), told: true };
        match timeout(FAREWELL, election.write(&seen, NOBODY)).await {
            Ok(Ok(_)) => info!("gave up the Lease"),
            Ok(Err(error)) => warn!(error = chain(&error), "the Lease was not given up; it expires"),
            Err(_) => warn!("the Lease was not given up for want of an answer; it expires"),
        }
    }

    fn held(&self) -> Option<Lease> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lead(&self, lease: Lease, identity: &str) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease);
        if !self.leads.send_replace(true) {
            info!(identity, "leads");
        }
    }

    fn follow(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.leads.send_replace(false);
    }
}

impl Seen {
    fn see(&mut self, lease: Option<Lease>) {
        self.told = true;
        let same = match (&self.lease, &lease) {
            (Some(known), Some(lease)) if known.uid() == lease.uid() => {
                !is_newer(&lease.metadata, &known.metadata)
            }
            (None, None) => true,
            _ => false,
        };
        if !same {
            (self.lease, self.since) = (lease, Instant::now());
        }
    }

    fn holder(&self) -> &str {
        let spec = self.lease.as_ref().and_then(|lease| lease.spec.as_ref());
        spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or(NOBODY)
    }
}

impl Election {
    fn is_ours(&self, seen: &Seen) -> bool {
        seen.holder() == self.identity
    }

    /// When the Lease may be taken. One that says it is this operator's, which doesn't lead, is from an earlier life or from a
    /// write whose answer was lost.
    fn free_at(&self, seen: &Seen) -> Instant {
        if seen.holder() == NOBODY || self.is_ours(seen) { seen.since } else { seen.since + HOLDS }
    }

    /// Writes the Lease, if it is still the one that was seen.
    async fn write(&self, seen: &Seen, holder: &str) -> kube::Result<Lease> {
        let before = seen.lease.as_ref();
        let spec = before.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let now = MicroTime(self.clock.now_micros());
        let is_taken_over = seen.holder() != holder && holder != NOBODY;
        let transitions =
            spec.lease_transitions.unwrap_or_default() + i32::from(is_taken_over && before.is_some());
        let lease = Lease {
            metadata: match before {
                Some(lease) => ObjectMeta { managed_fields: None, ..lease.metadata.clone() },
                None => ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: i32::try_from(HOLDS.as_secs()).ok(),
                acquire_time: if is_taken_over { Some(now.clone()) } else { spec.acquire_time },
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        };
        let params =
            PostParams { field_manager: Some(manager::OPERATOR.to_owned()), ..PostParams::default() };
        match before {
            Some(_) => self.api.replace(LEASE, &params, &lease).await,
            None => self.api.create(&params, &lease).await,
        }
    }
}
