//! The operator: what one agent can't know. It writes only to the API, and never touches a DPU.
//!
//! | module | what lives there |
//! |---|---|
//! | `binder` | gives each device without `spec.dpu` a DPU that its selector matches and that has room for it |
//! | `fleet` | devices and DPUs as the API last told of them, with what the controllers need of each |
//!
//! Each controller is a loop of its own: what the API tells wakes it, it plans over the whole fleet (pure), and writes. Any
//! number of operators may run at once, each with a cache that is behind: every write is bound to the version of the object
//! that was seen, and what still overlaps the DPU's own agent decides.

mod binder;
mod fleet;

use futures::StreamExt;
use kube::runtime::watcher;
use kube::{Api, Client};
use virtnet_client::{Clock, in_time, watch};

/// Runs all controllers. It has no end of its own: dropping the future stops it wherever it is, and a next one goes on from
/// what is there.
pub async fn run(client: Client, clock: Clock) {
    let client = in_time(client);
    let config = watcher::Config::default().streaming_lists();
    let devices = watch(Api::all(client.clone()), config.clone(), "operator").boxed();
    let dpus = watch(Api::all(client.clone()), config, "operator").boxed();
    binder::run(client, clock, devices, dpus).await;
}
