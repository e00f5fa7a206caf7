//! A function as JSON: [`Device`], with the names that the guide's `virtnet list` has (section 1.3.2). Pure.
//!
//! What is not known is left out.

use std::fmt::LowerHex;
use std::path::Path;

use serde::Serialize;
use virtnet_controller::Settings;
use virtnet_model::{
    Bdf, Feature, Features, Function, FunctionId, FunctionKind, IfName, Mac, Mtu, PfId, QueueSize, SfNumber,
    VfId, Vuid,
};
use virtnet_qemu_host::{Presented, Unfit};

use crate::queue::Queue;

/// A function as `list` shows it, and with [`Details`] as `query` does.
#[derive(Debug, Serialize)]
pub(crate) struct Device<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pf_id: Option<PfId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vf_id: Option<VfId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_pf_id: Option<PfId>,
    function_type: &'static str,
    vuid: &'a Vuid,
    bdf: String,
    #[serde(flatten)]
    sf: Option<Sf<'a>>,
    msix_config_vector: String,
    num_msix: u16,
    max_queues: u16,
    max_queues_size: QueueSize,
    net_mac: String,
    net_mtu: Mtu,
    /// That it is being moved, where it is (the guide, section 1.1.4).
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(flatten)]
    details: Option<Details<'a>>,
}

/// The SF behind it.
#[derive(Debug, Serialize)]
struct Sf<'a> {
    sf_num: SfNumber,
    sf_parent_device: &'a str,
    sf_rep_net_device: &'a IfName,
    #[serde(skip_serializing_if = "Option::is_none")]
    sf_rep_net_ifindex: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sf_rdma_device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sf_vhca_id: Option<String>,
}

/// What only `query` shows.
#[derive(Debug, Serialize)]
struct Details<'a> {
    transitional: u8,
    /// Those offered to the driver.
    supported_features: FeatureSet,
    /// Those of them that the driver accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    driver_features: Option<FeatureSet>,
    driver_loaded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<&'a Path>,
    /// By which a QEMU has the function, where a front end connects to its socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    qemu_arguments: Option<Vec<String>>,
    /// Why no QEMU can have it, where it has a socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    qemu_unfit: Option<String>,
    #[serde(rename = "enabled-queues-info", skip_serializing_if = "Option::is_none")]
    queues: Option<Vec<Queue>>,
}

/// Features, as `-f` takes them and as the specification names them.
#[derive(Debug, Serialize)]
pub(crate) struct FeatureSet {
    value: String,
    names: Vec<&'static str>,
}

impl FeatureSet {
    pub(crate) fn of(features: &Features) -> Self {
        Self { value: format!("{:#x}", features.bits()), names: features.iter().map(Feature::name).collect() }
    }
}

impl<'a> Device<'a> {
    /// A function, with what is known of its representor's netdev.
    pub(crate) fn of(function: &'a Function, ifindex: &dyn Fn(&IfName) -> Option<u32>) -> Self {
        let FunctionId { pf, vf } = function.id;
        let function_type = match function.kind {
            FunctionKind::Static => "static PF",
            FunctionKind::HotPlug => "hotplug PF",
            FunctionKind::Vf => "VF",
        };
        let sf = function.sf.as_ref().map(|sf| Sf {
            sf_num: sf.number,
            sf_parent_device: &sf.parent,
            sf_rep_net_device: &sf.representor,
            sf_rep_net_ifindex: ifindex(&sf.representor),
            sf_rdma_device: sf.rdma_device.as_deref(),
            sf_vhca_id: sf.vhca_id.map(hex),
        });
        Self {
            pf_id: vf.is_none().then_some(pf),
            vf_id: vf,
            parent_pf_id: vf.map(|_| pf),
            function_type,
            vuid: &function.vuid,
            bdf: bdf(function.bdf),
            sf,
            msix_config_vector: hex(function.config_vector.unwrap_or(NO_VECTOR)),
            num_msix: function.num_msix,
            max_queues: function.max_queues,
            max_queues_size: function.max_queue_size,
            net_mac: mac(function.mac),
            net_mtu: function.mtu,
            status: function.migrating.then_some("migrating"),
            details: None,
        }
    }

