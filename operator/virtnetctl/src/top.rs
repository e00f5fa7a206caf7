//! `virtnetctl top`: how much each DPU can hold, how much of that is in use, and how its devices and its agent do.

mod rows;

use std::process::ExitCode;

use anyhow::Context;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use virtnet_agent::Clock;
use virtnet_crds::{Dpu, LEASE_NAMESPACE};

use self::rows::{Row, Total};
use crate::find::Scope;
use crate::lease::Leases;
use crate::output::Data;
use crate::{access, find, output};

/// What `top` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// One DPU; without it, all
    dpu: Option<String>,
    /// How programs want it
    #[arg(short, long, value_enum)]
    output: Option<Data>,
    /// The namespace of the agents' Leases
    #[arg(long, default_value = LEASE_NAMESPACE, value_name = "NAMESPACE")]
    lease_namespace: String,
    #[command(flatten)]
    access: access::Arguments,
}

/// Runs it.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { dpu, output, lease_namespace, access } = arguments;
    let client = access.client().await?;
    let dpus = match &dpu {
        Some(name) => vec![find::dpu(&client, name).await?],
        None => {
            let list = Api::<Dpu>::all(client.clone()).list(&ListParams::default()).await;
            list.context("listing the Dpus")?.items
        }
    };
    let devices = find::devices(&client, &Scope::All, dpu.as_deref()).await?;
    let leases = Leases::read(&client, &lease_namespace).await;
    let now = Clock::system().now();
    let rows: Vec<_> = dpus
        .iter()
        .map(|dpu| {
            let agent = leases.agent(&dpu.name_any(), now);
            let bound = devices.iter().filter(|device| device.spec.dpu == dpu.metadata.name);
            Row::of(dpu, bound, agent)
        })
        .collect();
    match output {
        Some(format) => {
            output::text(&format.render(&json!({"dpus": rows, "total": Total::of(&rows)}))?);
        }
        None if rows.is_empty() => output::note(&Scope::Cluster.none_found()),
        None => output::text(&output::columns(&rows::table(&rows))),
    }
    Ok(ExitCode::SUCCESS)
}
