//! The operator's sets over a small fleet: simulated DPUs with an agent each, on the embedded API under a paused clock and on a
//! real kube-apiserver in real time. Two operators run at once, and neither knows of the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PropagationPolicy};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use virtnet_agent::Clock;
use virtnet_crds::{API_VERSION, Dpu, VirtnetDevice, VirtnetDeviceSet};
use virtnet_embedded_api::Recorder;
use virtnet_tests::control_plane::{ControlPlane, client_of};
use virtnet_tests::fleet::{Fleet, SLOTS, embedded_api, meanwhile};
use virtnet_tests::manifests;
use virtnet_tests::world::reason;

/// Far longer than any of it takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(180);

/// A fleet on the embedded API, with two operators.
struct Stage {
    fleet: Fleet,
    writes: Arc<Recorder>,
    clock: Clock,
}

impl Stage {
    async fn new(dpus: &[&str]) -> Self {
        let (client, writes, clock) = embedded_api().await;
        Self { fleet: Fleet::new(client, dpus), writes, clock }
    }

    async fn play(&self, story: impl Future<Output = ()>) {
        let operator = || self.fleet.operator(&self.fleet.client, &self.clock);
        meanwhile([self.fleet.agents(&self.clock), operator(), operator()], story).await;
    }

    fn sets(&self) -> Sets {
        Sets(self.fleet.client.clone())
    }

    /// What was written but Leases since this was asked last.
    fn written(&self) -> Vec<String> {
        let writes = self.writes.take().into_iter().filter(|write| write.resource != "leases");
        writes.map(|write| format!("{write:?}")).collect()
    }

    /// Waits, and finds that nothing is written meanwhile.
    async fn is_silent(&self) {
        sleep(Duration::from_secs(20)).await;
        self.written();
        sleep(Duration::from_secs(600)).await;
        assert_eq!(self.written(), Vec::<String>::new());
    }
}

/// The sets, as a person handles them.
struct Sets(Client);

impl Sets {
    fn api(&self) -> Api<VirtnetDeviceSet> {
        Api::default_namespaced(self.0.clone())
    }

    fn devices(&self) -> Api<VirtnetDevice> {
        Api::default_namespaced(self.0.clone())
    }

    async fn apply(&self, name: &str, spec: Value) {
        let body = json!({
            "apiVersion": API_VERSION, "kind": "VirtnetDeviceSet", "metadata": {"name": name}, "spec": spec,
        });
        self.api().patch(name, &PatchParams::apply("person"), &Patch::Apply(body)).await.unwrap();
    }

