//! The DPU itself: what its spec wants of host and firmware, and which functions no object declares.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use virtnet_crds::{DpuSpec, FirmwarePolicy, Port};
use virtnet_model::{
    ControllerState, EswitchPort, FirmwareValues, Function, FunctionId, FunctionKind, HostPower, HostState,
    PfId,
};

use super::{Claims, Input, Step, function};
use crate::desired::{WantedFunction, is_ovs_type};

/// How the DPU itself stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DpuAssessment {
    /// Functions that no object declares.
    pub undeclared: Vec<FunctionId>,
    /// Wanted firmware values that the next boot will not have, by port.
    pub firmware_differs: BTreeMap<EswitchPort, FirmwareValues>,
    /// Wanted SR-IOV that waits, with the reason for a person.
    pub sriov_waits: Vec<String>,
    /// What is wanted of host and switch and is to be made now, as its steps say it.
    pub being_made: Vec<String>,
}

pub(super) fn plan(input: &Input<'_>, claims: &Claims<'_>, steps: &mut Vec<Step>) -> DpuAssessment {
    let mut assessment = DpuAssessment::default();
    if let Ok(state) = &input.observed.controller {
        let functions = state.functions.values().filter(|function| !is_told(input, claims, function));
        assessment.undeclared = functions.map(|function| function.id).collect();
    }
    let before = steps.len();
    plan_sriov(input, claims, &mut assessment, steps);
    plan_bridges(input, steps);
    assessment.being_made = steps.iter().skip(before).map(ToString::to_string).collect();
    plan_firmware(input, &mut assessment, steps);
    assessment
}

/// Whether an object tells of the function, and will for as long as it is there: else other DPUs' agents would not see at
/// one moment or another that its MAC is taken.
fn is_told(input: &Input<'_>, claims: &Claims<'_>, function: &Function) -> bool {
    let holder = claims.holder(function.id).and_then(|uid| input.devices.get(uid));
    holder.is_some_and(|device| {
        let known = device.known.as_ref().and_then(|known| known.mac);
        let told = device.macs.contains(&function.mac) || known == Some(function.mac);
        if device.deleting { !function::stays(function) } else { told }
    })
}

/// Makes the wanted bridges that are not there.
fn plan_bridges(input: &Input<'_>, steps: &mut Vec<Step>) {
    let Ok(switch) = &input.observed.switch else { return };
    for bridge in input.dpu_spec.switch.iter().flat_map(|switch| &switch.bridges) {
        // The API takes no other names and types.
        let Ok(name) = bridge.name.parse() else { continue };
        if !switch.bridges.contains(&name) && is_ovs_type(&bridge.datapath_type) {
            steps.push(Step::AddBridge { name, datapath_type: bridge.datapath_type.clone() });
        }
    }
}

/// Brings `sriov_numvfs` to what the spec wants. VFs that drivers use are not destroyed for another number.
fn plan_sriov(input: &Input<'_>, claims: &Claims<'_>, assessment: &mut DpuAssessment, steps: &mut Vec<Step>) {
    let Ok(state) = &input.observed.controller else { return };
    for sriov in input.dpu_spec.host.iter().flat_map(|host| &host.sriov) {
        let Ok(pf) = PfId::try_from(u32::from(sriov.pf)) else { continue };
        let vfs = || {
            state
                .functions
                .values()
                .filter(|function| function.kind == FunctionKind::Vf && function.id.pf == pf)
        };
        let host = match running_host(input, state) {
            Ok(host) => host,
            // The controller has those that the host made before.
            Err(_) if vfs().count() == usize::from(sriov.num_vfs) => continue,
            Err(why) => {
                assessment.sriov_waits.push(format!("PF {pf} gets its {} VFs once {why}", sriov.num_vfs));
                continue;
            }
        };
        let present = host.num_vfs.get(&pf).copied();
        let in_use = vfs().filter(|function| function.driver.in_use).count();
        match present {
            None => assessment.sriov_waits.push(format!("the host has no static PF {pf} with SR-IOV")),
            Some(present) if present == sriov.num_vfs => {}
            Some(_) if sriov.num_vfs > state.limits.vfs_per_pf => assessment.sriov_waits.push(format!(
                "PF {pf} can't have {} VFs: VIRTIO_NET_EMULATION_NUM_VF is {}",
                sriov.num_vfs, state.limits.vfs_per_pf
            )),
            Some(present) if present > 0 && in_use > 0 => assessment.sriov_waits.push(format!(
                "PF {pf} has {present} VFs, {in_use} of them in use by drivers; {} are made once those are unbound",
                sriov.num_vfs
            )),
            Some(present) => {
                let (settings, missing) = settings_of_vfs(input, claims, state, pf, sriov.num_vfs);
                if present == 0 && missing {
                    assessment.sriov_waits.push(format!(
                        "the VFs of PF {pf} are made once their settings are handed to the controller"
                    ));
                    continue;
                }
                // By way of none in a step of its own, for settings are taken only for VFs that are not there.
                let num_vfs = if present > 0 && settings { 0 } else { sriov.num_vfs };
                steps.push(Step::SetNumVfs { pf, num_vfs, present });
            }
        }
    }
}

