//! The agent put together: its watches, its loop, its Lease and its Events.

use futures::StreamExt;
use kube::runtime::watcher;
use kube::{Api, Client};
use virtnet_client::{Clock, begun_anew, events, in_time, watch};
use virtnet_crds::{Dpu, VirtnetDevice, manager};

use crate::lease;
use crate::metrics::Metrics;
use crate::observe::Parts;
use crate::reconciler::{Reconciler, Surroundings};

/// What an agent is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The DPU's name, which is that of its `Dpu` object and of its Lease.
    pub dpu: String,
    /// The namespace of the Lease.
    pub lease_namespace: String,
}

/// Runs the agent of one DPU. It has no end of its own: dropping the future stops it wherever it is, and a next one goes
/// on from what is there.
///
/// Three things run beside one another in this one task: the loop, the renewal of the Lease, and the publishing of
/// Events, which takes them from the loop by a bounded queue.
pub async fn run(config: Config, client: Client, parts: Parts, clock: Clock, metrics: Metrics) {
    let Config { dpu, lease_namespace } = config;
    let client = in_time(client);
    let (events, publisher) = events(client.clone(), manager::AGENT, &dpu);
    let mine = watcher::Config::default().fields(&format!("spec.dpu={dpu}")).streaming_lists();
    let devices = watch::<VirtnetDevice>(Api::all(client.clone()), mine, &dpu).boxed();
    let (object, name): (Api<Dpu>, _) = (Api::all(client.clone()), dpu.clone());
    let object = begun_anew(move || watcher::watch_object(object.clone(), &name).boxed(), &dpu).boxed();
    let lease = lease::keep(client.clone(), lease_namespace, dpu.clone(), clock.clone());
    let reconciler = Reconciler::new(Surroundings { dpu, client, parts, clock, events, metrics });
    futures::join!(reconciler.run(devices, object), publisher.run(), lease);
}
