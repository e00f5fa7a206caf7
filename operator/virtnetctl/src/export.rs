//! `virtnetctl export`: the manifests that adopt what is on a DPU and no object declares, as it is.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, bail};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt};
use virtnet_agent::Clock;
use virtnet_crds::conditions::READY;
use virtnet_crds::{
    Dpu, DpuStatus, LEASE_NAMESPACE, Reason, UndeclaredFunction, VirtnetDevice, VirtnetDeviceSpec,
    fitting_name,
};
use virtnet_embedded_api::human_duration;
use virtnet_model::BridgeName;

use crate::adopt::Adopted;
use crate::lease::{Agent, Leases};
use crate::output::Data;
use crate::{access, adopt, find, output};

/// What `export` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The DPU
    #[arg(long, value_name = "NAME")]
    dpu: String,
    /// The namespace of the devices [default: that of the kubeconfig]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Put the representors on this bridge of Open vSwitch; without it their ports stay whose they are
    #[arg(long, value_name = "NAME")]
    bridge: Option<BridgeName>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Data::Yaml)]
    output: Data,
    /// The namespace of the agents' Leases
    #[arg(long, default_value = LEASE_NAMESPACE, value_name = "NAMESPACE")]
    lease_namespace: String,
    #[command(flatten)]
    access: access::Arguments,
}

/// Runs it: 1 where something is left out, or what is told may not hold any more.
pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { dpu, namespace, bridge, output, lease_namespace, access } = arguments;
    let client = access.client().await?;
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let dpu = find::dpu(&client, &dpu).await?;
    let status = reported(&dpu)?;
    let leases = Leases::read(&client, &lease_namespace).await;
    let agent = leases.agent(&dpu.name_any(), Clock::system().now());
    let doubt = doubt(status, agent, &lease_namespace);
    if let Some(doubt) = &doubt {
        output::error(doubt);
    }
    let verdict = |is_whole| if is_whole && doubt.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if status.undeclared.is_empty() {
        output::note(&format!(
            "Every function of {} is declared: there is nothing to export.",
            dpu.name_any()
        ));
        return Ok(verdict(true));
    }
    let mut names = Names::there(&client, &namespace).await?;
    let (mut exported, mut left_out) = (Vec::new(), Vec::new());
    for function in &status.undeclared {
        match adopt::device(&dpu.name_any(), &namespace, function, bridge.as_ref()) {
            Ok(Adopted { device, unpinned }) => {
                exported.push(Exported { device: names.give(device), function, unpinned });
            }
            Err(why) => {
                left_out.push(output::plain(&format!("{} is left out: {why}", adopt::shown(function))));
            }
        }
    }
    match output {
        Data::Yaml => {
            let head = head(&dpu.name_any(), &exported, bridge.as_ref(), doubt.as_deref());
            output::text(&yaml(&head, &exported)?);
        }
        // One after another: a List in JSON is more than every API server's rules let kubectl check.
        Data::Json => {
            for exported in &exported {
                output::text(&written(output, &exported.device)?);
            }
        }
    }
    for line in &left_out {
        output::error(line);
    }
    Ok(verdict(left_out.is_empty()))
}

/// What the DPU's agent has found.
fn reported(dpu: &Dpu) -> anyhow::Result<&DpuStatus> {
    match &dpu.status {
        // What is there is told with what there can be.
        Some(status) if status.capacity.is_some() => Ok(status),
        _ => bail!(
            "DPU {} has not reported its functions yet: is its agent running, and its controller?",
            dpu.name_any()
        ),
    }
}

/// That what is reported may be of the past, and why.
fn doubt(status: &DpuStatus, agent: Agent, namespace: &str) -> Option<String> {
    let silence = match agent {
        Agent::Alive | Agent::Unknown => None,
        Agent::Silent { seconds } => {
            Some(format!("its agent last renewed its Lease {} ago", human_duration(seconds)))
        }
        Agent::None => Some(format!("its agent has no Lease in namespace {namespace}")),
    };
    let ready = status.conditions.iter().find(|condition| condition.type_ == READY);
    let is_old = |ready: &&Condition| {
        ready.status == "Unknown" || ready.reason == Reason::ControllerUnavailable.as_str()
    };
    let ready = ready.filter(is_old).map(|ready| format!("{}: {}", ready.reason, ready.message));
    let why: Vec<_> = silence.into_iter().chain(ready).collect();
    let doubt = || format!("this is what was last reported, and may not hold any more: {}", why.join("; "));
    (!why.is_empty()).then(|| output::plain(&doubt()))
}

/// A device, and the function that it adopts.
struct Exported<'a> {
    device: VirtnetDevice,
    function: &'a UndeclaredFunction,
    unpinned: Vec<&'static str>,
}

