//! The operator's judgement of silent agents over a small fleet: simulated DPUs, agents that come and go, on the embedded API
//! under a paused clock and on a real kube-apiserver in real time.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use virtnet_agent::Clock;
use virtnet_crds::{API_VERSION, Dpu, FUNCTION_FINALIZER, VirtnetDeviceSet, manager};
use virtnet_tests::control_plane::{ControlPlane, client_of};
use virtnet_tests::faulty_way::FaultyWay;
use virtnet_tests::fleet::{Fleet, embedded_api, meanwhile};
use virtnet_tests::manifests;

/// Longer than an agent must be silent to be called so.
const SILENCE: Duration = Duration::from_secs(120);
/// Far longer than anything takes.
const LIMIT: Duration = Duration::from_secs(180);

/// Agents, each of which can be stopped and started.
struct Agents<'a> {
    fleet: &'a Fleet,
    clock: Clock,
    running: BTreeMap<String, JoinHandle<()>>,
}

impl<'a> Agents<'a> {
    fn of(fleet: &'a Fleet, clock: &Clock) -> Self {
        let mut agents = Self { fleet, clock: clock.clone(), running: BTreeMap::new() };
        for dpu in fleet.sims.keys() {
            agents.start(dpu);
        }
        agents
    }

    fn start(&mut self, dpu: &str) {
        let agent = tokio::spawn(self.fleet.agent(dpu, &self.clock));
        self.running.insert(dpu.to_owned(), agent);
    }

    async fn stop(&mut self, dpu: &str) {
        let agent = self.running.remove(dpu).unwrap();
        agent.abort();
        assert!(agent.await.unwrap_err().is_cancelled());
    }
}

impl Drop for Agents<'_> {
    fn drop(&mut self) {
        self.running.values().for_each(JoinHandle::abort);
    }
}

fn on(dpu: &str) -> Value {
    json!({"dpu": dpu, "function": {"hotplug": {}}, "port": {"bridge": "ovsbr1"}})
}

async fn ready_of_dpu(client: &Client, name: &str) -> String {
    let dpus: Api<Dpu> = Api::all(client.clone());
    let conditions = dpus.get(name).await.unwrap().status.unwrap_or_default().conditions;
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    ready.map_or_else(String::new, |ready| format!("{} {}", ready.status, ready.reason))
}