    /// The same with all that is known; of queues, those that are to be shown.
    pub(crate) fn in_full(
        function: &'a Function,
        queues: Option<Vec<Queue>>,
        ifindex: &dyn Fn(&IfName) -> Option<u32>,
    ) -> Self {
        let (qemu_arguments, qemu_unfit) = match qemu_arguments(function) {
            Some(Ok(arguments)) => (Some(arguments), None),
            Some(Err(unfit)) => (None, Some(unfit.to_string())),
            None => (None, None),
        };
        let details = Details {
            transitional: function.transitional.into(),
            supported_features: FeatureSet::of(&function.features),
            driver_features: function.negotiated.as_ref().map(FeatureSet::of),
            driver_loaded: function.driver.in_use,
            socket: function.socket.as_deref(),
            qemu_arguments,
            qemu_unfit,
            queues,
        };
        Self { details: Some(details), ..Self::of(function, ifindex) }
    }
}

/// The arguments by which a QEMU has a function with a socket, and its VFs; `None`: it has no socket. A VF is nothing that a QEMU has
/// without its PF, which has them.
fn qemu_arguments(function: &Function) -> Option<Result<Vec<String>, Unfit>> {
    if function.kind == FunctionKind::Vf {
        return None;
    }
    let all: Vec<_> = std::iter::once(function)
        .chain(&function.vfs)
        .map(|function| {
            Some((function.vuid.as_str().to_lowercase(), settings(function), function.socket.as_deref()?))
        })
        .collect::<Option<_>>()?;
    let presented = all.iter().map(|(name, settings, socket)| Presented { name, settings, socket });
    let presented: Vec<_> = presented.collect();
    let (function_itself, vfs) = presented.split_first()?;
    Some(virtnet_qemu_host::arguments(*function_itself, vfs, function.id.pf.get()))
}

fn settings(function: &Function) -> Settings {
    Settings {
        mac: function.mac,
        mtu: function.mtu,
        max_queues: function.max_queues,
        queue_size: function.max_queue_size,
        num_msix: function.num_msix,
        features: function.features.clone(),
        transitional: function.transitional,
    }
}

/// What a register has that names no MSI-X vector (virtio 1.2, section 4.1.5.1.2).
pub(crate) const NO_VECTOR: u16 = 0xffff;

/// A number in hexadecimal, as the guide shows it.
pub(crate) fn hex(number: impl LowerHex) -> String {
    format!("{number:#x}")
}

/// An address on the host's bus; zero where the host has given none.
pub(crate) fn bdf(bdf: Option<Bdf>) -> String {
    bdf.map_or_else(|| "00:00.0".to_owned(), |bdf| bdf.to_string())
}

/// A MAC in upper case, as the guide's replies have it.
pub(crate) fn mac(mac: Mac) -> String {
    mac.to_string().to_uppercase()
}

#[cfg(test)]
mod tests {
    use virtnet_model::{EswitchPort, HostDriver, SubFunction};

    use super::*;

    fn number<T: TryFrom<u32, Error = virtnet_model::ParseError>>(value: u32) -> T {
        T::try_from(value).unwrap()
    }

    /// The guide's VF.
    fn function() -> Function {
        let sf = SubFunction::named(EswitchPort::P0, number(3000), "mlx5_0");
        Function {
            id: FunctionId::vf(number(0), number(0)),
            kind: FunctionKind::Vf,
            vuid: "VNETS0D0F2VF1".parse().unwrap(),
            bdf: Some("83:00.6".parse().unwrap()),
            mac: "5a:94:07:04:f6:1c".parse().unwrap(),
            mtu: Mtu::DEFAULT,
            max_queues: 4,
            max_queue_size: number(256),
            num_msix: 10,
            features: Features::controller_default(),
            transitional: false,
            driver: HostDriver::default(),
            negotiated: None,
            config_vector: Some(0),
            migrating: false,
            sf: Some(SubFunction { rdma_device: Some("mlx5_7".to_owned()), vhca_id: Some(0x192), ..sf }),
            socket: None,
            vfs: Vec::new(),
        }
    }

