//! The samples in any order: what is declared comes out the same however it comes in.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use virtnet_crds::{API_VERSION, noted_mac, yaml};
use virtnet_embedded_api::Recorder;
use virtnet_sim::SimConfig;
use virtnet_tests::fleet::{Fleet, embedded_api, meanwhile};
use virtnet_tests::manifests;

/// How many orders.
const ORDERS: u64 = 100;
/// Nothing but Leases was written for this long: all has come to rest. Retries are further apart than that only where nothing
/// changes any more.
const QUIET: Duration = Duration::from_secs(90);
/// Far longer than it takes.
const LIMIT: Duration = Duration::from_secs(1800);

/// The documents of all samples.
fn samples() -> Vec<Value> {
    let mut files: Vec<_> =
        manifests::path("samples").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
    texts
        .flat_map(|text| {
            yaml::documents(&text).into_iter().map(|document| document.unwrap().value).collect::<Vec<_>>()
        })
        .collect()
}

fn api(client: &Client, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("virtnet.dev", "v1alpha1", kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    }
}

async fn apply(client: &Client, object: &Value) {
    let namespace = object["metadata"]["namespace"].as_str();
    let api = api(client, object["kind"].as_str().unwrap(), namespace);
    let name = object["metadata"]["name"].as_str().unwrap();
    api.patch(name, &PatchParams::apply("kubectl"), &Patch::Apply(object)).await.unwrap();
}

async fn until_quiet(writes: &Recorder) {
    let begun = Instant::now();
    let mut since = begun;
    while since.elapsed() < QUIET {
        assert!(begun.elapsed() < LIMIT, "it does not come to rest");
        sleep(Duration::from_secs(1)).await;
        if writes.take().iter().any(|write| write.resource != "leases") {
            since = Instant::now();
        }
    }
}

/// All that there is, without what is each life's own: uids, times, and what the DPU gives out as it goes (indices, addresses,
/// the numbers of SFs, MACs that were derived from uids).
async fn state(client: &Client) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for kind in ["VirtnetDevice", "VirtnetDeviceSet", "Dpu"] {
        for object in api(client, kind, None).list(&ListParams::default()).await.unwrap().items {
            let (spec, status) = (&object.data["spec"], &object.data["status"]);
            let conditions: Vec<_> = status["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|condition| json!([condition["type"], condition["status"], condition["reason"]]))
                .collect();
            let mut told = json!({"conditions": conditions});
            for field in [
                "/function/type",
                "/function/mtu",
                "/function/maxQueues",
                "/function/transitional",
                "/port",
                "/host",
                "/replicas",
                "/boundReplicas",
                "/readyReplicas",
                "/updatedReplicas",
                "/capacity",
                "/allocated",
            ] {
                if let Some(value) = status.pointer(field) {
                    told[field] = value.clone();
                }
            }
            if spec.get("mac").is_some() {
                told["mac"] = status["function"]["mac"].clone();
            }
            let mut labels = object.labels().clone();
            if spec.get("mac").is_none() {
                labels.retain(|label, _| noted_mac(label).is_none());
            }
            found.insert(
                format!("{kind} {}", object.name_any()),
                json!({"labels": labels, "finalizers": object.finalizers(), "spec": spec, "status": told}),
            );
        }
    }
    found
}

/// One life: the samples in an order of this seed, agent and operators begun at some time in between.
async fn life(seed: u64) -> BTreeMap<String, Value> {
    let (client, writes, clock) = embedded_api().await;
    // Where the host's driver has a VF before its MAC is declared, that waits for a person: the order does make a difference then.
    let config = SimConfig { autoprobe: false, ..SimConfig::default() };
    let fleet = Fleet::of(client.clone(), &["dpu-0"], &config);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut objects = samples();
    objects.shuffle(&mut rng);
    let mut moment = |longest: u64| Duration::from_millis(rng.random_range(0..longest));
    let [agent, first, second] = [(); 3].map(|()| moment(8000));
    let pauses: Vec<_> = objects.iter().map(|_| moment(1500)).collect();
    let operator = |at: Duration| {
        let work = fleet.operator(&client, &clock);
        async move {
            sleep(at).await;
            work.await;
        }
        .boxed()
    };
    let agents = fleet.agents(&clock);
    let agents = async move {
        sleep(agent).await;
        agents.await;
    }
    .boxed();
    let mut found = BTreeMap::new();
    meanwhile([agents, operator(first), operator(second)], async {
        for (object, pause) in objects.iter().zip(pauses) {
            sleep(pause).await;
            apply(&client, object).await;
        }
        until_quiet(&writes).await;
        found = state(&client).await;
    })
    .await;
    found
}

#[tokio::test(start_paused = true)]
async fn the_samples_end_the_same_in_a_hundred_orders() {
    assert!(samples().iter().all(|object| object["apiVersion"] == API_VERSION) && samples().len() >= 10);
    let first = life(0).await;
    let not_ready = |state: &BTreeMap<String, Value>| -> Vec<String> {
        let ready = json!(["Ready", "True", "Ready"]);
        let states = state
            .iter()
            .filter(|(_, object)| !object["status"]["conditions"].as_array().unwrap().contains(&ready));
        states.map(|(name, _)| name.clone()).collect()
    };
    // This DPU makes no transitional function, and none is selected for that set.
    assert_eq!(not_ready(&first), ["VirtnetDevice legacy", "VirtnetDeviceSet tenants"], "{first:#?}");
    for seed in 1..ORDERS {
        let state = life(seed).await;
        for (name, object) in &state {
            assert_eq!(Some(object), first.get(name), "{name} with seed {seed}");
        }
        assert_eq!(state.len(), first.len(), "seed {seed}");
    }
}