    async fn scale(&self, name: &str, replicas: u32) {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.api().patch_scale(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits until a set stands so.
    async fn until(&self, name: &str, wanted: &str) -> VirtnetDeviceSet {
        let begun = Instant::now();
        loop {
            let set = self.api().get(name).await.unwrap();
            let stands = standing(&set);
            if stands.starts_with(wanted) {
                return set;
            }
            assert!(begun.elapsed() < LIMIT, "{name}: {stands}, not {wanted}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn delete(&self, name: &str, policy: PropagationPolicy) {
        let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
        self.api().delete(name, &params).await.unwrap();
        let begun = Instant::now();
        while self.api().get_opt(name).await.unwrap().is_some() {
            assert!(begun.elapsed() < LIMIT, "{name} does not go");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn names(&self) -> BTreeSet<String> {
        self.list().await.iter().map(ResourceExt::name_any).collect()
    }

    async fn list(&self) -> Vec<VirtnetDevice> {
        self.devices().list(&Default::default()).await.unwrap().items
    }

    async fn label(&self, dpu: &str, key: &str, value: Value) {
        let dpus: Api<Dpu> = Api::all(self.0.clone());
        let patch = Patch::Merge(json!({"metadata": {"labels": {key: value}}}));
        dpus.patch(dpu, &PatchParams::default(), &patch).await.unwrap();
    }
}

/// `replicas/bound/ready/updated reason: message`, of a set whose status is of what is declared now.
fn standing(set: &VirtnetDeviceSet) -> String {
    let status = set.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    if Some(status.observed_generation) != set.metadata.generation {
        return format!("not observed: {}", status.observed_generation);
    }
    let Some(ready) = ready else { return "no condition".into() };
    assert_eq!(ready.status == "True", ready.reason == "Ready");
    let counts = [status.replicas, status.bound_replicas, status.ready_replicas, status.updated_replicas];
    format!("{} {}: {}", counts.map(|count| count.to_string()).join("/"), ready.reason, ready.message)
}

/// Hot-plugged functions that may be plugged anew for a change.
fn hot_plugged(replicas: u32, mtu: u16, bridge: &str) -> Value {
    json!({
        "replicas": replicas, "dpuSelector": {}, "maxUnavailable": 2,
        "template": {
            "metadata": {"labels": {"app": "web"}, "annotations": {"note": "of the set"}},
            "spec": {
                "function": {"hotplug": {}}, "mtu": mtu, "rebindPolicy": "Always", "port": {"bridge": bridge},
            },
        },
    })
}

fn vfs(to: u16) -> Value {
    json!({
        "perVf": {"pf": 0, "from": 0, "to": to}, "dpuSelector": {"matchLabels": {"role": "tenants"}},
        "template": {"spec": {"function": {"vf": {}}, "port": {"bridge": "ovsbr1"}}},
    })
}

fn all(count: usize) -> String {
    format!("{count}/{count}/{count}/{count} Ready: {count} devices are Ready")
}

#[tokio::test(start_paused = true)]
async fn a_set_is_made_scaled_and_rolled_a_few_at_a_time_and_a_bad_template_stops() {
    let stage = Stage::new(&["dpu-a", "dpu-b", "dpu-c"]).await;
    stage
        .play(async {
            let sets = stage.sets();
            sets.apply("web", hot_plugged(30, 1500, "ovsbr1")).await;
            let set = sets.until("web", &all(30)).await;
            assert_eq!(set.status.unwrap().selector, "virtnet.dev/set=web");
            assert_eq!(sets.names().await, (0..30).map(|number| format!("web-{number}")).collect());
            let device = sets.devices().get("web-7").await.unwrap();
            let (labels, annotations) = (device.labels(), device.annotations());
            assert_eq!((labels["app"].as_str(), labels["virtnet.dev/set"].as_str()), ("web", "web"));
            assert_eq!(annotations["note"], "of the set");
            let owner = &device.owner_references()[0];
            assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(true)));
            assert!(stage.fleet.check().await.values().all(|count| *count == 10), "they are spread");

            sets.scale("web", 40).await;
            sets.until("web", &all(40)).await;
            sets.scale("web", 20).await;
            sets.until("web", &all(20)).await;
            assert_eq!(sets.names().await, (0..20).map(|number| format!("web-{number}")).collect());
            stage.is_silent().await;

            // Another MTU: never more than two are out of service.
            let before: BTreeMap<_, _> =
                sets.list().await.iter().map(|device| (device.name_any(), device.uid())).collect();
            sets.apply("web", hot_plugged(20, 9000, "ovsbr1")).await;
            let mut fewest = usize::MAX;
            let as_before = all(20);
            while standing(&sets.api().get("web").await.unwrap()) != as_before {
                let list = sets.list().await;
                fewest = fewest.min(list.iter().filter(|device| reason(device).is_none()).count());
                sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(fewest, 18, "fewer than allowed were in service, or it did not use what it may");
            for device in sets.list().await {
                assert_eq!(device.status.as_ref().unwrap().function.as_ref().unwrap().mtu, Some(9000));
                assert_eq!(before[&device.name_any()], device.uid(), "it was changed in its place");
            }

            // A bridge that is not there: it stops at two, says why, and goes on with a better one.
            sets.apply("web", hot_plugged(20, 9000, "nowhere")).await;
            sleep(Duration::from_secs(60)).await;
            let stands = standing(&sets.api().get("web").await.unwrap());
            assert!(
                stands.starts_with("20/20/18/2 DevicesNotReady: 2 of 20 devices updated, 18 Ready; "),
                "{stands}"
            );
            assert!(stands.contains("18 wait to be changed; web-0: BridgeNotFound: "), "{stands}");
            stage.is_silent().await;
            sets.apply("web", hot_plugged(20, 9000, "ovsbr2")).await;
            sets.until("web", &all(20)).await;
            for device in sets.list().await {
                assert_eq!(device.status.unwrap().port.unwrap().bridge, "ovsbr2");
            }

            // What can't be changed in its place is made anew.
            let mut other = hot_plugged(20, 9000, "ovsbr2");
            other["template"]["spec"]["function"] = json!({"hotplug": {"uplink": "p0"}});
            sets.apply("web", other).await;
            sets.until("web", "20/20/20/").await;
            sets.until("web", &all(20)).await;
            assert!(sets.list().await.iter().all(|device| before[&device.name_any()] != device.uid()));
            stage.is_silent().await;
        })
        .await;
    // A new operator finds nothing to do.
    stage.written();
    stage.play(sleep(Duration::from_secs(60))).await;
    assert_eq!(stage.written(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_dpu_that_joins_or_leaves_the_selector_gains_or_loses_its_devices() {
    let stage = Stage::new(&["dpu-a", "dpu-b"]).await;
    stage
        .play(async {
            let sets = stage.sets();
            sleep(Duration::from_secs(5)).await;
            let dpus: Api<Dpu> = Api::all(sets.0.clone());
            for dpu in ["dpu-a", "dpu-b"] {
                let patch = Patch::Merge(json!({"spec": {"host": {"sriov": [{"pf": 0, "numVfs": 8}]}}}));
                dpus.patch(dpu, &PatchParams::default(), &patch).await.unwrap();
            }
            sets.apply("tenants", vfs(3)).await;
            sets.until("tenants", "0/0/0/0 NoDpuSelected: no Dpu has the labels role=tenants").await;
            sets.label("dpu-a", "role", json!("tenants")).await;
            sets.until("tenants", &all(4)).await;
            sets.label("dpu-b", "role", json!("tenants")).await;
            sets.until("tenants", &all(8)).await;
            assert_eq!(sets.names().await.last().unwrap(), "tenants-dpu-b-3");
            sets.label("dpu-a", "role", Value::Null).await;
            sets.until("tenants", &all(4)).await;
            assert!(sets.list().await.iter().all(|device| device.spec.dpu.as_deref() == Some("dpu-b")));
            sets.apply("tenants", vfs(5)).await;
            sets.until("tenants", &all(6)).await;

            // Of a replica the DPU is the binder's choice: it leaves one that is no longer selected.
            let mut anywhere = hot_plugged(6, 1500, "ovsbr1");
            anywhere["dpuSelector"] = json!({"matchLabels": {"rack": "r1"}});
            sets.label("dpu-a", "rack", json!("r1")).await;
            sets.apply("web", anywhere).await;
            sets.until("web", &all(6)).await;
            sets.label("dpu-b", "rack", json!("r1")).await;
            stage.is_silent().await;
            sets.label("dpu-a", "rack", json!("r2")).await;
            sleep(Duration::from_secs(1)).await;
            sets.until("web", &all(6)).await;
            let web = sets.list().await.into_iter().filter(|device| device.name_any().starts_with("web"));
            assert!(web.into_iter().all(|device| device.spec.dpu.as_deref() == Some("dpu-b")));
            stage.is_silent().await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_set_goes_with_its_devices_or_leaves_them_and_takes_them_up_again() {
    let stage = Stage::new(&["dpu-a"]).await;
    stage
        .play(async {
            let sets = stage.sets();
            let functions = async || -> BTreeMap<String, String> {
                let list = sets.list().await.into_iter();
                list.map(|device| {
                    let function = device.status.clone().unwrap().function.unwrap();
                    (device.uid().unwrap(), function.vuid)
                })
                .collect()
            };
            sets.apply("web", hot_plugged(3, 1500, "ovsbr1")).await;
            sets.until("web", &all(3)).await;
            let before = functions().await;
            sets.delete("web", PropagationPolicy::Orphan).await;
            stage.is_silent().await;
            assert_eq!(functions().await, before);
            // One that is someone's, and one whose label says nothing of this set, are not taken up.
            sets.apply("web", hot_plugged(2, 1500, "ovsbr1")).await;
            sets.until("web", &all(2)).await;
            assert_eq!(functions().await, before, "nothing was disturbed");
            assert_eq!(sets.names().await.len(), 3, "web-2 is wanted by nobody, and nobody's to take away");
            sets.apply("web", hot_plugged(3, 1500, "ovsbr1")).await;
            sets.until("web", &all(3)).await;
            assert_eq!(functions().await, before);
            sets.delete("web", PropagationPolicy::Foreground).await;
            assert!(sets.names().await.is_empty(), "the set went first");
            sets.apply("web", hot_plugged(3, 1500, "ovsbr1")).await;
            sets.until("web", &all(3)).await;
            sets.delete("web", PropagationPolicy::Background).await;
            let begun = Instant::now();
            while !sets.names().await.is_empty() {
                assert!(begun.elapsed() < LIMIT);
                sleep(Duration::from_millis(50)).await;
            }
            assert!(stage.fleet.check().await.is_empty());
            stage.is_silent().await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_people_do_to_a_sets_devices_is_theirs_and_told() {
    let stage = Stage::new(&["dpu-a"]).await;
    stage
        .play(async {
            let sets = stage.sets();
            let theirs = json!({
                "dpu": "dpu-a", "function": {"hotplug": {}}, "port": {"bridge": "ovsbr1"},
            });
            stage.fleet.create("web-1", theirs).await;
            sets.apply("web", hot_plugged(3, 1500, "ovsbr1")).await;
            sets.until("web", "2/2/2/2 DeviceConflict: 2 of 3 devices updated, 2 Ready; web-1 is there and not of this set")
                .await;
            sets.devices().delete("web-1", &DeleteParams::default()).await.unwrap();
            sets.until("web", &all(3)).await;
            // One that a person deletes is made again.
            sets.devices().delete("web-2", &DeleteParams::default()).await.unwrap();
            sleep(Duration::from_secs(2)).await;
            sets.until("web", &all(3)).await;
            // A field that a person takes is left, also by the next roll.
            let patch = Patch::Merge(json!({"spec": {"mtu": 4000}}));
            sets.devices().patch("web-0", &PatchParams::default(), &patch).await.unwrap();
            sets.until("web", "3/3/3/3 DeviceConflict: 3 of 3 devices updated, 3 Ready; spec.mtu of web-0 is held by someone else")
                .await;
            sets.apply("web", hot_plugged(3, 9000, "ovsbr1")).await;
            let set = sets.until("web", "3/3/3/2 DeviceConflict: 2 of 3 devices updated, 3 Ready; 1 wait to be changed; web-0: ").await;
            assert!(standing(&set).contains(".spec.mtu"), "{}", standing(&set));
            assert_eq!(sets.devices().get("web-0").await.unwrap().spec.mtu, Some(4000));
            // Until they want what the set wants.
            let patch = Patch::Merge(json!({"spec": {"mtu": 9000}}));
            sets.devices().patch("web-0", &PatchParams::default(), &patch).await.unwrap();
            sets.until("web", &all(3)).await;
            stage.is_silent().await;
        })
        .await;
}

#[tokio::test]
async fn sets_live_on_a_real_api_server_with_no_more_rights_than_operators_need() {
    let plane = ControlPlane::start().await.unwrap();
    let kubectl = manifests::install(&plane).await.unwrap();
    let fleet = Fleet::on_kubernetes(plane.client().await.unwrap(), &["dpu-a", "dpu-b"]);
    let sets = Sets(fleet.client.clone());
    let mut running: Vec<BoxFuture<'static, ()>> = vec![fleet.agents(&Clock::system())];
    for user in ["virtnet:operator:a", "virtnet:operator:b"] {
        let client = client_of(&plane.kubeconfig_of(user, "virtnet:operators").unwrap()).await.unwrap();
        running.push(fleet.operator(&client, &Clock::system()));
    }
    // It waits for what goes on on this thread.
    let kubectl = async |arguments: &'static [&'static str]| {
        let kubectl = kubectl.clone();
        let run = move || kubectl.run(arguments).unwrap().ok().unwrap();
        tokio::task::spawn_blocking(run).await.unwrap();
    };
    meanwhile(running, async {
        sets.apply("web", hot_plugged(20, 1500, "ovsbr1")).await;
        sets.until("web", &all(20)).await;
        kubectl(&["scale", "vnds/web", "--replicas", "30"]).await;
        sets.until("web", &all(30)).await;
        kubectl(&["wait", "--for=condition=Ready", "vnds/web", "--timeout=10s"]).await;
        kubectl(&["scale", "vnds/web", "--replicas=12"]).await;
        sets.until("web", &all(12)).await;
        sets.apply("web", hot_plugged(12, 9000, "ovsbr1")).await;
        sets.until("web", &all(12)).await;
        fleet.check().await;
        // Kubernetes' own garbage collection.
        kubectl(&["delete", "vnds", "web", "--cascade=orphan"]).await;
        sets.apply("web", hot_plugged(12, 9000, "ovsbr1")).await;
        sets.until("web", &all(12)).await;
        kubectl(&["delete", "vnds", "web", "--cascade=foreground"]).await;
        assert!(sets.names().await.is_empty(), "the set went first");
        // More than there is room for: what fits is Ready, and the set says what does not. A device that one operator bound to a
        // DPU that the other one filled waits there.
        let more = 2 * SLOTS + 3;
        sets.apply("web", hot_plugged(u32::try_from(more).unwrap(), 1500, "ovsbr1")).await;
        let full = format!(
            "/{}/{more} DevicesNotReady: {more} of {more} devices updated, {} Ready; ",
            2 * SLOTS,
            2 * SLOTS
        );
        let begun = Instant::now();
        while !standing(&sets.api().get("web").await.unwrap()).contains(&full) {
            assert!(begun.elapsed() < LIMIT);
            sleep(Duration::from_millis(100)).await;
        }
        kubectl(&["delete", "vnds", "web", "--cascade=background"]).await;
        let begun = Instant::now();
        while !sets.names().await.is_empty() {
            assert!(begun.elapsed() < LIMIT);
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}
