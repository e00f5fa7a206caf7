//! `virtnetctl tree`: devices with all that belongs to them, or a DPU with its devices, as a tree.

mod draw;
mod nodes;

use std::process::ExitCode;

use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use virtnet_agent::Clock;
use virtnet_crds::{Dpu, VirtnetDevice};

use crate::events::{self, Told};
use crate::find::Scope;
use crate::output::Data;
use crate::{access, find, output};

/// So many of an object's Events are shown.
const EVENTS: usize = 5;

/// What `tree` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// One device; without it, all
    #[arg(conflicts_with = "dpu")]
    name: Option<String>,
    /// The namespace [default: that of the kubeconfig; with --dpu, all]
    #[arg(short, long)]
    namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["name", "namespace"])]
    all_namespaces: bool,
    /// A DPU, with its devices and what no object declares
    #[arg(long, value_name = "NAME")]
    dpu: Option<String>,
    /// How programs want it
    #[arg(short, long, value_enum)]
    output: Option<Data>,
    #[command(flatten)]
    access: access::Arguments,
}

/// Runs it.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { name, namespace, all_namespaces, dpu, output, access } = arguments;
    let client = access.client().await?;
    let scope = match namespace {
        Some(namespace) => Scope::Namespace(namespace),
        None if all_namespaces || dpu.is_some() => Scope::All,
        None => Scope::Namespace(client.default_namespace().to_owned()),
    };
    let found = Found::look(&client, &scope, name.as_deref(), dpu.as_deref()).await?;
    if let Some(format) = output {
        output::text(&format.render(&found.data())?);
    } else if found.dpu.is_none() && found.devices.is_empty() {
        output::note(&scope.none_found());
    } else {
        output::text(&found.drawn(Clock::system().now()));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is shown.
struct Found {
    dpu: Option<Dpu>,
    devices: Vec<VirtnetDevice>,
    told: Vec<Told>,
}

impl Found {
    async fn look(
        client: &Client,
        scope: &Scope,
        name: Option<&str>,
        dpu: Option<&str>,
    ) -> anyhow::Result<Self> {
        let namespace = scope.namespace();
        let mut told = events::about(client, "VirtnetDevice", namespace, name).await?;
        if let (Some(namespace), Some(name)) = (namespace, name) {
            let device = find::device(client, namespace, name).await?;
            return Ok(Self { dpu: None, devices: vec![device], told });
        }
        let object = match dpu {
            None => None,
            Some(name) => {
                let object = find::dpu(client, name).await?;
                told.extend(events::about(client, "Dpu", None, Some(name)).await?);
                Some(object)
            }
        };
        let devices = find::devices(client, scope, dpu).await?;
        Ok(Self { dpu: object, devices, told })
    }

    fn told_of(&self, uid: Option<&str>) -> Vec<&Told> {
        events::last(&self.told, uid, EVENTS)
    }

    fn drawn(&self, now: Timestamp) -> String {
        let devices: Vec<_> = self
            .devices
            .iter()
            .map(|device| nodes::device(device, &self.told_of(device.metadata.uid.as_deref()), now))
            .collect();
        match &self.dpu {
            Some(dpu) => nodes::dpu(dpu, devices, &self.told_of(dpu.metadata.uid.as_deref()), now).draw(),
            None => devices.iter().map(draw::Node::draw).collect(),
        }
    }

    fn data(&self) -> Value {
        let dpu = self.dpu.as_ref().map(|dpu| {
            let told = self.told_of(dpu.metadata.uid.as_deref());
            json!({"name": dpu.name_any(), "status": dpu.status, "events": told})
        });
        let devices = self.devices.iter().map(|device| {
            json!({
                "namespace": device.namespace(),
                "name": device.name_any(),
                "generation": device.metadata.generation,
                "dpu": device.spec.dpu,
                "status": device.status,
                "events": self.told_of(device.metadata.uid.as_deref()),
            })
        });
        json!({"dpu": dpu, "devices": devices.collect::<Vec<_>>()})
    }
}