    #[test]
    fn the_guides_vf_is_told_as_in_the_guide() {
        let ifindex = |name: &IfName| (name.as_str() == "en3f0pf0sf3000").then_some(19);
        let text = serde_json::to_string(&Device::of(&function(), &ifindex)).unwrap();
        let guide = r#"{"vf_id":0,"parent_pf_id":0,"function_type":"VF","vuid":"VNETS0D0F2VF1","bdf":"83:00.6",
            "sf_num":3000,"sf_parent_device":"mlx5_0","sf_rep_net_device":"en3f0pf0sf3000","sf_rep_net_ifindex":19,
            "sf_rdma_device":"mlx5_7","sf_vhca_id":"0x192","msix_config_vector":"0x0","num_msix":10,"max_queues":4,"max_queues_size":256,
            "net_mac":"5A:94:07:04:F6:1C","net_mtu":1500}"#;
        assert_eq!(text, guide.split_whitespace().collect::<String>());
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let function = Function { bdf: None, sf: None, config_vector: None, ..function() };
        let value = serde_json::to_value(Device::in_full(&function, None, &|_| None)).unwrap();
        assert_eq!(value["msix_config_vector"], "0xffff");
        assert_eq!(value["bdf"], "00:00.0");
        for absent in [
            "pf_id",
            "sf_num",
            "sf_vhca_id",
            "status",
            "enabled-queues-info",
            "sf_rep_net_device",
            "sf_rep_net_ifindex",
            "driver_features",
            "socket",
            "qemu_arguments",
            "qemu_unfit",
        ] {
            assert!(value.get(absent).is_none(), "{absent}");
        }
        assert_eq!(value["driver_loaded"], false);
    }

    #[test]
    fn a_function_with_a_socket_is_told_with_what_a_qemu_needs() {
        let arguments = |function: &Function| {
            let value = serde_json::to_value(Device::in_full(function, None, &|_| None)).unwrap();
            let lines = value.get("qemu_arguments")?.as_array().unwrap().clone();
            Some(lines.iter().map(|line| line.as_str().unwrap().to_owned()).collect::<Vec<_>>())
        };
        let vf = Function { socket: Some("/run/v".into()), ..function() };
        assert_eq!(arguments(&vf), None, "it comes with its PF");
        let pf = Function {
            id: FunctionId::pf(number(2)),
            kind: FunctionKind::Static,
            vuid: "VNETS0D0F2".parse().unwrap(),
            socket: Some("/run/s".into()),
            ..function()
        };
        let alone = arguments(&pf).unwrap();
        assert!(alone[1].starts_with("socket,id=vnets0d0f2-chr,path=/run/s"), "{alone:?}");
        let small = Function { max_queue_size: number(64), ..pf.clone() };
        let value = serde_json::to_value(Device::in_full(&small, None, &|_| None)).unwrap();
        assert_eq!(value["qemu_unfit"], "a ring of 64 descriptors: QEMU's virtio-net has 256 to 1024");
        assert_eq!(arguments(&small), None);
        let lines = arguments(&Function { vfs: vec![vf], ..pf }).unwrap();
        assert!(lines[1].starts_with("pcie-root-port,"), "{lines:?}");
        assert!(lines[3].starts_with("socket,id=vnets0d0f2vf1-chr,path=/run/v"), "{lines:?}");
        assert!(lines[9].starts_with("socket,id=vnets0d0f2-chr,path=/run/s"), "{lines:?}");
    }
}
