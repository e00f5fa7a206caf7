//! What is known of a device and of a DPU, as trees: pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use virtnet_crds::conditions::READY;
use virtnet_crds::{
    Dpu, FunctionStatus, FunctionType, HostStatus, PortStatus, RepresentorStatus, UndeclaredFunction,
    Versions, VirtnetDevice,
};
use virtnet_embedded_api::human_duration;

use super::draw::Node;
use crate::events::Told;
use crate::{adopt, ready};

/// A device with what was told of it last.
pub(crate) fn device(device: &VirtnetDevice, told: &[&Told], now: Timestamp) -> Node {
    let key = format!("{}/{}", device.namespace().unwrap_or_default(), device.name_any());
    let stand = ready::why_not(device).unwrap_or_else(|| format!("{key}: Ready"));
    let status = device.status.clone().unwrap_or_default();
    let mut below = vec![match &device.spec.dpu {
        Some(dpu) => Node::leaf(format!("DPU {dpu}")),
        None => Node::leaf("bound to no DPU yet"),
    }];
    below.push(status.function.as_ref().map_or_else(|| Node::leaf("no function yet"), function));
    below.extend(status.representor.as_ref().map(representor));
    below.extend(status.port.as_ref().map(port));
    below.extend(status.host.as_ref().map(host));
    let pending = status.pending.map(|pending| format!("pending {}: {}", pending.reason, pending.message));
    below.extend(pending.map(Node::leaf));
    below.extend(conditions(&status.conditions, now));
    below.extend(events(told, now));
    Node::over(format!("VirtnetDevice {stand}"), below)
}

/// A DPU with its devices below it.
pub(crate) fn dpu(dpu: &Dpu, devices: Vec<Node>, told: &[&Told], now: Timestamp) -> Node {
    let status = dpu.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().find(|condition| condition.type_ == READY);
    let stand = match ready {
        Some(condition) if condition.status == "True" => "Ready".to_owned(),
        Some(condition) => format!("{}: {}", condition.reason, condition.message),
        None => "no agent has looked at it yet".to_owned(),
    };
    let mut below: Vec<_> = status.versions.as_ref().and_then(versions).into_iter().collect();
    below.extend(conditions(&status.conditions, now));
    below.push(titled("devices", devices));
    below.push(titled("undeclared functions", status.undeclared.iter().map(undeclared).collect()));
    below.extend(events(told, now));
    Node::over(format!("Dpu {}: {stand}", dpu.name_any()), below)
}

fn titled(title: &str, below: Vec<Node>) -> Node {
    if below.is_empty() { Node::leaf(format!("no {title}")) } else { Node::over(title, below) }
}

fn versions(versions: &Versions) -> Option<Node> {
    let Versions { controller, agent, firmware } = versions;
    let told = [("agent", agent), ("controller", controller), ("firmware", firmware)];
    let told: Vec<_> =
        told.iter().filter_map(|(what, version)| Some(format!("{what} {}", version.as_ref()?))).collect();
    (!told.is_empty()).then(|| Node::leaf(format!("versions: {}", told.join(", "))))
}

fn function(function: &FunctionStatus) -> Node {
    let FunctionStatus {
        vuid,
        type_,
        pf,
        vf,
        bdf,
        mac,
        mtu,
        max_queues,
        max_queue_size,
        num_msix,
        features: _,
        transitional,
        rdma_device,
        socket,
    } = function;
    let mut settings: Vec<String> = Vec::new();
    settings.extend(mac.as_ref().map(|mac| format!("MAC {mac}")));
    settings.extend(mtu.map(|mtu| format!("MTU {mtu}")));
    settings.extend(max_queues.map(|queues| match max_queue_size {
        Some(size) => format!("{queues} queues of {size}"),
        None => format!("{queues} queues"),
    }));
    settings.extend(num_msix.map(|vectors| format!("{vectors} MSI-X vectors")));
    settings.extend(transitional.then(|| "transitional".to_owned()));
    settings.extend(rdma_device.as_ref().map(|device| format!("RDMA device {device}")));
    let place = match (bdf, socket) {
        (Some(bdf), _) => format!("at {bdf}"),
        (None, Some(socket)) => format!("at {socket}"),
        (None, None) => "no address yet".to_owned(),
    };
    Node::over(
        format!("function {vuid}: {}, {place}", kind(*type_, *pf, *vf)),
        [Node::leaf(settings.join(", "))],
    )
}

fn kind(type_: FunctionType, pf: Option<u16>, vf: Option<u16>) -> String {
    let kind = match type_ {
        FunctionType::HotPlug => "hot-plugged",
        FunctionType::Static => "static",
        FunctionType::Vf => "VF",
    };
    match (type_, pf, vf) {
        (FunctionType::Vf, Some(pf), Some(vf)) => format!("VF {vf} of PF {pf}"),
        (_, Some(pf), _) => format!("{kind} PF {pf}"),
        _ => kind.to_owned(),
    }
}

fn representor(representor: &RepresentorStatus) -> Node {
    let RepresentorStatus { name, sf_number, parent_device } = representor;
    let sf = sf_number.map(|number| format!(", SF {number}")).unwrap_or_default();
    let parent = parent_device.as_ref().map(|parent| format!(" of {parent}")).unwrap_or_default();
    Node::leaf(format!("representor {name}{sf}{parent}"))
}

fn port(port: &PortStatus) -> Node {
    let PortStatus { bridge, tag } = port;
    let tag = tag.map(|tag| format!(", tag {tag}")).unwrap_or_default();
    Node::leaf(format!("port on bridge {bridge}{tag}"))
}

fn host(host: &HostStatus) -> Node {
    Node::leaf(match host {
        HostStatus { driver: Some(driver), .. } => format!("host: driver {driver}"),
        HostStatus { driver: None, seen: true } => "host: no driver".to_owned(),
        HostStatus { driver: None, seen: false } => "host: not on its bus".to_owned(),
    })
}

fn undeclared(function: &UndeclaredFunction) -> Node {
    let mac = function.mac.as_ref().map(|mac| format!(", MAC {mac}")).unwrap_or_default();
    let kind = kind(function.type_, function.pf, function.vf);
    Node::leaf(format!("{}: {kind}{mac}", adopt::shown(function)))
}

fn conditions(conditions: &[Condition], now: Timestamp) -> Option<Node> {
    let line = |condition: &Condition| {
        let Condition { type_, status, reason, message, .. } = condition;
        let since = age(Some(condition.last_transition_time.0), now);
        Node::leaf(format!("{type_}={status} {reason} for {since}: {message}"))
    };
    (!conditions.is_empty()).then(|| Node::over("conditions", conditions.iter().map(line)))
}

fn events(told: &[&Told], now: Timestamp) -> Option<Node> {
    let line = |told: &&Told| {
        let Told { about: _, type_, reason, message, count, seen } = told;
        let times = if *count > 1 { format!(" ({count} times)") } else { String::new() };
        Node::leaf(format!("{} ago {type_} {reason}{times}: {message}", age(*seen, now)))
    };
    (!told.is_empty()).then(|| Node::over("last events", told.iter().map(line)))
}

fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    since.map_or_else(|| "?".to_owned(), |since| human_duration(now.as_second() - since.as_second()))
}
