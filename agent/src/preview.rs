//! What would be done now, without doing it: `virtnet-agent plan`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use anyhow::Context;
use clap::ValueEnum;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use serde::Serialize;
use virtnet_crds::{Dpu, VirtnetDevice};

use crate::desired::Device;
use crate::observe::Parts;
use crate::plan::{Input, Stand, plan};

/// How a preview is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people
    Text,
    /// For programs
    Json,
}

/// What would be done now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// The steps, in order.
    pub steps: Vec<PreviewStep>,
    /// What waits, by device: the reason and the message of its condition Ready.
    pub waiting: BTreeMap<String, String>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviewStep {
    /// What would be done.
    pub step: String,
    /// What it would disturb.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disturbs: Option<String>,
}

/// Reads API and DPU once and plans. The plan holds what can be done at once; what follows from it is not in it.
pub async fn make(client: Client, parts: &Parts, dpu: &str) -> anyhow::Result<Preview> {
    let api: Api<DeserializeGuard<VirtnetDevice>> = Api::all(client.clone());
    let mine = ListParams::default().fields(&format!("spec.dpu={dpu}"));
    let list = api.list(&mine).await.context("listing the devices of this DPU")?;
    let devices: BTreeMap<_, _> = list
        .items
        .iter()
        .map(|guard| match &guard.0 {
            Ok(object) => Device::parse(object),
            Err(invalid) => Device::undecodable(&invalid.metadata, &invalid.error),
        })
        .map(|device| (device.uid.clone(), device))
        .collect();
    let object =
        Api::<Dpu>::all(client).get_opt(dpu).await.with_context(|| format!("getting the Dpu {dpu}"))?;
    let observed = parts.observe().await;
    let plan = plan(&Input {
        dpu,
        dpu_spec: &object.map(|object| object.spec).unwrap_or_default(),
        devices: &devices,
        observed: &observed,
        busy: &BTreeSet::new(),
        held: &BTreeMap::new(),
        free: &BTreeMap::new(),
        lost: &BTreeSet::new(),
        refused: &BTreeSet::new(),
        reported: None,
        suspects: &BTreeSet::new(),
    });
    let waiting = plan.devices.iter().filter_map(|(uid, assessment)| match assessment.overall() {
        Stand::Ready => None,
        Stand::Not(reason, message) => {
            Some((devices.get(uid)?.key.to_string(), format!("{reason}: {message}")))
        }
    });
    Ok(Preview {
        steps: plan
            .steps
            .iter()
            .map(|step| PreviewStep { step: step.to_string(), disturbs: step.disturbs() })
            .collect(),
        waiting: waiting.collect(),
    })
}

impl Preview {
    /// Prints it on standard output.
    pub fn print(&self, format: Format) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match format {
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(self)?)?,
            Format::Text if self.steps.is_empty() && self.waiting.is_empty() => {
                writeln!(out, "Nothing to do: all is as declared.")?;
            }
            Format::Text => {
                for PreviewStep { step, disturbs } in &self.steps {
                    writeln!(out, "{step}")?;
                    if let Some(disturbs) = disturbs {
                        writeln!(out, "    disturbs: {disturbs}")?;
                    }
                }
                for (device, why) in &self.waiting {
                    writeln!(out, "{device} is not Ready: {why}")?;
                }
            }
        }
        Ok(())
    }
}
