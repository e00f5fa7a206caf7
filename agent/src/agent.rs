//! The agent put together: its watches, its loop, its Lease and its Events.

use std::time::Duration;

use futures::stream::{BoxStream, Stream, StreamExt, unfold};
use kube::core::DeserializeGuard;
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use virtnet_crds::{Dpu, VirtnetDevice};

use crate::clock::Clock;
use crate::in_time::in_time;
use crate::metrics::Metrics;
use crate::observe::Parts;
use crate::reconciler::{Reconciler, Surroundings};
use crate::{events, lease};

/// What an agent is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The DPU's name, which is that of its `Dpu` object and of its Lease.
    pub dpu: String,
    /// The namespace of the Lease.
    pub lease_namespace: String,
}

/// The namespace of Leases, where nothing else is said.
pub const LEASE_NAMESPACE: &str = "virtnet-system";

/// Runs the agent of one DPU. It has no end of its own: dropping the future stops it wherever it is, and a next one goes
/// on from what is there.
///
/// Three things run beside one another in this one task: the loop, the renewal of the Lease, and the publishing of
/// Events, which takes them from the loop by a bounded queue.
pub async fn run(config: Config, client: Client, parts: Parts, clock: Clock, metrics: Metrics) {
    let Config { dpu, lease_namespace } = config;
    let client = in_time(client);
    let (events, publisher) = events::channel(client.clone(), &dpu);
    let devices: Api<DeserializeGuard<VirtnetDevice>> = Api::all(client.clone());
    let mine = watcher::Config::default().fields(&format!("spec.dpu={dpu}")).streaming_lists();
    let devices = begun_anew(move || watcher(devices.clone(), mine.clone()).boxed());
    let devices = devices.backoff(Patience::of(&dpu)).boxed();
    let (object, name): (Api<Dpu>, _) = (Api::all(client.clone()), dpu.clone());
    let object = begun_anew(move || watcher::watch_object(object.clone(), &name).boxed());
    let object = object.backoff(Patience::of(&dpu)).boxed();
    let lease = lease::keep(client.clone(), lease_namespace, dpu.clone(), clock.clone());
    let reconciler = Reconciler::new(Surroundings { dpu, client, parts, clock, events, metrics });
    futures::join!(reconciler.run(devices, object), publisher.run(), lease);
}

/// A watch that begins anew with a list where the API won't go on from the version that it was at. [`watcher`] itself does
/// so when an event of the watch says that; where the request is refused with 410, it asks for that same version for ever.
fn begun_anew<T: Send + 'static>(
    begin: impl Fn() -> BoxStream<'static, Result<T, watcher::Error>> + Send,
) -> impl Stream<Item = Result<T, watcher::Error>> + Send {
    unfold((begin(), begin), |(mut watch, begin)| async move {
        let item = watch.next().await?;
        if let Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) = &item
            && status.code == 410
        {
            watch = begin();
        }
        Some((item, (watch, begin)))
    })
}

/// How long a cut watch waits before it is taken up again: doubling from about a second to half a minute, by a factor of
/// the DPU's own so that a fleet doesn't come back in one moment. No chance is involved: the same DPU waits the same.
#[derive(Debug)]
struct Patience {
    own: u32,
    attempt: u32,
}

impl Patience {
    fn of(dpu: &str) -> Self {
        let own =
            dpu.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) % 50;
        Self { own, attempt: 0 }
    }
}

impl Iterator for Patience {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        let seconds = (1u64 << self.attempt.min(5)).min(30);
        self.attempt = self.attempt.saturating_add(1);
        Some(Duration::from_millis(seconds * u64::from(800 + 8 * self.own)))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.attempt = 0;
    }
}
