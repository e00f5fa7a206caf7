//! What agents cost a real API server, by its own metrics: requests, writes and bytes.
//!
//! The figures are printed; `cargo test -p virtnet-tests --test counters -- --nocapture` shows them.

#![expect(clippy::unwrap_used, reason = "a test that can not go on panics")]

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::iter;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use virtnet_agent::{Clock, Metrics, Parts};
use virtnet_crds::{Dpu, VirtnetDevice};
use virtnet_sim::{Sim, SimConfig};
use virtnet_tests::api_counters::{Counters, processor_seconds};
use virtnet_tests::cluster::{Cluster, Config};
use virtnet_tests::control_plane::ControlPlane;
use virtnet_tests::world::{not_ready, reason};

/// Far longer than any of it takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(180);
/// How many requests of ours are under way at once.
const AT_ONCE: usize = 16;

/// Each has the machine to itself: what one waits for the other would be written as a state that lasts.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn create(devices: &Api<VirtnetDevice>, name: &str, spec: Value) {
    let object = json!({
        "apiVersion": virtnet_crds::API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": name}, "spec": spec,
    });
    devices.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

/// Waits until all of a list hold. It is looked again and again: a watch for each would be the greater load.
async fn until_all(devices: &Api<VirtnetDevice>, holds: impl Fn(&[VirtnetDevice]) -> Vec<String>) {
    let begun = Instant::now();
    loop {
        let left = holds(&devices.list(&ListParams::default()).await.unwrap().items);
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "after {} s: {left:#?}", LIMIT.as_secs());
        sleep(Duration::from_millis(250)).await;
    }
}

async fn until_ready(devices: &Api<VirtnetDevice>, count: usize) {
    until_all(devices, |items| {
        if items.len() < count {
            return vec![format!("{} of {count} devices are there", items.len())];
        }
        items.iter().filter_map(not_ready).collect()
    })
    .await;
}

/// The names and specs of 16 hot-plugged PFs, 4 static PFs and 504 VFs.
fn all_that_fits(dpu: &str) -> Vec<(String, Value)> {
    let spec = |function: Value| json!({"dpu": dpu, "function": function, "port": {"bridge": "ovsbr1"}});
    let hot = (0..16).map(|number| (format!("hot-{number}"), spec(json!({"hotplug": {}}))));
    let fixed = (0..4).map(|pf| (format!("static-{pf}"), spec(json!({"static": {"pf": pf}}))));
    let vfs = (0..4).flat_map(|pf| (0..126).map(move |vf| (pf, vf)));
    let vfs = vfs.map(|(pf, vf)| (format!("vf-{pf}-{vf}"), spec(json!({"vf": {"pf": pf, "vf": vf}}))));
    hot.chain(fixed).chain(vfs).collect()
}

/// What processes have used, in seconds.
struct Processors {
    agent: f64,
    apiserver: f64,
    etcd: f64,
}

