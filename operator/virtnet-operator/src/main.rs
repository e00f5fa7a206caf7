//! `virtnet-operator`: arguments, telemetry and wiring.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use virtnet_client::{Clock, connect};
use virtnet_crds::LEASE_NAMESPACE;
use virtnet_operator::{Config, Leadership, Metrics};
use virtnet_page::{Board, Page};
use virtnet_telemetry::{LogArguments, serve};

/// Binds devices to the DPUs of a fleet, makes those of sets and judges which agents live, by the Kubernetes API.
///
/// Of several operators one acts, which the Lease virtnet-operator names, and the others are ready to.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The kubeconfig [default: that of the pod, of KUBECONFIG or of ~/.kube]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Where to serve /healthz, /readyz and /metrics
    #[arg(long, default_value = "127.0.0.1:9403", value_name = "ADDRESS")]
    http: SocketAddr,
    /// Where to serve the page, to whoever reaches it: best on loopback [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    page: Option<SocketAddr>,
    /// The namespace of the agents' Leases, and of the operators' own
    #[arg(long, default_value = LEASE_NAMESPACE, value_name = "NAMESPACE")]
    lease_namespace: String,
    /// What this operator is called among others [default: the host's name and the process]
    #[arg(long, env = "VIRTNET_IDENTITY", value_name = "NAME")]
    identity: Option<String>,
    #[command(flatten)]
    logs: LogArguments,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    arguments.logs.begin();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { kubeconfig, http, page, lease_namespace, identity, logs: _ } = arguments;
    let listen = |kind| signal(kind).context("listening for signals");
    let (mut terminated, mut interrupted) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let identity = match identity {
        Some(identity) => identity,
        None => own_identity()?,
    };
    let client = connect(kubeconfig.as_deref()).await?;
    let (clock, metrics) = (Clock::system(), Metrics::default());
    let leadership = Leadership::by_lease(client.clone(), &lease_namespace, identity.clone(), clock.clone());
    let serving = serve(http, metrics.probes());
    let board = page.map(|_| Board::default());
    let showing = show(page.zip(board.clone()));
    let config = Config { lease_namespace, identity, board };
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
        () = virtnet_operator::run(config, client, clock, metrics, &leadership) => {}
        result = showing => result?,
        result = serving => result.with_context(|| format!("serving health and metrics on {http}"))?,
    }
    leadership.resign().await;
    Ok(())
}

/// Serves the page, where one is wanted.
async fn show(page: Option<(SocketAddr, Board)>) -> anyhow::Result<()> {
    let Some((address, board)) = page else { return std::future::pending().await };
    let serving = async { Page::bind(address, board).await?.serve().await };
    serving.await.with_context(|| format!("serving the page on {address}"))
}

/// A name that no other operator has: in a pod the host's name is the pod's.
fn own_identity() -> anyhow::Result<String> {
    let file = "/proc/sys/kernel/hostname";
    let host = std::fs::read_to_string(file)
        .with_context(|| format!("reading this host's name from {file}: name the operator by --identity"))?;
    Ok(format!("{}_{}", host.trim(), std::process::id()))
}
