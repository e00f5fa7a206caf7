//! `make bench-fleet`: what a fleet costs its operator, for several numbers of devices on a real API server: how long it takes to
//! bind them all, to start where all is as wanted, how much memory it has, and that it writes nothing then.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use futures::TryStreamExt;
use futures::stream::iter;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;
use virtnet_agent::{Clock, Metrics, Parts, Uid, derived_mac};
use virtnet_crds::{API_VERSION, Dpu, LEASE_NAMESPACE, VirtnetDevice};
use virtnet_local_switch::Programs;
use virtnet_sim::{FirmwareConfig, Sim, SimConfig};
use virtnet_tests::api_counters::{Counters, processor_seconds, resident_bytes};
use virtnet_tests::control_plane::{ControlPlane, client_of};
use virtnet_tests::manifests;
use virtnet_tests::ports::own_ports;
use virtnet_tests::programs::{built, get};

/// How many devices there are.
#[derive(Debug, Parser)]
struct Arguments {
    /// Numbers of devices, 200 of them for each DPU
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,20000")]
    devices: Vec<u32>,
    /// For how many seconds nothing may be written at rest
    #[arg(long, default_value_t = 60)]
    rest: u64,
}

/// What a DPU of the fleet is to have: 8 hot-plugged PFs, and 48 VFs of each of 4 static PFs.
const HOT_PLUGGED: u32 = 8;
const VFS: u32 = 48;
const OF_A_DPU: u32 = HOT_PLUGGED + 4 * VFS;
/// How many requests of ours are under way at once.
const AT_ONCE: usize = 16;
const LIMIT: Duration = Duration::from_secs(3600);
const OPERATOR: &str = "operator";

/// An operator that runs: a program of its own.
struct Operator<'a> {
    programs: Programs,
    plane: &'a ControlPlane,
    port: u16,
}

/// What one tells of itself.
struct Told {
    unbound: f64,
    ready: f64,
    /// Requests by their results.
    requests: BTreeMap<String, f64>,
}

impl<'a> Operator<'a> {
    fn new(plane: &'a ControlPlane) -> anyhow::Result<Self> {
        let [port] = own_ports()?;
        Ok(Self { programs: Programs::new(plane.folder()), plane, port })
    }

    /// Starts it, and tells how long it took until it knew all objects.
    async fn start(&mut self) -> anyhow::Result<Duration> {
        let kubeconfig = self.plane.kubeconfig_of("virtnet:operator", "virtnet:operators")?;
        let mut program = Command::new(built("virtnet-operator")?);
        program
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--http=127.0.0.1:{}", self.port))
            .arg(format!("--identity={OPERATOR}"));
        let begun = Instant::now();
        self.programs.start(OPERATOR, &program)?;
        loop {
            if get(self.port, "/readyz").await.is_ok_and(|(code, _)| code == 200) {
                return Ok(begun.elapsed());
            }
            self.programs.check()?;
            ensure!(begun.elapsed() < LIMIT, "the operator does not come to know all objects");
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.programs.end(OPERATOR)
    }

    fn process(&self) -> anyhow::Result<u32> {
        self.programs.id(OPERATOR).context("the operator does not run")
    }

    async fn told(&self) -> anyhow::Result<Told> {
        let (_, text) = get(self.port, "/metrics").await?;
        let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok());
        let state = |state: &str| {
            let series = format!("virtnet_operator_devices{{state=\"{state}\"}}");
            let line = text.lines().find(|line| line.starts_with(&series));
            line.and_then(value).with_context(|| format!("the operator tells of no {series}"))
        };
        let requests = text.lines().filter(|line| line.starts_with("virtnet_operator_requests_total{"));
        let requests = requests.filter_map(|line| Some((line.rsplit_once(' ')?.0.to_owned(), value(line)?)));
        Ok(Told { unbound: state("Unbound")?, ready: state("Ready")?, requests: requests.collect() })
    }

