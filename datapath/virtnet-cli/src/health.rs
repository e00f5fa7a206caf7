//! `virtnet health`: how the controller is and how its functions are (the guides from 24.10 on).
//!
//! Those guides name the command; what it prints is this controller's own.

use clap::ArgGroup;
use serde::Serialize;
use virtnet_model::{Controller, Function, FunctionId, PfId, QueueCounters, Queues, Refusal, VfId, Vuid};
use virtnet_rpc::{Client, method};

use crate::which::{self, Which};
use crate::{generation, output};

const EXAMPLES: &str = "\
Examples:
  virtnet health
  virtnet health -a | jq -r '.devices[] | select(.health_status != \"Good\")'
  virtnet health -p 0 -v 1";

/// What `health` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("which").args(["all", "pf", "vuid"]))]
pub(crate) struct Arguments {
    /// All functions too
    #[arg(short, long, conflicts_with = "vf")]
    all: bool,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Serialize)]
struct Answer {
    controller: Service,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<Vec<Device>>,
}

/// Good, or for these reasons not.
#[derive(Debug, Serialize)]
struct Status {
    health_status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

impl From<Vec<String>> for Status {
    fn from(reasons: Vec<String>) -> Self {
        Self { health_status: if reasons.is_empty() { "Good" } else { "Degraded" }, reasons }
    }
}

#[derive(Debug, Serialize)]
struct Service {
    #[serde(flatten)]
    status: Status,
    /// Workers that failed and were followed by another.
    health_recover_counter: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<String>,
}

#[derive(Debug, Serialize)]
struct Device {
    pf_id: PfId,
    #[serde(skip_serializing_if = "Option::is_none")]
    vf_id: Option<VfId>,
    vuid: Vuid,
    /// The bits of the virtio device status that are known to be set (virtio 1.2, section 2.1).
    dev_status: Vec<&'static str>,
    #[serde(flatten)]
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_errors: Option<Errors>,
}

/// What went wrong in all queues together.
#[derive(Debug, Default, Serialize)]
struct Errors {
    bad_desc_errors: u64,
    error_cqes: u64,
    exceed_max_chain: u64,
    invalid_buffer: u64,
}

impl Device {
    /// A function, with its queues where they are known. Pure.
    fn of(function: &Function, counters: Option<Vec<QueueCounters>>) -> Self {
        let mut dev_status = Vec::new();
        if function.negotiated.is_some() {
            dev_status.extend(["ACKNOWLEDGE", "DRIVER", "FEATURES_OK"]);
        }
        if function.driver.in_use {
            dev_status.push("DRIVER_OK");
        }
        let mut reasons = Vec::new();
        if function.migrating {
            reasons.push("migrating".to_owned());
        }
        if function.sf.is_none() {
            reasons.push("there is no SF behind it: PF_TOTAL_SF is spent".to_owned());
        }
        let wrong: u64 = counters.iter().flatten().map(QueueCounters::errors).sum();
        if wrong > 0 {
            reasons.push(format!("the driver did {wrong} things wrong with its queues"));
        }
        let queue_errors = counters.map(|counters| {
            counters.iter().fold(Errors::default(), |sum, one| Errors {
                bad_desc_errors: sum.bad_desc_errors + one.bad_desc_errors,
                error_cqes: sum.error_cqes + one.error_cqes,
                exceed_max_chain: sum.exceed_max_chain + one.exceed_max_chain,
                invalid_buffer: sum.invalid_buffer + one.invalid_buffer,
            })
        });
        let FunctionId { pf, vf } = function.id;
        let vuid = function.vuid.clone();
        Self { pf_id: pf, vf_id: vf, vuid, dev_status, status: reasons.into(), queue_errors }
    }
}

/// Runs it.
pub(crate) async fn run(arguments: &Arguments, service: &Client) -> anyhow::Result<String> {
    let health: method::Health = service.call(method::HEALTH, &()).await?;
    generation::later(health.generation, "health", "see virtnet list and virtnet update -t")?;
    let mut reasons: Vec<_> =
        health.given_up.iter().map(|what| format!("the device did not come to the end of: {what}")).collect();
    let asked = arguments.all || arguments.which.is_named();
    let mut devices = Vec::new();
    match service.observe().await {
        Ok(state) => {
            reasons.extend(state.restart_required.clone());
            let functions: Vec<&Function> = match (arguments.all, asked) {
                (true, _) => state.functions.values().collect(),
                (false, true) => vec![arguments.which.find(&state)?],
                (false, false) => Vec::new(),
            };
            for function in functions {
                match counters(function, service).await {
                    Ok(counters) => devices.push(Device::of(function, counters)),
                    Err(error) if arguments.all && which::is_gone(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(error) if asked => return Err(error.into()),
        Err(error) => reasons.push(error.message),
    }
    let controller = Service {
        status: reasons.into(),
        health_recover_counter: health.failures,
        last_failure: health.last_failure,
    };
    output::json(&Answer { controller, devices: asked.then_some(devices) })
}

/// What went through the queues of a function that is in use; `None`: it is not, or is being moved.
async fn counters(function: &Function, service: &Client) -> anyhow::Result<Option<Vec<QueueCounters>>> {
    if !function.driver.in_use {
        return Ok(None);
    }
    match service.queues(&which::target(function)?).await {
        Ok(queues) => Ok(Some(queues.into_iter().map(|queue| queue.counters).collect())),
        Err(error) if error.refusal() == Some(Refusal::Migrating) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
