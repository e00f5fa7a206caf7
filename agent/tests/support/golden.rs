//! A golden case: a folder with `devices.yaml`, `dpu.yaml` and the expected `plan.yaml`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use serde::Serialize;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};
use virtnet_agent::{DpuAssessment, Plan, Step, device_status, plan};
use virtnet_crds::conditions::{READY, RECONCILING, STALLED};
use virtnet_crds::{Dpu, DpuSpec};

use crate::fixture::{DpuFixture, World};

/// A plan as a case states it. What is empty is left out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Expected {
    steps: Vec<ExpectedStep>,
    devices: BTreeMap<String, ExpectedDevice>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    suspects: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undeclared: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    firmware_differs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sriov_waits: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    being_made: Vec<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ExpectedStep {
    Plain(String),
    Disturbing { step: String, disturbs: String },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExpectedDevice {
    /// Status and reason of each condition but kstatus's, which follow from the reason.
    #[serde(flatten)]
    conditions: BTreeMap<String, String>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<String>,
}

impl Expected {
    fn of(plan: &Plan, world: &World) -> Self {
        let Plan { steps, devices, suspects, dpu } = plan;
        let DpuAssessment { undeclared, firmware_differs, sriov_waits, being_made } = dpu;
        Self {
            steps: steps.iter().map(ExpectedStep::of).collect(),
            devices: devices
                .iter()
                .map(|(uid, assessment)| {
                    let device = &world.devices[uid];
                    let before =
                        world.objects.get(uid).and_then(|object| object.status.clone()).unwrap_or_default();
                    let now = "2030-01-01T00:00:00Z".parse().unwrap();
                    let status = device_status(device.generation, assessment, &before, now);
                    (device.key.to_string(), ExpectedDevice::of(&status))
                })
                .collect(),
            suspects: suspects.iter().map(|(name, owner)| format!("{name} of {owner}")).collect(),
            undeclared: undeclared.iter().map(ToString::to_string).collect(),
            firmware_differs: firmware_differs
                .iter()
                .flat_map(|(port, values)| {
                    values.iter().map(move |(key, value)| format!("{port} {key}={value}"))
                })
                .collect(),
            sriov_waits: sriov_waits.clone(),
            being_made: being_made.clone(),
        }
    }
}

impl ExpectedStep {
    fn of(step: &Step) -> Self {
        match step.disturbs() {
            None => Self::Plain(step.to_string()),
            Some(disturbs) => Self::Disturbing { step: step.to_string(), disturbs },
        }
    }
}

impl ExpectedDevice {
    fn of(status: &virtnet_crds::VirtnetDeviceStatus) -> Self {
        let ready = status.conditions.iter().find(|condition| condition.type_ == READY).unwrap();
        let kstatus =
            status.conditions.iter().find(|condition| [RECONCILING, STALLED].contains(&&*condition.type_));
        assert_eq!(kstatus.is_none(), ready.status == "True", "kstatus's conditions follow from Ready");
        Self {
            conditions: status
                .conditions
                .iter()
                .filter(|condition| condition.type_ != RECONCILING)
                .map(|condition| {
                    (condition.type_.clone(), format!("{} {}", condition.status, condition.reason))
                })
                .collect(),
            message: ready.message.clone(),
            pending: status
                .pending
                .as_ref()
                .map(|pending| format!("{}: {}", pending.reason, pending.message)),
            function: status.function.as_ref().map(|function| function.vuid.clone()),
            port: status.port.as_ref().map(|port| port.bridge.clone()),
        }
    }
}

/// Runs the case. An error tells how the plan differs, or what is wrong with the folder.
pub(crate) fn run(folder: &Path, update: bool) -> Result<(), String> {
    let world = load(folder)?;
    let expected = Expected::of(&plan(&world.input()), &world);
    let actual = serde_saphyr::to_string(&expected).map_err(|error| error.to_string())?;
    let file = folder.join("plan.yaml");
    if update {
        return fs::write(&file, actual).map_err(|error| format!("write {}: {error}", file.display()));
    }
    let wanted = match fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| format!("read {}: {error}", file.display()))?,
    };
    if wanted == actual { Ok(()) } else { Err(difference(&wanted, &actual)) }
}

fn difference(wanted: &str, actual: &str) -> String {
    let mut text = String::new();
    for change in TextDiff::from_lines(wanted, actual).iter_all_changes() {
        let sign = match change.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => ' ',
        };
        write!(text, "{sign} {change}").unwrap();
    }
    text
}

fn load(folder: &Path) -> Result<World, String> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(|error| format!("read {}: {error}", path.display()))
    };
    let fixture: DpuFixture =
        serde_saphyr::from_str(&read("dpu.yaml")?).map_err(|error| format!("dpu.yaml: {error}"))?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&read("devices.yaml")?)
        .map_err(|error| format!("devices.yaml: {error}"))?;
    let mut spec = DpuSpec::default();
    let mut objects = Vec::new();
    for document in documents {
        match document.get("kind").and_then(Value::as_str) {
            Some("Dpu") => {
                let dpu: Dpu = serde_json::from_value(document).map_err(|error| format!("Dpu: {error}"))?;
                spec = dpu.spec;
            }
            Some("VirtnetDevice") => objects.push(document),
            other => return Err(format!("devices.yaml: kind {other:?} is neither Dpu nor VirtnetDevice")),
        }
    }
    Ok(World::new(&fixture, spec, objects))
}
