//! A virtio-net function as its controller reports it: [`Function`], with its [`SubFunction`] and the host's driver.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    Bdf, EswitchPort, Features, IfName, Mac, Mtu, PfId, QueueSize, SfNumber, Target, VfId, Vuid,
    representor_name,
};

/// How a function comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FunctionKind {
    /// A physical function of the firmware's configuration: there from boot on.
    Static,
    /// A physical function plugged into a slot of the emulated PCIe switch at run time.
    HotPlug,
    /// A virtual function that the host makes with `sriov_numvfs`.
    Vf,
}

/// A function's place in the controller's device table, as `virtnet query -p PF [-v VF]` takes it.
///
/// The index of a hot-plugged PF is given anew with each plug, so it addresses nothing: see [`crate::Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionId {
    /// The PF, or the PF that the VF belongs to.
    pub pf: PfId,
    /// The VF's index from 0; `None` for a PF.
    pub vf: Option<VfId>,
}

impl FunctionId {
    /// A physical function.
    pub fn pf(pf: PfId) -> Self {
        Self { pf, vf: None }
    }

    /// A virtual function.
    pub fn vf(pf: PfId, vf: VfId) -> Self {
        Self { pf, vf: Some(vf) }
    }
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vf {
            None => write!(f, "PF {}", self.pf),
            Some(vf) => write!(f, "VF {vf} of PF {}", self.pf),
        }
    }
}

/// What the device knows of the driver on its other side: the virtio device status (virtio 1.2, section 2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostDriver {
    /// A driver has set DRIVER_OK: the function is in use.
    pub in_use: bool,
    /// The host has enumerated the function.
    pub seen: bool,
}

/// The scalable function behind a virtio-net function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubFunction {
    /// The port of the embedded switch that it is on.
    pub port: EswitchPort,
    /// Its number, unique on that port.
    pub number: SfNumber,
    /// The RDMA device that it was made on, such as `mlx5_0`.
    pub parent: String,
    /// Its own RDMA device, such as `mlx5_7`, once there.
    pub rdma_device: Option<String>,
    /// The name of its representor netdev, as the controller reports it.
    pub representor: IfName,
    /// The number that the device's firmware has for it (its VHCA id), where there is one.
    #[serde(default)]
    pub vhca_id: Option<u16>,
}

impl SubFunction {
    /// The `phys_port_name` that the driver gives the representor of this SF: `pf0sf2000`.
    pub fn phys_port_name(&self) -> String {
        format!("pf{}sf{}", self.port.index(), self.number)
    }

    /// An SF whose representor has its default name.
    pub fn named(port: EswitchPort, number: SfNumber, parent: &str) -> Self {
        Self {
            port,
            number,
            parent: parent.to_owned(),
            rdma_device: None,
            representor: representor_name(port, number),
            vhca_id: None,
        }
    }
}

/// A virtio-net function as its controller reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Function {
    /// Its place in the device table.
    pub id: FunctionId,
    /// How it came to be.
    pub kind: FunctionKind,
    /// Its vendor unique id.
    pub vuid: Vuid,
    /// Its address on the host's bus; `None` until the host has enumerated it (the controller's `00:00.0`).
    pub bdf: Option<Bdf>,
    /// Its MAC address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: Mtu,
    /// Virtqueues, the control queue included.
    pub max_queues: u16,
    /// Descriptors a virtqueue can have at most.
    pub max_queue_size: QueueSize,
    /// MSI-X vectors, the configuration vector included.
    pub num_msix: u16,
    /// Features offered to the driver.
    pub features: Features,
    /// Whether legacy drivers (virtio 0.95) can use it.
    pub transitional: bool,
    /// What is known of the host's driver.
    pub driver: HostDriver,
    /// The features that the driver accepted of those offered; `None`: no driver has got so far.
    pub negotiated: Option<Features>,
    /// The MSI-X vector that the driver gave to changes of the configuration; `None`: it has given none.
    #[serde(default)]
    pub config_vector: Option<u16>,
    /// It is being moved, and what is asked of it has to wait (the guide, section 1.1.4).
    #[serde(default)]
    pub migrating: bool,
    /// The SF behind it; `None` where the port had none left when the function came to be.
    pub sf: Option<SubFunction>,
    /// The vhost-user socket of a function that a virtual machine's front end connects to.
    pub socket: Option<PathBuf>,
    /// The VFs of a PF that a machine has to be started with for its guest to make them, each as it is or as it would be made. Where
    /// the host makes VFs of nothing it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vfs: Vec<Self>,
}

impl Function {
    /// What it is to the controller, so that no other is met if it goes meanwhile; `None`: it is not told whole, as a hot-plugged
    /// one that has no SF yet.
    pub fn target(&self) -> Option<Target> {
        let FunctionId { pf, vf } = self.id;
        match self.kind {
            FunctionKind::Static => Some(Target::Static(pf)),
            // One that is told without its index is never taken for its PF.
            FunctionKind::Vf => vf.map(|vf| Target::Vf(pf, vf)),
            FunctionKind::HotPlug => {
                let sf = self.sf.as_ref()?.number;
                Some(Target::HotPlug { vuid: self.vuid.clone(), mac: self.mac, sf })
            }
        }
    }

    /// The socket of a function that a machine has: what it presents is as the machine was started, and nothing changes it before
    /// that ends.
    pub fn fixed_by(&self) -> Option<&Path> {
        self.socket.as_deref().filter(|_| self.driver.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_function_is_taken_for_another() {
        let of = |kind, vf: Option<u32>| Function {
            id: FunctionId { pf: PfId::MIN, vf: vf.map(|vf| VfId::try_from(vf).unwrap()) },
            kind,
            vuid: "VNETS0D0F0".parse().unwrap(),
            bdf: None,
            mac: Mac::local([0; 5]),
            mtu: Mtu::DEFAULT,
            max_queues: 3,
            max_queue_size: QueueSize::DEFAULT,
            num_msix: 4,
            features: Features::default(),
            transitional: false,
            driver: HostDriver::default(),
            negotiated: None,
            config_vector: None,
            migrating: false,
            sf: None,
            socket: None,
            vfs: Vec::new(),
        };
        assert_eq!(of(FunctionKind::Static, None).target(), Some(Target::Static(PfId::MIN)));
        let vf = VfId::try_from(1).unwrap();
        assert_eq!(of(FunctionKind::Vf, Some(1)).target(), Some(Target::Vf(PfId::MIN, vf)));
        assert_eq!(of(FunctionKind::Vf, None).target(), None, "a VF is not its PF");
        assert_eq!(of(FunctionKind::HotPlug, None).target(), None, "a VUID alone may be another's by now");
    }
}
