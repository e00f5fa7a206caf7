//! `make cluster`: a real Kubernetes control plane on loopback, the operator and agents of simulated DPUs, until Ctrl-C.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use virtnet_tests::cluster::{Cluster, Config, OPERATOR};

/// How often it is looked whether all still run.
const LOOK: Duration = Duration::from_millis(500);

/// A real Kubernetes control plane on loopback, the operator and agents of simulated DPUs, until Ctrl-C.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many DPUs: dpu-0, dpu-1 …
    #[arg(long, default_value_t = 2, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=100))]
    dpus: u16,
    /// Firmware values of the simulated DPUs
    #[arg(long, value_name = "KEY=VALUE,…", default_value = "", hide_default_value = true)]
    firmware: String,
    /// The simulated hosts bind no driver by themselves, as where guests get the functions
    #[arg(long)]
    no_drivers: bool,
}

const TOUR: &str = "
In another terminal:
  kubectl get dpus
  kubectl apply -f manifests/samples/hotplug.yaml
  kubectl wait --for=condition=Ready virtnetdevice/web-0
  kubectl get virtnetdevices --field-selector spec.dpu=dpu-0
  kubectl describe virtnetdevice web-0
  kubectl auth can-i delete virtnetdevices --as=virtnet:agent:dpu-0 --as-group=virtnet:agents

Ctrl-C ends it, and leaves nothing behind.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.context("starting the runtime").and_then(|runtime| runtime.block_on(run(arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(Arguments { dpus, firmware, no_drivers }: Arguments) -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("listening for signals");
    let (mut terminated, mut interrupted) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let serving = async {
        let dpus: Vec<String> = (0..dpus).map(|number| format!("dpu-{number}")).collect();
        say(
            "Starting etcd, kube-apiserver and kube-controller-manager; they are built first where they are not there.",
        );
        let mut cluster =
            Cluster::start(Config { dpus: dpus.clone(), firmware, no_drivers, operators: 1 }).await?;
        say(&format!("Agents run for {}, which are SIMULATED: no hardware is touched.", dpus.join(", ")));
        if let Some(page) = cluster.operator_page(&format!("{OPERATOR}0")) {
            say(&format!("Look at it in a browser: http://127.0.0.1:{page}/"));
        }
        say(&format!("export KUBECONFIG={}", cluster.plane().kubeconfig().display()));
        say(TOUR);
        loop {
            tokio::time::sleep(LOOK).await;
            for (dpu, status) in cluster.revive()? {
                let who = match dpu.starts_with(OPERATOR) {
                    true => "The operator".into(),
                    false => format!("The agent of {dpu}"),
                };
                say(&format!("{who} ended ({status}) and is started again."));
            }
        }
    };
    // What runs ends with the value of which this drops the one that has it.
    tokio::select! {
        result = serving => result,
        _ = terminated.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
    }
}

/// A line on standard output. A reader that has gone is no error: there is nobody left to tell.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
