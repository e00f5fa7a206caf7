//! [`DeviceView`]: what is shown of a `VirtnetDevice`: its function, representor and port, each with its own condition.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;
use virtnet_crds::conditions::{BOUND, FUNCTION_READY, PORT_READY, READY, REPRESENTOR_READY};
use virtnet_crds::{
    Function, FunctionStatus, FunctionType, HostStatus, Pending, PortSpec, PortStatus, RepresentorStatus,
    VirtnetDevice, VirtnetDeviceSpec,
};

use super::{Standing, State, find, kind};

/// A device.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceView<'a> {
    #[serde(flatten)]
    standing: Standing<'a>,
    /// The DPU that it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    dpu: Option<&'a str>,
    /// It is being deleted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleting: bool,
    /// What waits for somebody, with the command that a person would run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<&'a str>,
    function: FunctionView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    representor: Option<RepresentorView<'a>>,
    /// Absent where neither a port is wanted nor there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<PortView<'a>>,
}

/// The function as the host has it, or as it is wanted while there is none.
#[derive(Debug, Serialize)]
struct FunctionView<'a> {
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    kind: String,
    /// Where it stands among others: PF, then VF.
    order: (u16, i32),
    #[serde(skip_serializing_if = "Option::is_none")]
    vuid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bdf: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<&'a str>,
    /// The socket of a function in software.
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<&'a str>,
    /// The host has it on its bus.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    seen: bool,
}

#[derive(Debug, Serialize)]
struct RepresentorView<'a> {
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sf: Option<u32>,
}

#[derive(Debug, Serialize)]
struct PortView<'a> {
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    bridge: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<u16>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    trunks: &'a [u16],
}

impl<'a> DeviceView<'a> {
    /// What is shown of it.
    pub(crate) fn of(device: &'a VirtnetDevice) -> Self {
        let VirtnetDevice { metadata, spec, status } = device;
        let status = status.as_ref();
        let conditions = status.map_or(&[][..], |status| &status.conditions);
        let is_current = status.is_some_and(|status| Some(status.observed_generation) == metadata.generation);
        Self {
            standing: standing(spec, conditions, is_current),
            dpu: spec.dpu.as_deref(),
            deleting: metadata.deletion_timestamp.is_some(),
            pending: status.and_then(|status| status.pending.as_ref()).map(|pending| {
                let Pending { reason: _, message } = pending;
                message.as_str()
            }),
            function: FunctionView::of(spec, status.and_then(|status| status.function.as_ref()))
                .on(status.and_then(|status| status.host.as_ref()))
                .standing(conditions),
            representor: status
                .and_then(|status| status.representor.as_ref())
                .map(|representor| RepresentorView::of(representor, conditions)),
            port: PortView::of(
                spec.port.as_ref(),
                status.and_then(|status| status.port.as_ref()),
                conditions,
            ),
        }
    }
}

/// One that is bound to nothing says why by the condition `Bound`, for no agent looks at it.
fn standing<'a>(spec: &VirtnetDeviceSpec, conditions: &'a [Condition], is_current: bool) -> Standing<'a> {
    if spec.dpu.is_some() {
        return Standing::of(conditions, is_current);
    }
    match find(conditions, BOUND).or_else(|| find(conditions, READY)) {
        Some(condition) => {
            let Condition { reason, message, .. } = condition;
            Standing { state: State::of(condition), reason, message }
        }
        None => Standing { state: State::Unknown, reason: "", message: "bound to no DPU yet" },
    }
}

/// How a part stands, and why where that is not as it should be. Once the agent is silent nothing is known of any part,
/// whatever was last said of it.
fn part<'a>(conditions: &'a [Condition], type_: &str) -> (State, Option<&'a str>) {
    let is_unknown = find(conditions, READY).is_none_or(|ready| State::of(ready) == State::Unknown);
    match find(conditions, type_) {
        Some(_) if is_unknown => (State::Unknown, None),
        Some(condition) => {
            let state = State::of(condition);
            (state, (state != State::Ready).then_some(condition.reason.as_str()))
        }
        None => (State::Unknown, None),
    }
}

impl<'a> FunctionView<'a> {
    fn of(spec: &'a VirtnetDeviceSpec, found: Option<&'a FunctionStatus>) -> Self {
        let (type_, pf, vf) = match (found, spec.function.choice()) {
            (Some(found), _) => (Some(found.type_), found.pf, found.vf),
            (None, Ok(Function::Hotplug(_))) => (Some(FunctionType::HotPlug), None, None),
            (None, Ok(Function::Static(wanted))) => (Some(FunctionType::Static), Some(wanted.pf), None),
            (None, Ok(Function::Vf(wanted))) => (Some(FunctionType::Vf), Some(wanted.pf), Some(wanted.vf)),
            (None, Err(_)) => (None, None, None),
        };
        Self {
            state: State::Unknown,
            why: None,
            kind: type_.map_or_else(|| "function".to_owned(), |type_| kind(type_, pf, vf)),
            order: (pf.unwrap_or(u16::MAX), vf.map_or(-1, i32::from)),
            vuid: found.map(|found| found.vuid.as_str()),
            bdf: found.and_then(|found| found.bdf.as_deref()),
            mac: found.and_then(|found| found.mac.as_deref()).or(spec.mac.as_deref()),
            socket: found.and_then(|found| found.socket.as_deref()),
            driver: None,
            seen: false,
        }
    }

    fn on(self, host: Option<&'a HostStatus>) -> Self {
        let Some(HostStatus { driver, seen }) = host else { return self };
        Self { driver: driver.as_deref(), seen: *seen, ..self }
    }

    fn standing(self, conditions: &'a [Condition]) -> Self {
        let (state, why) = part(conditions, FUNCTION_READY);
        Self { state, why, ..self }
    }
}

impl<'a> RepresentorView<'a> {
    fn of(found: &'a RepresentorStatus, conditions: &'a [Condition]) -> Self {
        let RepresentorStatus { name, sf_number, parent_device: _ } = found;
        let (state, why) = part(conditions, REPRESENTOR_READY);
        Self { state, why, name, sf: *sf_number }
    }
}

impl<'a> PortView<'a> {
    /// As the switch reports it, else as it is wanted; trunks are known by the spec alone.
    fn of(
        wanted: Option<&'a PortSpec>,
        found: Option<&'a PortStatus>,
        conditions: &'a [Condition],
    ) -> Option<Self> {
        let (bridge, tag) = match (found, wanted) {
            (Some(PortStatus { bridge, tag }), _) => (bridge, *tag),
            (None, Some(wanted)) => (&wanted.bridge, wanted.tag),
            (None, None) => return None,
        };
        let (state, why) = part(conditions, PORT_READY);
        let trunks = wanted.map_or(&[][..], |wanted| &wanted.trunks);
        Some(Self { state, why, bridge, tag, trunks })
    }
}
