//! What a device's status says, computed from an assessment: pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use virtnet_crds::conditions::{self, FUNCTION_READY, Finding, PORT_READY, READY, REPRESENTOR_READY};
use virtnet_crds::{
    FunctionStatus, FunctionType, HostStatus, Pending, PortStatus, Reason, RepresentorStatus,
    VirtnetDeviceStatus,
};
use virtnet_model::{Feature, Function, FunctionKind, Port, SubFunction, VlanId};

use crate::plan::{Assessment, Stand};

/// The name under which Linux knows the driver of a virtio-net function's PCI side.
const DRIVER: &str = "virtio-pci";

/// The status of a device at this generation. `before` lends the conditions their times of transition.
pub fn device_status(
    generation: i64,
    assessment: &Assessment,
    before: &VirtnetDeviceStatus,
    now: Timestamp,
) -> VirtnetDeviceStatus {
    let Assessment { function, representor, port, pending, found, sf, found_port } = assessment;
    let (reason, message) = explain(assessment.overall());
    let mut findings = vec![finding(FUNCTION_READY, function), finding(REPRESENTOR_READY, representor)];
    findings.extend(port.as_ref().map(|port| finding(PORT_READY, port)));
    findings.push(Finding::new(READY, reason, message));
    findings.extend(Finding::kstatus(reason, message));
    // Where the controller can't be asked the function is what it was last seen to be: its MAC is as little free as before,
    // and its device can as little be another DPU's.
    let unseen = matches!(function, Stand::Not(Reason::ControllerUnavailable, _));
    let last = if unseen { before.clone() } else { VirtnetDeviceStatus::default() };
    VirtnetDeviceStatus {
        observed_generation: generation,
        conditions: conditions::merge(&before.conditions, findings, generation, &Time(now)),
        pending: pending
            .as_ref()
            .map(|(reason, message)| Pending { reason: reason.to_string(), message: message.clone() }),
        function: found.as_ref().map(function_status).or(last.function),
        representor: sf.as_ref().map(representor_status).or(last.representor),
        port: found_port.as_ref().map(port_status).or(last.port),
        host: found.as_ref().map(host_status).or(last.host),
    }
}

fn finding(type_: &'static str, stand: &Stand) -> Finding {
    let (reason, message) = explain(stand);
    Finding::new(type_, reason, message)
}

fn explain(stand: &Stand) -> (Reason, &str) {
    match stand {
        Stand::Ready => (Reason::Ready, "as declared"),
        Stand::Not(reason, message) => (*reason, message),
    }
}

/// A kind of function as the API names it.
pub(crate) fn function_type(kind: FunctionKind) -> FunctionType {
    match kind {
        FunctionKind::HotPlug => FunctionType::HotPlug,
        FunctionKind::Static => FunctionType::Static,
        FunctionKind::Vf => FunctionType::Vf,
    }
}

/// Features that a function offers, as the API names them.
pub(crate) fn feature_names(function: &Function) -> Vec<String> {
    function.features.iter().map(Feature::name).map(str::to_owned).collect()
}

fn function_status(function: &Function) -> FunctionStatus {
    let Function {
        id,
        kind,
        vuid,
        bdf,
        mac,
        mtu,
        max_queues,
        max_queue_size,
        num_msix,
        features: _,
        transitional,
        driver: _,
        negotiated: _,
        config_vector: _,
        migrating: _,
        sf,
        socket,
        vfs: _,
    } = function;
    FunctionStatus {
        vuid: vuid.to_string(),
        type_: function_type(*kind),
        pf: Some(id.pf.get()),
        vf: id.vf.map(virtnet_model::VfId::get),
        bdf: bdf.map(|bdf| bdf.to_string()),
        mac: Some(mac.to_string()),
        mtu: Some(mtu.get()),
        max_queues: Some(*max_queues),
        max_queue_size: Some(max_queue_size.get()),
        num_msix: Some(*num_msix),
        features: feature_names(function),
        transitional: *transitional,
        rdma_device: sf.as_ref().and_then(|sf| sf.rdma_device.clone()),
        socket: socket.as_ref().map(|socket| socket.display().to_string()),
    }
}

fn representor_status(sf: &SubFunction) -> RepresentorStatus {
    RepresentorStatus {
        name: sf.representor.to_string(),
        sf_number: Some(u32::from(sf.number)),
        parent_device: Some(sf.parent.clone()),
    }
}

fn port_status(port: &Port) -> PortStatus {
    // What is no VLAN id was set by someone else, and is about to be set back.
    let tag = port.tag.filter(|tag| VlanId::try_from(u32::from(*tag)).is_ok());
    PortStatus { bridge: port.bridge.to_string(), tag }
}

fn host_status(function: &Function) -> HostStatus {
    HostStatus { driver: function.driver.in_use.then(|| DRIVER.to_owned()), seen: function.driver.seen }
}
