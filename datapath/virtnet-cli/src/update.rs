//! `virtnet update`: a live update of the controller, and how the last one went (the guide, section 1.1.4).

use clap::{ArgGroup, ValueEnum};
use serde::Serialize;
use virtnet_model::Generation;
use virtnet_rpc::method::{Health, UpdateStatus};
use virtnet_rpc::{Client, method};

use crate::output;

const EXAMPLES: &str = "\
Examples:
  virtnet update -s
  virtnet update -t
  virtnet update status";

/// What `update` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("what").args(["start", "status", "word"]).required(true))]
pub(crate) struct Arguments {
    /// Let the controller that is installed take over; functions stay
    #[arg(short, long)]
    start: bool,
    /// Print whether one runs, how the last one went and how long it took
    #[arg(short = 't', long)]
    status: bool,
    /// The same as --status
    #[arg(value_name = "status", value_enum, hide_possible_values = true)]
    word: Option<Word>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Word {
    Status,
}

/// The guide's names.
#[derive(Debug, Serialize)]
struct OfGuide {
    #[serde(rename = "current status")]
    current: &'static str,
    #[serde(rename = "last status")]
    last: String,
    #[serde(rename = "time_used (s)", skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

/// The names from 24.10 on.
#[derive(Debug, Serialize)]
struct OfLater {
    status: &'static str,
    #[serde(rename = "last live update status")]
    last: String,
    #[serde(rename = "time_used (s)", skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

/// The status as the generation of the controller words it. Pure.
fn told(status: UpdateStatus, generation: Generation) -> anyhow::Result<String> {
    let current = if status.running { "active" } else { "inactive" };
    let seconds = status.last.as_ref().map(|last| last.seconds);
    let last = match status.last {
        None => "none".to_owned(),
        Some(last) => last.failure.map_or_else(|| "success".to_owned(), |why| format!("failed: {why}")),
    };
    match generation {
        Generation::Guide => output::json(&OfGuide { current, last, seconds }),
        Generation::Later => output::json(&OfLater { status: current, last, seconds }),
    }
}

/// Runs it.
pub(crate) async fn run(arguments: &Arguments, service: &Client) -> anyhow::Result<String> {
    if arguments.start {
        service.call::<()>(method::UPDATE, &()).await?;
        return output::done();
    }
    let status = service.call(method::UPDATE_STATUS, &()).await?;
    // Of a service that does not serve too, whose controller answers nothing.
    let Health { generation, .. } = service.call(method::HEALTH, &()).await?;
    told(status, generation)
}

#[cfg(test)]
mod tests {
    use virtnet_rpc::method::LastUpdate;

    use super::*;

    #[test]
    fn each_generation_has_its_words() {
        let last = LastUpdate { failure: None, seconds: 1.655 };
        let status = UpdateStatus { running: false, last: Some(last) };
        let guide = "{\n  \"current status\": \"inactive\",\n  \"last status\": \"success\",\n  \"time_used (s)\": 1.655\n}\n";
        assert_eq!(told(status.clone(), Generation::Guide).unwrap(), guide);
        let later = "{\n  \"status\": \"inactive\",\n  \"last live update status\": \"success\",\n  \"time_used (s)\": 1.655\n}\n";
        assert_eq!(told(status, Generation::Later).unwrap(), later);
        let status = UpdateStatus { running: true, last: None };
        let guide = "{\n  \"current status\": \"active\",\n  \"last status\": \"none\"\n}\n";
        assert_eq!(told(status, Generation::Guide).unwrap(), guide);
        let last = LastUpdate { failure: Some("it did not answer".to_owned()), seconds: 10.0 };
        let failed = told(UpdateStatus { running: false, last: Some(last) }, Generation::Guide).unwrap();
        assert!(failed.contains("\"last status\": \"failed: it did not answer\""), "{failed}");
    }
}
