//! `virtnet-agent`: arguments, telemetry and wiring.

mod hands;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use virtnet_agent::{Metrics, Statistics, preview};
use virtnet_client::{Clock, connect};
use virtnet_crds::LEASE_NAMESPACE;
use virtnet_crds::metadata::dpu_name;
use virtnet_telemetry::{LogArguments, serve};

/// Makes the virtio-net functions of one DPU what the Kubernetes API declares.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    logs: LogArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep the DPU as declared, until stopped
    Run {
        #[command(flatten)]
        dpu: DpuArguments,
        /// Where to serve /healthz, /readyz and /metrics
        #[arg(long, default_value = "127.0.0.1:9402", value_name = "ADDRESS")]
        http: SocketAddr,
        /// The namespace of the Lease
        #[arg(long, default_value = LEASE_NAMESPACE, value_name = "NAMESPACE")]
        lease_namespace: String,
    },
    /// Print what would be done now, and what it would disturb; changes nothing
    Plan {
        #[command(flatten)]
        dpu: DpuArguments,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = preview::Format::Text)]
        output: preview::Format,
    },
}

/// Which DPU, and how it and the API are reached.
#[derive(Debug, clap::Args)]
struct DpuArguments {
    /// The DPU's name: devices with this spec.dpu are its own
    #[arg(long, env = "VIRTNET_DPU", value_name = "NAME", value_parser = dpu_name)]
    dpu: String,
    /// The kubeconfig of the API; without it, that of the environment or of the pod
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    hands: hands::Arguments,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    arguments.logs.begin();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
        .and_then(|runtime| runtime.block_on(run(arguments.command)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { dpu, http, lease_namespace } => {
            let stopped = stopped()?;
            let client = connect(dpu.kubeconfig.as_deref()).await?;
            let hands = dpu.hands.connect(&dpu.dpu)?;
            let (clock, metrics) = (Clock::system(), Metrics::default());
            let mut probes = metrics.probes();
            Statistics::new(Arc::clone(&hands.queues)).serve_with(&mut probes);
            let serving = serve(http, probes);
            let config = virtnet_agent::Config { dpu: dpu.dpu, lease_namespace };
            // Nothing waits for steps under way, or for open connections: the next agent goes on from what is there.
            tokio::select! {
                () = stopped => Ok(()),
                () = virtnet_agent::run(config, client, hands.parts.clone(), clock, metrics) => Ok(()),
                result = serving => result.with_context(|| format!("serving health and metrics on {http}")),
            }
        }
        Command::Plan { dpu, output } => {
            let client = connect(dpu.kubeconfig.as_deref()).await?;
            let hands = dpu.hands.connect(&dpu.dpu)?;
            let preview = preview::make(client, &hands.parts, &dpu.dpu).await?;
            preview.print(output)
        }
    }
}

/// Ends when the process is asked to stop; it is listened from this call on.
fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("listening for signals");
    let (mut terminated, mut interrupted) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    })
}