fn head(dpu: &str, exported: &[Exported<'_>], bridge: Option<&BridgeName>, doubt: Option<&str>) -> String {
    let doubt = doubt.map(|doubt| format!("# Take care: {doubt}\n")).unwrap_or_default();
    let count = exported.len();
    let functions = if count == 1 { "function" } else { "functions" };
    let port = match bridge {
        None => "\
# Their ports in Open vSwitch are left out: what port a representor has stays as it is and whose it is."
            .to_owned(),
        Some(bridge) => format!(
            "\
# Each representor becomes a port of {bridge}. One that is a port already, of whatever bridge, stays as it is, and its device
# says PortConflict until someone deletes that port."
        ),
    };
    // The agent keeps a representor at the MTU that is declared.
    let mtu = if exported.iter().any(|exported| exported.device.spec.mtu.is_some()) {
        "# A representor with another MTU than its function's mtu below is given that.\n"
    } else {
        ""
    };
    format!(
        "\
{doubt}# {count} {functions} of DPU {dpu} that no object declares, as they are: to apply this changes none of them.
{mtu}{port}
# To delete a device of a hot-plugged function unplugs that.
"
    )
}

/// The head and, with what each adopts, the manifests.
fn yaml(head: &str, exported: &[Exported<'_>]) -> anyhow::Result<String> {
    let mut documents = Vec::new();
    for Exported { device, function, unpinned } in exported {
        let mut text = format!("# {}\n", adopt::shown(function));
        if !unpinned.is_empty() {
            text.push_str(&format!(
                "# Left out, so that the next plug gives it the controller's own: {}.\n",
                unpinned.join(", ")
            ));
        }
        text.push_str(&written(Data::Yaml, device)?);
        documents.push(text);
    }
    Ok(head.to_owned() + &documents.join("---\n"))
}

fn written(format: Data, device: &VirtnetDevice) -> anyhow::Result<String> {
    format.render(&serde_json::to_value(device).context("writing a device")?)
}

/// The names of devices that are there, with what they declare where that can be understood.
struct Names(BTreeMap<String, Option<VirtnetDeviceSpec>>);

impl Names {
    async fn there(client: &Client, namespace: &str) -> anyhow::Result<Self> {
        let api: Api<DeserializeGuard<VirtnetDevice>> = Api::namespaced(client.clone(), namespace);
        let list = api.list(&ListParams::default()).await;
        let list = list.with_context(|| format!("listing the devices of namespace {namespace}"))?;
        let known = |guard: DeserializeGuard<VirtnetDevice>| {
            let name = guard.name_any();
            (name, guard.0.ok().map(|device| device.spec))
        };
        Ok(Self(list.items.into_iter().map(known).collect()))
    }

    /// The device with a name that no device of another function has.
    fn give(&mut self, mut device: VirtnetDevice) -> VirtnetDevice {
        let plain = device.name_any();
        let (mut name, mut number) = (plain.clone(), 2);
        while self
            .0
            .get(&name)
            .is_some_and(|there| !there.as_ref().is_some_and(|there| same(there, &device.spec)))
        {
            name = fitting_name(format!("{plain}-{number}"));
            number += 1;
        }
        self.0.insert(name.clone(), Some(device.spec.clone()));
        device.metadata.name = Some(name);
        device
    }
}

/// Whether both declare the same function: it was exported before, and its agent has not come to it yet.
fn same(a: &VirtnetDeviceSpec, b: &VirtnetDeviceSpec) -> bool {
    (&a.dpu, &a.function, &a.mac) == (&b.dpu, &b.function, &b.mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(mac: &str) -> VirtnetDevice {
        let spec = VirtnetDeviceSpec { mac: Some(mac.into()), ..VirtnetDeviceSpec::default() };
        VirtnetDevice::new("d", spec)
    }

    #[test]
    fn what_may_be_of_the_past_is_told_with_its_reason() {
        let told = |ready: &str, reason: &str, agent| {
            let condition = serde_json::json!({
                "type": READY, "status": ready, "reason": reason, "message": "a\nb",
                "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
            });
            let condition = serde_json::from_value(condition).unwrap();
            let status = DpuStatus { conditions: vec![condition], ..DpuStatus::default() };
            doubt(&status, agent, "there").map(|doubt| doubt.split_once("any more: ").unwrap().1.to_owned())
        };
        assert_eq!(told("True", "Ready", Agent::Alive), None);
        assert_eq!(told("False", "SwitchUnavailable", Agent::Unknown), None);
        let silent = Agent::Silent { seconds: 60 };
        assert_eq!(told("True", "Ready", silent).unwrap(), "its agent last renewed its Lease 60s ago");
        assert_eq!(told("True", "Ready", Agent::None).unwrap(), "its agent has no Lease in namespace there");
        assert_eq!(told("Unknown", "DpuGone", Agent::Alive).unwrap(), "DpuGone: a b");
        assert!(told("False", "ControllerUnavailable", Agent::Alive).is_some());
    }

    #[test]
    fn a_name_that_another_function_has_is_not_taken_from_it() {
        let mut names = Names(BTreeMap::from([("d".into(), None)]));
        assert_eq!(names.give(device("a")).name_any(), "d-2");
        assert_eq!(names.give(device("b")).name_any(), "d-3");
        assert_eq!(names.give(device("a")).name_any(), "d-2", "it is that of the same function");
    }
}