    /// Waits until it tells this, and says how long that took.
    async fn until(&mut self, what: &str, holds: impl Fn(&Told) -> bool) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let mut said = begun;
        loop {
            let told = self.told().await?;
            if holds(&told) {
                return Ok(begun.elapsed());
            }
            self.programs.check()?;
            if said.elapsed() > Duration::from_secs(10) {
                said = Instant::now();
                progress(&format!("  waiting until {what}: {} unbound, {} Ready", told.unbound, told.ready));
            }
            ensure!(begun.elapsed() < LIMIT, "not seen within {} s: {what}", LIMIT.as_secs());
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What was measured with so many devices.
struct Row {
    devices: u32,
    dpus: u32,
    bound: Duration,
    binding_cpu: f64,
    ready: Duration,
    start: Duration,
    start_cpu: f64,
    empty: u64,
    full: u64,
    object: usize,
    rest_cpu: f64,
}

fn names(dpus: u32) -> impl Iterator<Item = String> {
    (0..dpus).map(|number| format!("dpu-{number:03}"))
}

/// A function for each device; which DPU gives it is the binder's choice.
fn specs(dpus: u32) -> Vec<(String, Value)> {
    let spec =
        |function: Value| json!({"dpuSelector": {}, "function": function, "port": {"bridge": "ovsbr1"}});
    let hot =
        (0..dpus * HOT_PLUGGED).map(|number| (format!("hot-{number:05}"), spec(json!({"hotplug": {}}))));
    let vfs = (0..dpus).flat_map(|copy| (0..4).flat_map(move |pf| (0..VFS).map(move |vf| (copy, pf, vf))));
    let vfs = vfs.map(|(copy, pf, vf)| {
        (format!("vf-{pf}-{vf:02}-{copy:03}"), spec(json!({"vf": {"pf": pf, "vf": vf}})))
    });
    hot.chain(vfs).collect()
}

/// Starts an agent for each DPU, with its own certificate, and waits until all tell what they have.
async fn start_agents(plane: &ControlPlane, dpus: u32) -> anyhow::Result<JoinSet<()>> {
    let api: Api<Dpu> = Api::all(plane.client().await?);
    let mut agents = JoinSet::new();
    for name in names(dpus) {
        let kubeconfig = plane.kubeconfig_of(&format!("virtnet:agent:{name}"), "virtnet:agents")?;
        let client = client_of(&kubeconfig).await?;
        let config = SimConfig {
            firmware: FirmwareConfig::guide_with("")?,
            base_mac: derived_mac(&Uid::from(name.as_str())),
            ..SimConfig::default()
        };
        let config_of_agent =
            virtnet_agent::Config { dpu: name, lease_namespace: LEASE_NAMESPACE.to_owned() };
        agents.spawn(async move {
            let sim = Sim::new(config);
            virtnet_agent::run(
                config_of_agent,
                client,
                Parts::from(&sim),
                Clock::system(),
                Metrics::default(),
            )
            .await;
        });
    }
    let begun = Instant::now();
    loop {
        let list = api.list(&ListParams::default()).await?.items;
        let tells = |dpu: &&Dpu| dpu.status.as_ref().is_some_and(|status| status.capacity.is_some());
        let there = list.iter().filter(tells).count();
        if there == usize::try_from(dpus)? {
            return Ok(agents);
        }
        if let Some(ended) = agents.try_join_next() {
            bail!("an agent ended: {ended:?}");
        }
        ensure!(begun.elapsed() < LIMIT, "{there} of {dpus} DPUs tell what they have");
        sleep(Duration::from_millis(500)).await;
    }
}

/// Has the hosts make the VFs. Made before they are declared, each would be reported as undeclared, and reported again with each
/// that is declared.
async fn make_vfs(client: &Client, dpus: u32) -> anyhow::Result<()> {
    let api: Api<Dpu> = Api::all(client.clone());
    for name in names(dpus) {
        let sriov: Vec<_> = (0..4).map(|pf| json!({"pf": pf, "numVfs": VFS})).collect();
        let body = json!({
            "apiVersion": API_VERSION, "kind": "Dpu", "metadata": {"name": name}, "spec": {"host": {"sriov": sriov}},
        });
        api.patch(&name, &PatchParams::apply("bench"), &Patch::Apply(body)).await?;
    }
    Ok(())
}

/// How many writes of our kinds the API server acknowledged, whoever made them.
fn writes(counters: &Counters) -> f64 {
    let of = |verb| counters.sum("apiserver_request_total", &[("group", "virtnet.dev"), ("verb", verb)]);
    ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"].into_iter().map(of).sum()
}

async fn measure(devices: u32, rest: Duration) -> anyhow::Result<Row> {
    ensure!(devices.is_multiple_of(OF_A_DPU), "--devices: {devices} is no multiple of {OF_A_DPU}");
    let dpus = devices / OF_A_DPU;
    let plane = ControlPlane::start().await?;
    manifests::install(&plane).await?;
    let client = plane.client().await?;
    let mut operator = Operator::new(&plane)?;
    progress(&format!("{devices} devices: {dpus} agents begin"));
    let _agents = start_agents(&plane, dpus).await?;

    operator.start().await?;
    sleep(Duration::from_secs(10)).await;
    let empty = resident_bytes(operator.process()?)?;
    operator.end()?;

    progress(&format!("{devices} devices: they are created"));
    let api: Api<VirtnetDevice> = Api::default_namespaced(client.clone());
    iter(specs(dpus).into_iter().map(anyhow::Ok))
        .try_for_each_concurrent(AT_ONCE, |(name, spec)| {
            let api = api.clone();
            async move {
                let object = json!({
                    "apiVersion": API_VERSION, "kind": "VirtnetDevice", "metadata": {"name": name}, "spec": spec,
                });
                api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
                Ok(())
            }
        })
        .await?;

    progress(&format!("{devices} devices: they are bound"));
    let count = f64::from(devices);
    operator.start().await?;
    let bound = operator.until("all are bound", |told| told.unbound < 0.5).await?;
    let binding_cpu = processor_seconds(operator.process()?)?;
    make_vfs(&client, dpus).await?;
    let ready = bound + operator.until("all are Ready", |told| told.ready > count - 0.5).await?;
    // What is to be written once all is Ready is written soon.
    let mut before = writes(&Counters::read(&client).await?);
    loop {
        sleep(Duration::from_secs(15)).await;
        let now = writes(&Counters::read(&client).await?);
        if (now - before).abs() < 0.5 {
            break;
        }
        before = now;
    }
    operator.end()?;

    progress(&format!(
        "{devices} devices: the operator begins anew, and nothing is to be written for {} s",
        rest.as_secs()
    ));
    let start = operator.start().await?;
    let start_cpu = processor_seconds(operator.process()?)?;
    sleep(rest).await;
    let told = operator.told().await?;
    ensure!(told.ready > count - 0.5, "{} of {devices} are Ready", told.ready);
    ensure!(told.requests.values().all(|value| *value < 0.5), "the operator asked for {:?}", told.requests);
    let after = writes(&Counters::read(&client).await?);
    ensure!((after - before).abs() < 0.5, "{} writes at rest", after - before);
    let rest_cpu = processor_seconds(operator.process()?)? - start_cpu;
    let full = resident_bytes(operator.process()?)?;
    let sample = api.list(&ListParams::default().limit(500)).await?.items;
    let object = serde_json::to_vec(&sample)?.len() / sample.len().max(1);
    Ok(Row { devices, dpus, bound, binding_cpu, ready, start, start_cpu, empty, full, object, rest_cpu })
}

/// The rows as a table of Markdown, a line for each figure.
fn table(rows: &[Row], rest: Duration) -> String {
    let mut text = String::new();
    let mut line = |name: &str, cell: &dyn Fn(&Row) -> String| {
        let cells: Vec<_> = rows.iter().map(cell).collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    };
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    let each = |bytes: u64, row: &Row| bytes as f64 / f64::from(row.devices);
    line("devices", &|row| row.devices.to_string());
    line("---", &|_| "---".to_owned());
    line("DPUs", &|row| row.dpus.to_string());
    line("all bound, of a backlog of all", &|row| {
        format!("{}: {:.0} a second", seconds(row.bound), f64::from(row.devices) / row.bound.as_secs_f64())
    });
    line("processor time of the operator for that, a device", &|row| {
        format!("{:.2} ms", 1000.0 * row.binding_cpu / f64::from(row.devices))
    });
    line("all Ready", &|row| seconds(row.ready));
    line("start where all is as wanted", &|row| seconds(row.start));
    line("processor time of that start", &|row| format!("{:.2} s", row.start_cpu));
    line("writes in the time after that", &|_| "0".to_owned());
    line("processor at rest", &|row| format!("{:.2} %", 100.0 * row.rest_cpu / rest.as_secs_f64()));
    line("memory, resident", &|row| format!("{:.1} MiB", row.full as f64 / 1_048_576.0));
    line("of that, a device", &|row| {
        format!("{:.2} KiB", each(row.full.saturating_sub(row.empty), row) / 1024.0)
    });
    line("a device as JSON", &|row| format!("{:.2} KiB", row.object as f64 / 1024.0));
    text
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "progress, beside the table")]
fn progress(line: &str) {
    eprintln!("{line}");
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { devices, rest } = Arguments::parse();
    let rest = Duration::from_secs(rest);
    let mut rows = Vec::new();
    for count in devices {
        rows.push(measure(count, rest).await.with_context(|| format!("with {count} devices"))?);
        print(&table(&rows, rest));
    }
    Ok(())
}