async fn until_there(dpus: &Api<Dpu>, dpu: &str) {
    let begun = Instant::now();
    while dpus.get_opt(dpu).await.unwrap().is_none() {
        assert!(begun.elapsed() < LIMIT, "{dpu} does not come");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn until_gone(fleet: &Fleet, device: &str) {
    let begun = Instant::now();
    while fleet.devices().get_opt(device).await.unwrap().is_some() {
        assert!(begun.elapsed() < LIMIT, "{device} does not go");
        sleep(Duration::from_millis(100)).await;
    }
}

/// The functions of a DPU, by MAC, with their VUIDs.
async fn functions(fleet: &Fleet, dpu: &str) -> Vec<(String, String)> {
    let state = fleet.sims[dpu].controller().observe().await.unwrap();
    let functions = state.functions.values();
    functions.map(|function| (function.mac.to_string(), function.vuid.to_string())).collect()
}

/// A device as the API tells of it: `True Ready`, or `Unknown DpuGone`.
async fn ready_of(fleet: &Fleet, device: &str) -> String {
    let conditions = fleet.devices().get(device).await.unwrap().status.unwrap_or_default().conditions;
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    ready.map_or_else(String::new, |ready| format!("{} {}", ready.status, ready.reason))
}

async fn until_ready_of(fleet: &Fleet, device: &str, wanted: &str) {
    let begun = Instant::now();
    loop {
        let found = ready_of(fleet, device).await;
        if found == wanted {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "{device}: {found}, not {wanted}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_agents_devices_are_unknown_until_it_returns_and_nothing_is_disturbed() {
    let (client, writes, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &["dpu-a", "dpu-b"]);
    let mut agents = Agents::of(&fleet, &clock);
    let operator = || fleet.operator(&client, &clock);
    let written = || {
        let writes = writes.take().into_iter().filter(|write| write.resource != "leases");
        writes.map(|write| format!("{write:?}")).collect::<Vec<_>>()
    };
    meanwhile([operator(), operator()], async {
        for number in 0..4 {
            fleet.create(&format!("a-{number}"), on("dpu-a")).await;
            fleet.create(&format!("b-{number}"), on("dpu-b")).await;
        }
        fleet.until(&[("Ready", 8)]).await;
        sleep(Duration::from_secs(20)).await;
        let before = functions(&fleet, "dpu-b").await;
        written();
        agents.stop("dpu-b").await;
        sleep(Duration::from_secs(30)).await;
        assert_eq!(written(), Vec::<String>::new(), "its Lease still holds");
        fleet.until(&[("Ready", 4), ("DpuUnreachable", 4)]).await;
        assert_eq!(ready_of(&fleet, "b-0").await, "Unknown DpuUnreachable");
        sleep(Duration::from_secs(10)).await;
        assert_eq!(ready_of_dpu(&client, "dpu-b").await, "Unknown DpuUnreachable");
        assert_eq!(ready_of_dpu(&client, "dpu-a").await, "True Ready");
        // Each was said once, although two operators are at it, and is not said again.
        let said = written();
        assert!(said.len() <= 5 * 2, "{said:#?}");
        sleep(Duration::from_secs(600)).await;
        assert_eq!(written(), Vec::<String>::new());
        // Nothing new goes there, and what is deleted waits.
        fleet.create("new", json!({"dpuSelector": {}, "function": {"hotplug": {}}})).await;
        until_ready_of(&fleet, "new", "True Ready").await;
        assert_eq!(fleet.devices().get("new").await.unwrap().spec.dpu.as_deref(), Some("dpu-a"));
        fleet.devices().delete("b-3", &DeleteParams::default()).await.unwrap();
        sleep(SILENCE).await;
        assert!(fleet.devices().get_opt("b-3").await.unwrap().is_some());
        assert_eq!(functions(&fleet, "dpu-b").await, before);

        agents.start("dpu-b");
        fleet.until(&[("Ready", 8)]).await;
        let after = functions(&fleet, "dpu-b").await;
        assert!(before.len() == after.len() + 1 && after.iter().all(|one| before.contains(one)), "{after:?}");
        sleep(SILENCE).await;
        assert_eq!(ready_of_dpu(&client, "dpu-b").await, "True Ready");
        written();
        sleep(Duration::from_secs(600)).await;
        assert_eq!(written(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dpu_that_is_declared_gone_lets_go_what_is_deleted_and_sets_replace_what_was_there() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &["dpu-a", "dpu-b", "dpu-c"]);
    let mut agents = Agents::of(&fleet, &clock);
    let operator = || fleet.operator(&client, &clock);
    let dpus: Api<Dpu> = Api::all(client.clone());
    let sets: Api<VirtnetDeviceSet> = Api::default_namespaced(client.clone());
    meanwhile([operator(), operator()], async {
        sleep(Duration::from_secs(5)).await;
        for (name, loss, replicas) in [("kept", "Keep", 12), ("moved", "Replace", 6)] {
            let body = json!({
                "apiVersion": API_VERSION, "kind": "VirtnetDeviceSet", "metadata": {"name": name},
                "spec": {
                    "replicas": replicas, "dpuSelector": {}, "onDpuLoss": loss,
                    "template": {"spec": {"function": {"hotplug": {}}, "port": {"bridge": "ovsbr1"}}},
                },
            });
            sets.patch(name, &PatchParams::apply("person"), &Patch::Apply(body)).await.unwrap();
        }
        fleet.create("single", on("dpu-c")).await;
        fleet.create("going", on("dpu-c")).await;
        fleet.until(&[("Ready", 20)]).await;
        agents.stop("dpu-c").await;
        fleet.devices().delete("going", &DeleteParams::default()).await.unwrap();
        dpus.delete("dpu-c", &DeleteParams::default()).await.unwrap();
        sleep(Duration::from_secs(20)).await;
        assert!(dpus.get_opt("dpu-c").await.unwrap().is_some(), "its Lease still holds");
        until_gone(&fleet, "going").await;
        assert!(dpus.get_opt("dpu-c").await.unwrap().is_none());
        until_ready_of(&fleet, "single", "Unknown DpuGone").await;
        // Of one set all are Ready elsewhere, of the other those on the lost DPU are kept.
        fleet
            .until_so(|found| {
                let moved =
                    |names: &Vec<String>| names.iter().filter(|name| name.starts_with("moved")).count();
                found.get("Ready").is_some_and(|names| moved(names) == 6)
                    && !found.contains_key("DpuUnreachable")
            })
            .await;
        let gone = fleet.by_reason().await.remove("DpuGone").unwrap();
        assert!(
            gone.len() > 1 && gone.iter().all(|name| name == "single" || name.starts_with("kept")),
            "{gone:?}"
        );
        let kept = 12 - (gone.len() - 1);
        let begun = Instant::now();
        while usize::try_from(sets.get("kept").await.unwrap().status.unwrap().ready_replicas).unwrap() != kept
        {
            assert!(begun.elapsed() < LIMIT, "the set does not tell what it lost");
            sleep(Duration::from_millis(100)).await;
        }

        // It comes back: what is still bound to it is Ready again, and what was let go is gone or left as undeclared.
        agents.start("dpu-c");
        fleet.until(&[("Ready", 19)]).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_goes_also_where_it_is_bound_to_nothing_or_to_nobody() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &["dpu-a"]);
    let agents = Agents::of(&fleet, &clock);
    meanwhile([fleet.operator(&client, &clock)], async {
        // A person takes it off its DPU while the agent's finalizer is on it.
        fleet.create("taken", json!({"dpu": "dpu-a", "dpuSelector": {"matchLabels": {"rack": "r9"}}, "function": {"static": {"pf": 9}}})).await;
        fleet.until(&[("NoSuchPf", 1)]).await;
        let finalizers = json!({"metadata": {"finalizers": [FUNCTION_FINALIZER]}});
        for patch in [finalizers, json!({"spec": {"dpu": null}})] {
            fleet.devices().patch("taken", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        }
        fleet.until(&[("NoDpuSelected", 1)]).await;
        fleet.devices().delete("taken", &DeleteParams::default()).await.unwrap();
        until_gone(&fleet, "taken").await;
        // A DPU that never was: it says so, and goes.
        fleet.create("typo", on("dpu-aa")).await;
        until_ready_of(&fleet, "typo", "Unknown DpuGone").await;
        fleet.devices().delete("typo", &DeleteParams::default()).await.unwrap();
        until_gone(&fleet, "typo").await;
    })
    .await;
    drop(agents);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_was_away_makes_no_agent_silent() {
    let (client, writes, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &["dpu-a", "dpu-b"]);
    let way = FaultyWay::new(client.clone());
    let running = [
        fleet.agent_by(&way.client(), "dpu-a", &clock),
        fleet.agent_by(&way.client(), "dpu-b", &clock),
        fleet.operator(&way.client(), &clock),
        fleet.operator(&way.client(), &clock),
    ];
    meanwhile(running, async {
        fleet.create("a", on("dpu-a")).await;
        fleet.create("b", on("dpu-b")).await;
        fleet.until(&[("Ready", 2)]).await;
        sleep(Duration::from_secs(20)).await;
        for outage in [30, 45, 60, 90, 300] {
            way.cut_off();
            sleep(Duration::from_secs(outage)).await;
            way.heal();
            sleep(Duration::from_secs(200)).await;
            let marks: Vec<_> =
                writes.take().into_iter().filter(|write| write.manager == manager::LIVENESS).collect();
            assert!(marks.is_empty(), "after {outage} s: {marks:#?}");
        }
    })
    .await;
}

/// The agent lives, and can't be reached for as long as it takes to declare it gone.
#[tokio::test(start_paused = true)]
async fn an_agent_that_was_cut_off_makes_its_dpu_anew_and_has_what_was_kept() {
    let (client, _, clock) = embedded_api().await;
    let fleet = Fleet::new(client.clone(), &["dpu-a"]);
    let way = FaultyWay::new(client.clone());
    let dpus: Api<Dpu> = Api::all(client.clone());
    let running = [fleet.agent_by(&way.client(), "dpu-a", &clock), fleet.operator(&client, &clock)];
    meanwhile(running, async {
        for name in ["kept", "going"] {
            fleet.create(name, on("dpu-a")).await;
        }
        fleet.until(&[("Ready", 2)]).await;
        sleep(Duration::from_secs(20)).await;
        let before = functions(&fleet, "dpu-a").await;
        way.cut_off();
        fleet.devices().delete("going", &DeleteParams::default()).await.unwrap();
        dpus.delete("dpu-a", &DeleteParams::default()).await.unwrap();
        until_gone(&fleet, "going").await;
        until_ready_of(&fleet, "kept", "Unknown DpuGone").await;
        assert_eq!(functions(&fleet, "dpu-a").await, before);
        way.heal();
        until_ready_of(&fleet, "kept", "True Ready").await;
        until_there(&dpus, "dpu-a").await;
        // What nobody declares any more is removed or told of, and what is kept was not disturbed.
        let kept = fleet.devices().get("kept").await.unwrap().status.unwrap().function.unwrap().vuid;
        assert!(functions(&fleet, "dpu-a").await.iter().any(|(_, vuid)| *vuid == kept));
        sleep(SILENCE).await;
        assert_eq!(ready_of_dpu(&client, "dpu-a").await, "True Ready");
    })
    .await;
}

#[tokio::test]
async fn silence_is_judged_on_a_real_api_server_with_no_more_rights_than_operators_need() {
    let plane = ControlPlane::start().await.unwrap();
    manifests::install(&plane).await.unwrap();
    let fleet = Fleet::on_kubernetes(plane.client().await.unwrap(), &["dpu-a", "dpu-b"]);
    let client =
        client_of(&plane.kubeconfig_of("virtnet:operator:a", "virtnet:operators").unwrap()).await.unwrap();
    let mut agents = Agents::of(&fleet, &Clock::system());
    let dpus: Api<Dpu> = Api::all(fleet.client.clone());
    meanwhile([fleet.operator(&client, &Clock::system())], async {
        for dpu in ["dpu-a", "dpu-b"] {
            until_there(&dpus, dpu).await;
        }
        for (name, dpu) in [("a", "dpu-a"), ("b", "dpu-b"), ("going", "dpu-b")] {
            fleet.create(name, on(dpu)).await;
        }
        fleet.until(&[("Ready", 3)]).await;
        agents.stop("dpu-a").await;
        agents.stop("dpu-b").await;
        fleet.until(&[("DpuUnreachable", 3)]).await;
        // One comes back, the other one is declared gone.
        agents.start("dpu-a");
        fleet.devices().delete("going", &DeleteParams::default()).await.unwrap();
        dpus.delete("dpu-b", &DeleteParams::default()).await.unwrap();
        until_gone(&fleet, "going").await;
        until_ready_of(&fleet, "b", "Unknown DpuGone").await;
        until_ready_of(&fleet, "a", "True Ready").await;
        assert!(dpus.get_opt("dpu-b").await.unwrap().is_none());
        agents.start("dpu-b");
        fleet.until(&[("Ready", 2)]).await;
    })
    .await;
}