impl Processors {
    fn read(cluster: &Cluster, dpu: &str) -> Self {
        let of = |process: Option<u32>| processor_seconds(process.unwrap()).unwrap();
        Self {
            agent: of(cluster.agent(dpu)),
            apiserver: of(cluster.plane().process("kube-apiserver")),
            etcd: of(cluster.plane().process("etcd")),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_and_twenty_four_devices_keep_the_budget_on_a_real_server() {
    const DPU: &str = "dpu-0";
    let _alone = ONE_AT_A_TIME.lock().await;
    let config = Config {
        dpus: vec![DPU.into()],
        firmware: "PF_TOTAL_SF=524".into(),
        no_drivers: false,
        operators: 1,
    };
    let cluster = Cluster::start(config).await.unwrap();
    let client = cluster.plane().client().await.unwrap();
    let devices: Api<VirtnetDevice> = Api::default_namespaced(client.clone());
    let all = all_that_fits(DPU);
    let count = all.len();
    assert_eq!(count, 524);

    let (before, used) = (Counters::read(&client).await.unwrap(), Processors::read(&cluster, DPU));
    let begun = Instant::now();
    let sriov: Vec<_> = (0..4).map(|pf| json!({"pf": pf, "numVfs": 126})).collect();
    let dpu = json!({
        "apiVersion": virtnet_crds::API_VERSION, "kind": "Dpu", "metadata": {"name": DPU},
        "spec": {"host": {"sriov": sriov}},
    });
    let dpus: Api<Dpu> = Api::all(client.clone());
    dpus.patch(DPU, &PatchParams::apply("test"), &Patch::Apply(dpu)).await.unwrap();
    iter(all)
        .for_each_concurrent(AT_ONCE, |(name, spec)| {
            let devices = devices.clone();
            async move { create(&devices, &name, spec).await }
        })
        .await;
    let created = begun.elapsed();
    until_ready(&devices, count).await;
    let ready = begun.elapsed();
    let (after, now) = (Counters::read(&client).await.unwrap(), Processors::read(&cluster, DPU));
    let of_devices = [("resource", "virtnetdevices")];
    let patched = [("resource", "virtnetdevices"), ("verb", "patch")];
    let grown = |name: &str, labels: &[(&str, &str)]| after.sum(name, labels) - before.sum(name, labels);
    let each = |value: f64| value / 524.0;
    let writes = after.agent_writes() - before.agent_writes();
    println!(
        "524 devices: created in {:.1} s, Ready after {:.1} s ({:.0} a second)",
        created.as_secs_f64(),
        ready.as_secs_f64(),
        524.0 / ready.as_secs_f64()
    );
    println!(
        "per device: {:.2} writes of the agent, {:.0} bytes sent by it, {:.2} watch events of {:.0} bytes in all",
        each(writes),
        each(grown("apiserver_request_body_size_bytes_sum", &patched)),
        each(grown("apiserver_watch_events_total", &of_devices)),
        each(grown("apiserver_watch_events_sizes_sum", &of_devices)),
    );
    println!(
        "processor, ms per device: agent {:.2}, kube-apiserver {:.2}, etcd {:.2}",
        1000.0 * each(now.agent - used.agent),
        1000.0 * each(now.apiserver - used.apiserver),
        1000.0 * each(now.etcd - used.etcd),
    );
    assert!(writes <= 2.0 * 524.0, "{writes} writes: more than the finalizer and one status each");
    let conflicts = after.requests("APPLY", "status", "409") + after.requests("PATCH", "", "422");
    assert!(conflicts <= 52.0, "{conflicts} writes of an older version: more than one of ten devices");

    // At rest nothing but the Lease: for longer than the Dpu and statuses would wait before they are written.
    let rest = Duration::from_secs(12);
    sleep(rest).await;
    let rested = Counters::read(&client).await.unwrap();
    let dpu_writes = |counters: &Counters| {
        counters.sum("apiserver_request_total", &[("resource", "dpus"), ("verb", "APPLY")])
    };
    assert!((rested.agent_writes() - after.agent_writes()).abs() < 0.5, "written at rest");
    let idle = Processors::read(&cluster, DPU);
    println!(
        "at rest: the agent uses {:.2} % of a processor",
        100.0 * (idle.agent - now.agent) / rest.as_secs_f64()
    );
    assert!(dpu_writes(&rested) - dpu_writes(&before) <= ready.as_secs_f64() + 2.0, "the Dpu once a second");

    let begun = Instant::now();
    devices.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    until_all(&devices, |items| items.iter().map(ResourceExt::name_any).collect()).await;
    println!("deleted in {:.1} s", begun.elapsed().as_secs_f64());
    let gone = Counters::read(&client).await.unwrap();
    let releases = gone.requests("PATCH", "", "200") - rested.requests("PATCH", "", "200");
    let told = gone.requests("APPLY", "status", "200") - rested.requests("APPLY", "status", "200");
    println!("of them {told} also told of it, since that took longer than a second");
    assert!(releases <= 524.0, "{releases} writes: more than the release of the finalizer of each");
    assert!(told <= 52.0, "{told} statuses of devices that were deleted: more than of one in ten");
}

/// An agent with a DPU of its own, in this process.
struct Fleet {
    metrics: Vec<Metrics>,
    _agents: JoinSet<()>,
}

impl Fleet {
    fn start(client: &Client, names: &[String]) -> Self {
        let (mut metrics, mut agents) = (Vec::new(), JoinSet::new());
        for name in names {
            let (sim, counted) = (Sim::new(SimConfig::default()), Metrics::default());
            let config = virtnet_agent::Config { dpu: name.clone(), lease_namespace: "kube-system".into() };
            metrics.push(counted.clone());
            let client = client.clone();
            agents.spawn(async move {
                virtnet_agent::run(config, client, Parts::from(&sim), Clock::system(), counted).await;
            });
        }
        Self { metrics, _agents: agents }
    }

    /// How many events of its watch each agent had.
    fn heard(&self) -> Vec<u64> {
        self.metrics.iter().map(|metrics| metrics.watch_events.get()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_device_reaches_one_agent_of_however_many() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let plane = ControlPlane::start().await.unwrap();
    plane.install_kinds().await.unwrap();
    let client = plane.client().await.unwrap();
    let devices: Api<VirtnetDevice> = Api::default_namespaced(client.clone());
    for size in [1, 10, 100] {
        let before = Counters::read(&client).await.unwrap();
        let names: Vec<String> = (0..size).map(|number| format!("fleet-{size}-{number}")).collect();
        let fleet = Fleet::start(&client, &names);
        for name in &names {
            let spec = json!({"dpu": name, "function": {"hotplug": {}}, "port": {"bridge": "ovsbr1"}});
            create(&devices, name, spec).await;
        }
        until_ready(&devices, size).await;
        // The echoes of the last writes.
        let heard = until_quiet(&fleet).await;

        let changed = &names[size / 2];
        let tag = json!({"spec": {"port": {"tag": 7}}});
        devices.patch(changed, &PatchParams::default(), &Patch::Merge(tag)).await.unwrap();
        let tagged = |device: Option<&VirtnetDevice>| {
            let port = device.and_then(|device| device.status.as_ref()?.port.as_ref()?.tag);
            port == Some(7) && device.is_some_and(|device| reason(device).is_none())
        };
        timeout(LIMIT, await_condition(devices.clone(), changed, tagged)).await.unwrap().unwrap();
        let now = until_quiet(&fleet).await;
        let news: Vec<u64> = now.iter().zip(&heard).map(|(now, then)| now - then).collect();
        let (of_it, of_others) = (news[size / 2], news.iter().sum::<u64>() - news[size / 2]);
        assert_eq!(
            (of_it, of_others),
            (2, 0),
            "of {size}: the edit and its own status, and nothing to others"
        );

        let after = Counters::read(&client).await.unwrap();
        let writes = after.agent_writes() - before.agent_writes();
        println!(
            "{size} agents: {:.2} writes of a device, the edited one's included",
            writes / names.len() as f64
        );
        // The edit of ours counts as a patch too.
        let budget = 2 * size + 2;
        assert!(writes <= budget as f64, "{writes} writes of {size} devices, of which one was edited");
        // Whoever collects garbage may list once; agents stream.
        let lists = [("resource", "virtnetdevices"), ("verb", "LIST"), ("scope", "cluster")];
        let lists =
            after.sum("apiserver_request_total", &lists) - before.sum("apiserver_request_total", &lists);
        assert!(lists <= 1.0, "{lists} lists by {size} agents, which are to stream");

        devices.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
        until_all(&devices, |items| items.iter().map(ResourceExt::name_any).collect()).await;
    }
}

/// Waits until no agent has heard anything for two seconds; what each had heard by then.
async fn until_quiet(fleet: &Fleet) -> Vec<u64> {
    let begun = Instant::now();
    let (mut heard, mut since) = (fleet.heard(), Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        assert!(begun.elapsed() < LIMIT, "never quiet");
        sleep(Duration::from_millis(100)).await;
        let now = fleet.heard();
        if now != heard {
            (heard, since) = (now, Instant::now());
        }
    }
    heard
}
