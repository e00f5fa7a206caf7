//! `virtnet-operator`: arguments, telemetry and wiring.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use virtnet_client::{Clock, connect};
use virtnet_crds::LEASE_NAMESPACE;
use virtnet_operator::Config;

/// Binds devices to the DPUs of a fleet, makes those of sets and judges which agents live, by the Kubernetes API.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The kubeconfig [default: that of the pod, of KUBECONFIG or of ~/.kube]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The namespace of the agents' Leases
    #[arg(long, default_value = LEASE_NAMESPACE, value_name = "NAMESPACE")]
    lease_namespace: String,
    /// What is logged, to the standard error
    #[arg(long, default_value = "info", value_name = "FILTER")]
    log: String,
}

fn main() -> ExitCode {
    let Arguments { kubeconfig, lease_namespace, log } = Arguments::parse();
    let filter = match EnvFilter::try_new(&log) {
        Ok(filter) => filter,
        Err(error) => {
            let message = format!("--log {log}: {error}");
            Arguments::command().error(clap::error::ErrorKind::ValueValidation, message).exit();
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.context("starting the runtime").and_then(|runtime| {
        runtime.block_on(async {
            let mut terminated = signal(SignalKind::terminate()).context("listening for signals")?;
            let client = connect(kubeconfig.as_deref()).await?;
            tokio::select! {
                _ = terminated.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
                () = virtnet_operator::run(Config { lease_namespace }, client, Clock::system()) => {}
            }
            anyhow::Ok(())
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