/// The host, where its `sriov_numvfs` can be written; else what must come first.
fn running_host<'i>(input: &'i Input<'_>, state: &ControllerState) -> Result<&'i HostState, String> {
    let host = match &input.observed.host {
        Ok(host) => host,
        Err(error) => return Err(format!("the host can be reached: {error}")),
    };
    match host.power {
        HostPower::Running if state.updating => Err("the controller's live update has ended".to_owned()),
        HostPower::Running => Ok(host),
        HostPower::Off => Err("the host is on".to_owned()),
        HostPower::Booting => Err("the host has booted".to_owned()),
        HostPower::Unknown => Err("the host has made them: nothing reaches it from here".to_owned()),
    }
}

/// Whether VFs that are about to be made have settings to be born with, and whether any of those is not handed over yet.
/// The host's driver takes hold of a VF at once, and then they would have to wait for that.
fn settings_of_vfs(
    input: &Input<'_>,
    claims: &Claims<'_>,
    state: &ControllerState,
    pf: PfId,
    num_vfs: u16,
) -> (bool, bool) {
    let mut vfs = claims
        .order
        .iter()
        .filter(|device| {
            device.wanted.as_ref().is_ok_and(|wanted| {
                matches!(
                    wanted.function,
                    WantedFunction::Vf { pf: of, vf, .. } if of == pf && vf.get() < num_vfs
                )
            })
        })
        .filter(|device| function::hands_over(input, claims, device, &state.limits))
        .peekable();
    (vfs.peek().is_some(), vfs.any(|device| !function::is_handed_over(device, state)))
}

/// Finds wanted firmware values that the next boot lacks, and sets them where the policy says so.
fn plan_firmware(input: &Input<'_>, assessment: &mut DpuAssessment, steps: &mut Vec<Step>) {
    let Ok(firmware) = &input.observed.firmware else { return };
    for (port, wanted) in wanted_firmware(input.dpu_spec) {
        let next = firmware.get(&port).map(|state| &state.next_boot);
        let missing: FirmwareValues = wanted
            .into_iter()
            .filter(|(key, value)| next.and_then(|next| next.get(key)) != Some(value))
            .collect();
        if missing.is_empty() {
            continue;
        }
        let policy = input.dpu_spec.firmware.as_ref().map(|firmware| firmware.policy).unwrap_or_default();
        if policy == FirmwarePolicy::Apply {
            steps.push(Step::SetFirmware { port, values: missing.clone() });
        }
        assessment.firmware_differs.insert(port, missing);
    }
}

/// The firmware values that the spec wants, by port.
pub(crate) fn wanted_firmware(spec: &DpuSpec) -> BTreeMap<EswitchPort, FirmwareValues> {
    spec.firmware
        .iter()
        .flat_map(|firmware| &firmware.ports)
        .map(|entry| {
            let port = match entry.port {
                Port::P0 => EswitchPort::P0,
                Port::P1 => EswitchPort::P1,
            };
            let values = entry.values.iter().map(|(key, value)| {
                let value = match value {
                    IntOrString::Int(number) => number.to_string(),
                    IntOrString::String(text) => text.clone(),
                };
                (key.clone(), value)
            });
            (port, values.collect())
        })
        .collect()
}
