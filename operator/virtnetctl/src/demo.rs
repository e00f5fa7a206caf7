//! `virtnetctl demo`: the samples become Ready, a port is deleted and the host is power-cycled, and both are repaired.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use virtnet_crds::VirtnetDevice;
use virtnet_embedded_api::Listen;
use virtnet_model::{IfName, Port};
use virtnet_sim::{SimConfig, Timing};

use crate::ground::{Ground, Kind};
use crate::machine::{Machine, Plan};
use crate::manifest::{self, Manifest};
use crate::ready::{self, Standing};
use crate::{get, output, stop};

/// From a function's enumeration to its driver. The samples come one after another, and a VF must be declared before its driver
/// has it: else its settings wait until the driver is gone.
const PROBE: Duration = Duration::from_millis(700);
/// The name that the samples give their DPU.
const DPU: &str = "dpu-0";
/// More than long enough: a simulated host boots in under a second.
const LIMIT: Duration = Duration::from_secs(60);

/// The samples, in the order in which a reader meets them.
const SAMPLES: &[(&str, &str)] = &[
    ("dpu.yaml", include_str!("../../../manifests/samples/dpu.yaml")),
    ("hotplug.yaml", include_str!("../../../manifests/samples/hotplug.yaml")),
    ("selector.yaml", include_str!("../../../manifests/samples/selector.yaml")),
    ("static-pf.yaml", include_str!("../../../manifests/samples/static-pf.yaml")),
    ("vf.yaml", include_str!("../../../manifests/samples/vf.yaml")),
    ("vlans.yaml", include_str!("../../../manifests/samples/vlans.yaml")),
];

/// What `demo` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Stay up afterwards, for kubectl
    #[arg(long)]
    keep: bool,
    /// The switch and the netdevs: real ones in a network namespace of their own, or simulated ones
    #[arg(long, value_enum, default_value_t = Kind::Auto, value_name = "KIND")]
    switch: Kind,
}

/// Runs it.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut stop = stop::Requests::listen()?;
    let state =
        tempfile::Builder::new().prefix("virtnet-demo-").tempdir().context("making a temporary directory")?;
    let listen = Listen::Tcp((Ipv4Addr::LOCALHOST, 0).into());
    let timing = Timing { probe: PROBE, ..Timing::default() };
    let ground = Ground::lay(arguments.switch, SimConfig { timing, ..SimConfig::default() })?;
    let plan = Plan { dpu: DPU, state_dir: state.path(), listen, page: None, parts: ground.parts.clone() };
    let machine = Machine::start(plan).await?;
    let shown = tokio::select! {
        result = show(&machine, &ground) => result.map(|()| true),
        () = stop.next() => Ok(false),
    };
    if arguments.keep && matches!(shown, Ok(true)) {
        output::line("\nStaying up for kubectl; Ctrl-C ends it.");
        machine.tell_kubeconfig();
        stop.next().await;
    }
    machine.stop().await;
    shown.map(|_| ExitCode::SUCCESS)
}

async fn show(machine: &Machine, ground: &Ground) -> anyhow::Result<()> {
    ground.tell(DPU);
    output::line("The API, the agent and what they do are real.\n");
    output::line("# The samples are applied.");
    for (file, text) in SAMPLES {
        for name in apply(machine, file, text).await.with_context(|| format!("applying {file}"))? {
            output::line(&format!("{name} serverside-applied"));
        }
    }
    all_ready(machine, "becoming Ready").await?;
    print_table(machine).await?;

    let port = some_port(machine).await?;
    output::line(&format!("\n# Someone deletes the OVS port {port}, behind the agent's back."));
    let switch = Arc::clone(&ground.parts.switch);
    let mut events = switch.events();
    ground.delete_port(&port)?;
    let back = async {
        // It may be back already; that it was away is told in either case.
        events.next().await;
        while !switch.observe().await.is_ok_and(|state| state.ports.get(&port).is_some_and(Port::is_attached))
        {
            events.next().await;
        }
    };
    tokio::time::timeout(LIMIT, back)
        .await
        .with_context(|| format!("waiting for {port} to be made again"))?;
    all_ready(machine, "repairing").await?;
    output::line("The agent has put it back.");

    output::line("\n# The host loses power.");
    ground.sim.shut_down_host();
    none_ready(machine).await?;
    output::line("\n# It comes back by a cold boot: its hot-plugged functions and VFs are gone.");
    ground.sim.power_cycle().await;
    all_ready(machine, "coming back").await?;
    output::line("All of it is back, as declared.\n");
    print_table(machine).await
}

/// Applies what a text declares, and names it as kubectl does.
async fn apply(machine: &Machine, file: &str, text: &str) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let manifests = manifest::parse(file, text).map_err(|problems| anyhow::anyhow!(problems.join("\n")))?;
    for Manifest { key, object, .. } in manifests {
        // The agent makes the Dpu too, with an empty spec: the sample's values have no other owner.
        key.api(&machine.client)
            .patch(&key.name, &PatchParams::apply("virtnetctl"), &Patch::Apply(&object))
            .await?;
        names.push(key.shown());
    }
    Ok(names)
}

/// The port of the first device that has one.
async fn some_port(machine: &Machine) -> anyhow::Result<IfName> {
    let devices: Api<VirtnetDevice> = Api::all(machine.client.clone());
    let devices = devices.list(&ListParams::default()).await.context("listing the devices")?;
    let status =
        devices.items.into_iter().filter_map(|device| device.status).find(|status| status.port.is_some());
    let representor = status.and_then(|status| status.representor).context("no sample has a port")?;
    Ok(representor.name.parse()?)
}

async fn all_ready(machine: &Machine, what: &str) -> anyhow::Result<()> {
    let standing = ready::wait(&machine.client, what, Some(LIMIT), Standing::ready).await?;
    if !standing.is_ready() {
        bail!("not Ready after {} s:\n{}", LIMIT.as_secs(), standing.not_ready.join("\n"));
    }
    Ok(())
}

/// Waits until no device is Ready, and tells why.
async fn none_ready(machine: &Machine) -> anyhow::Result<()> {
    let not_ready = |standing: &Standing| standing.not_ready.len();
    let standing = ready::wait(&machine.client, "noticing", Some(LIMIT), not_ready).await?;
    for line in &standing.not_ready {
        output::line(&format!("  {line}"));
    }
    Ok(())
}

async fn print_table(machine: &Machine) -> anyhow::Result<()> {
    output::line("$ kubectl get virtnetdevices");
    output::text(&get::devices_table(&machine.client).await?);
    Ok(())
}
