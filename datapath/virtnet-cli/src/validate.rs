//! `virtnet validate`: whether a `virtnet.conf` can be used on this DPU (the guides from 24.07 on).
//!
//! It is checked by itself, as `virtnetd check` does, and against what the firmware of the DPU gives. What it prints is this
//! controller's own.

use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::Serialize;
use virtnet_rpc::{Client, method};

use crate::{generation, output};

const EXAMPLES: &str = "\
Examples:
  virtnet validate
  virtnet validate -f /etc/virtnetd/virtnet.conf";

/// What `validate` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A file [default: the one that the controller reads when it starts]
    #[arg(short, long)]
    file: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    status: &'static str,
    /// What could not be done with it on this DPU.
    warnings: Vec<String>,
}

/// Runs it.
pub(crate) async fn run(arguments: &Arguments, service: &Client) -> anyhow::Result<String> {
    let health: method::Health = service.call(method::HEALTH, &()).await?;
    generation::later(health.generation, "validate", "see virtnetd check")?;
    let sent = match &arguments.file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some((path.display().to_string(), text.with_context(|| format!("read {}", path.display()))?))
        }
        None => None,
    };
    let (named, conf) = sent.unzip();
    let told: method::Validated = service.call(method::VALIDATE, &method::Validate { conf }).await?;
    let file = named.or(told.file);
    if !told.errors.is_empty() {
        let what = file.unwrap_or_else(|| "the configuration".to_owned());
        bail!("{what} can't be used: {}", told.errors.join("; "));
    }
    output::json(&Answer { file, status: "valid", warnings: told.warnings })
}
