//! Fleets in turmoil, by seeds: programs killed, ways to the API on which everything goes wrong, two operators that both act,
//! MACs and slots that are fought for.
//!
//! `VIRTNET_FLEETS=N` plays N seeds instead of 60 under the paused clock, or of 200 on real API servers; `VIRTNET_SEED=S` plays
//! one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use futures::stream::iter;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use virtnet_agent::Clock;
use virtnet_crds::{Dpu, LEASE_NAMESPACE, VirtnetDevice, VirtnetDeviceSet};
use virtnet_tests::control_plane::{ControlPlane, client_of};
use virtnet_tests::fleet::embedded_api;
use virtnet_tests::manifests;
use virtnet_tests::turmoil::{Ground, Outcome, Tempo, play};
use virtnet_tests::world::LEASES;

const VIRTUAL: Tempo = Tempo {
    turmoil: Duration::from_secs(120),
    pause: Duration::from_secs(10),
    recovery: Duration::from_secs(1800),
    silence: Duration::from_secs(300),
};

/// In real time what is retried is retried a minute later at last, and that has to be waited for.
const REAL: Tempo = Tempo {
    turmoil: Duration::from_secs(15),
    pause: Duration::from_secs(1),
    recovery: Duration::from_secs(600),
    silence: Duration::from_secs(75),
};
/// How many API servers there are, and how many fleets are on each at once.
const PLANES: usize = 4;
const FLEETS: usize = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

fn seeds(count: u64) -> Vec<u64> {
    match number("VIRTNET_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("VIRTNET_FLEETS").unwrap_or(count)).collect(),
    }
}

/// What came of all fleets so far.
#[derive(Default)]
struct Results {
    played: usize,
    totals: Outcome,
    failures: Vec<String>,
}

impl Results {
    fn add(&mut self, outcome: anyhow::Result<Outcome>) {
        self.played += 1;
        match outcome {
            Ok(Outcome { devices, ready, claimed, deaths }) => {
                self.totals.devices += devices;
                self.totals.ready += ready;
                self.totals.claimed += claimed;
                self.totals.deaths += deaths;
            }
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }

    #[expect(clippy::print_stdout, reason = "the figures, for whoever asks for them")]
    fn check(self) {
        let Self { played, totals, failures } = self;
        println!("{played} fleets: {totals:?}");
        assert!(failures.is_empty(), "{} of {played}:\n{}", failures.len(), failures.join("\n\n"));
        assert!(
            played < 20 || (totals.ready * 2 > totals.devices && totals.claimed > 0 && totals.deaths > 0),
            "the fleets have become too tame, or too wild: {totals:?}"
        );
    }
}

fn under_a_paused_clock(seed: u64) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(async {
        let (client, _, clock) = embedded_api().await;
        let ground = Ground { client, clients: BTreeMap::new(), clock, leases: LEASES, number: 1 };
        play(seed, ground, VIRTUAL).await
    })
}

#[test]
fn under_a_paused_clock_every_seed_comes_to_rest_as_it_was_wanted() {
    let next = Mutex::new(seeds(60).into_iter());
    let results = Mutex::new(Results::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let Some(seed) = next.lock().unwrap().next() else { return };
                    let outcome = under_a_paused_clock(seed);
                    results.lock().unwrap().add(outcome);
                }
            });
        }
    });
    results.into_inner().unwrap().check();
}

/// A client of whom a kubeconfig names, at home in this namespace.
async fn client_in(kubeconfig: &Path, namespace: &str) -> anyhow::Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    namespace.clone_into(&mut config.default_namespace);
    Ok(Client::try_from(config)?)
}

/// Removes objects whatever finalizers they bear: whose those are has ended.
async fn remove<K>(objects: Api<K>, which: impl Fn(&K) -> bool) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    for object in objects.list(&ListParams::default()).await?.items.iter().filter(|object| which(object)) {
        let name = object.name_any();
        if !object.finalizers().is_empty() {
            let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            objects.patch(&name, &PatchParams::default(), &patch).await?;
        }
        // Another may have been faster, such as the garbage collector.
        match objects.delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => drop(result?),
        }
    }
    Ok(())
}

/// Plays a fleet on an API server that others are on too, each program with its own certificate and no more rights than it
/// needs, and removes what is left of it.
async fn on_a_real_api_server(plane: &ControlPlane, seed: u64) -> anyhow::Result<Outcome> {
    let number = u16::try_from(seed + 1)?;
    let namespace = format!("fleet-{number}");
    let client = client_in(&plane.kubeconfig(), &namespace).await?;
    let object = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await?;
    let mut clients = BTreeMap::new();
    for dpu in Ground::dpus(number) {
        let kubeconfig = plane.kubeconfig_of(&format!("virtnet:agent:{dpu}"), "virtnet:agents")?;
        clients.insert(dpu, client_of(&kubeconfig).await?);
    }
    for operator in Ground::operators() {
        let user = format!("virtnet:operator:{namespace}:{operator}");
        clients.insert(operator, client_of(&plane.kubeconfig_of(&user, "virtnet:operators")?).await?);
    }
    let ground =
        Ground { client: client.clone(), clients, clock: Clock::system(), leases: LEASE_NAMESPACE, number };
    let outcome = play(seed, ground, REAL).await;
    let is_own = |name: &str| Ground::dpus(number).iter().any(|dpu| dpu == name);
    remove(Api::<VirtnetDeviceSet>::default_namespaced(client.clone()), |_| true).await?;
    remove(Api::<VirtnetDevice>::default_namespaced(client.clone()), |_| true).await?;
    remove(Api::<Dpu>::all(client.clone()), |dpu| is_own(&dpu.name_any())).await?;
    remove(Api::<Lease>::namespaced(client, LEASE_NAMESPACE), |lease| is_own(&lease.name_any())).await?;
    outcome
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "more than half an hour, for what is retried is waited for: make soak-fleet"]
async fn on_real_api_servers_every_seed_comes_to_rest_as_it_was_wanted() {
    let seeds = seeds(200);
    let results = Mutex::new(Results::default());
    let per_plane = iter(0..PLANES).map(|plane| {
        let seeds: Vec<_> = seeds.iter().skip(plane).step_by(PLANES).copied().collect();
        let results = &results;
        async move {
            if seeds.is_empty() {
                return;
            }
            let plane = ControlPlane::start().await.unwrap();
            manifests::install(&plane).await.unwrap();
            let play = async |seed| {
                let outcome = on_a_real_api_server(&plane, seed)
                    .await
                    .with_context(|| format!("seed {seed} on a real API server"));
                let mut results = results.lock().unwrap();
                if let Err(error) = &outcome {
                    println!("{error:#}");
                }
                results.add(outcome);
                println!("{} played, {} failed", results.played, results.failures.len());
            };
            iter(seeds).for_each_concurrent(FLEETS, play).await;
        }
    });
    per_plane.buffer_unordered(PLANES).collect::<()>().await;
    results.into_inner().unwrap().check();
}
