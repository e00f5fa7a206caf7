//! Which devices are Ready, and waiting until all are.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use kube::api::ListParams;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tracing::debug;
use virtnet_crds::VirtnetDevice;
use virtnet_crds::conditions::READY;

use crate::output::Progress;

/// How many devices there are, and what is not Ready with its reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Devices.
    pub(crate) all: usize,
    /// `namespace/name: Reason: message` of each that is not Ready.
    pub(crate) not_ready: Vec<String>,
}

impl Standing {
    /// How many are Ready.
    pub(crate) fn ready(&self) -> usize {
        self.all - self.not_ready.len()
    }

    /// Whether there are devices and all are Ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.all > 0 && self.not_ready.is_empty()
    }

    fn of<'a>(devices: impl IntoIterator<Item = &'a VirtnetDevice>) -> Self {
        let (mut all, mut not_ready) = (0, Vec::new());
        for device in devices {
            all += 1;
            not_ready.extend(why_not(device));
        }
        Self { all, not_ready }
    }
}

/// Why a device is not Ready, if it is not. A status about an older generation says how it stood before.
pub(crate) fn why_not(device: &VirtnetDevice) -> Option<String> {
    let name = format!("{}/{}", device.namespace().unwrap_or_default(), device.name_any());
    let status = device.status.as_ref();
    let current = status.is_some_and(|status| Some(status.observed_generation) == device.metadata.generation);
    let ready = status.and_then(|status| status.conditions.iter().find(|condition| condition.type_ == READY));
    match ready {
        Some(condition) if !current => Some(format!(
            "{name}: its status is of an older spec: {}: {}",
            condition.reason, condition.message
        )),
        Some(condition) if condition.status == "True" => None,
        Some(condition) => Some(format!("{name}: {}: {}", condition.reason, condition.message)),
        None => Some(format!("{name}: no agent has looked at it yet")),
    }
}

/// How the devices of all namespaces stand now.
pub(crate) async fn standing(client: &Client) -> anyhow::Result<Standing> {
    let devices = Api::<VirtnetDevice>::all(client.clone()).list(&ListParams::default()).await;
    Ok(Standing::of(&devices.context("listing the devices")?.items))
}

/// Waits until there are devices and `done` counts all of them, showing progress, for `limit` at most. Answers how they
/// then stand.
pub(crate) async fn wait(
    client: &Client,
    what: &str,
    limit: Option<Duration>,
    done: impl Fn(&Standing) -> usize,
) -> anyhow::Result<Standing> {
    let mut progress = Progress::new(what);
    let mut devices: BTreeMap<_, VirtnetDevice> = BTreeMap::new();
    let name = |device: &VirtnetDevice| (device.namespace(), device.name_any());
    let waited = async {
        let api: Api<VirtnetDevice> = Api::all(client.clone());
        let mut events = watcher(api, watcher::Config::default().streaming_lists()).default_backoff().boxed();
        let mut listed = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => {
                    devices.clear();
                    listed = false;
                }
                Ok(Event::InitDone) => listed = true,
                Ok(Event::Apply(device) | Event::InitApply(device)) => {
                    devices.insert(name(&device), device);
                }
                Ok(Event::Delete(device)) => {
                    devices.remove(&name(&device));
                }
                Err(error) => debug!(%error, "the watch was cut; it is taken up again"),
            }
            if !listed {
                continue;
            }
            let standing = Standing::of(devices.values());
            let done = done(&standing);
            progress.at(done as u64, standing.all as u64);
            if standing.all > 0 && done == standing.all {
                break;
            }
        }
    };
    match limit {
        None => waited.await,
        // Running out of time is an answer too: how they then stand.
        Some(limit) => drop(tokio::time::timeout(limit, waited).await),
    }
    Ok(Standing::of(devices.values()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_of_an_older_spec_is_told_as_such() {
        let why = |generation: i64, status: &serde_json::Value| {
            let device = json!({
                "apiVersion": virtnet_crds::API_VERSION, "kind": "VirtnetDevice",
                "metadata": {"namespace": "n", "name": "d", "generation": generation},
                "spec": {"function": {"hotplug": {}}}, "status": status,
            });
            why_not(&serde_json::from_value(device).unwrap())
        };
        let condition = |status: &str, reason: &str| {
            let time = "2026-01-01T00:00:00Z";
            json!({"observedGeneration": 1, "conditions": [{
                "type": READY, "status": status, "reason": reason, "message": "m", "lastTransitionTime": time,
            }]})
        };
        assert_eq!(why(1, &condition("True", "Ready")), None);
        assert_eq!(why(1, &condition("False", "HostOff")).unwrap(), "n/d: HostOff: m");
        let older = why(2, &condition("True", "Ready")).unwrap();
        assert_eq!(older, "n/d: its status is of an older spec: Ready: m");
        let unseen = why(1, &json!({"observedGeneration": -1})).unwrap();
        assert_eq!(unseen, "n/d: no agent has looked at it yet");
    }
}
