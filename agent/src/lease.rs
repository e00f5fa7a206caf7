//! The Lease by which others see that this DPU's agent lives: renewed every ten seconds, and at rest the only write.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::warn;
use virtnet_client::{Clock, chain};
use virtnet_crds::manager;

/// How long a renewal holds.
pub(crate) const DURATION: Duration = Duration::from_secs(40);
/// How often it is renewed.
pub(crate) const RENEWAL: Duration = Duration::from_secs(10);

/// Renews the Lease named as the DPU, for as long as it is polled.
pub(crate) async fn keep(client: Client, namespace: String, dpu: String, clock: Clock) {
    let api: Api<Lease> = Api::namespaced(client, &namespace);
    let acquired = MicroTime(clock.now_micros());
    let mut ticks = interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let lease = Lease {
            metadata: ObjectMeta { name: Some(dpu.clone()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(dpu.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: Some(acquired.clone()),
                renew_time: Some(MicroTime(clock.now_micros())),
                ..LeaseSpec::default()
            }),
        };
        // The agent is the only writer of its Lease; one left by an earlier life under another manager is taken over.
        let params = PatchParams::apply(manager::AGENT).force();
        // An answer that is long in coming must not hold up the next renewal until the Lease has expired.
        let result = match timeout(RENEWAL, api.patch(&dpu, &params, &Patch::Apply(&lease))).await {
            Ok(result) => result.map(drop).map_err(|error| chain(&error)),
            Err(_) => Err("no answer from the API".to_owned()),
        };
        if let Err(error) = result {
            warn!(error, %namespace, lease = dpu, "the Lease could not be renewed; it is tried again in {RENEWAL:?}");
        }
    }
}
