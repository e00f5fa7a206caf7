//! What a step locks while it runs, and by what its failure is remembered.

use virtnet_model::{BridgeName, EswitchPort, IfName, PfId};

use crate::desired::Uid;
use crate::plan::{Part, Step};

/// One part of one device, or something of the DPU itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A part of a device.
    Device(Uid, Part),
    /// A port of ours whose device is gone.
    Orphan(IfName),
    /// A bridge.
    Bridge(BridgeName),
    /// The switch: one transaction at a time.
    Switch,
    /// `sriov_numvfs` of a PF.
    Vfs(PfId),
    /// The firmware of a port.
    Firmware(EswitchPort),
}

impl Key {
    /// What this step locks.
    pub(crate) fn of(step: &Step) -> Self {
        let device = |uid: &Uid| Self::Device(uid.clone(), step.part());
        match step {
            Step::Register { device: of, .. }
            | Step::ClaimMac { device: of, .. }
            | Step::Release { device: of }
            | Step::Unplug { device: of, .. }
            | Step::Hotplug { device: of, .. }
            | Step::Modify { device: of, .. }
            | Step::SetLink { device: of, .. }
            | Step::SetPort { device: of, .. }
            | Step::RemovePort { device: Some(of), .. } => device(&of.uid),
            Step::RemovePort { device: None, name, .. } => Self::Orphan(name.clone()),
            Step::AddBridge { name, .. } => Self::Bridge(name.clone()),
            Step::SetNumVfs { pf, .. } => Self::Vfs(*pf),
            Step::SetFirmware { port, .. } => Self::Firmware(*port),
        }
    }

    /// As planning names it, where it is a device's.
    pub(crate) fn of_device(&self) -> Option<(Uid, Part)> {
        match self {
            Self::Device(uid, part) => Some((uid.clone(), *part)),
            Self::Orphan(_) | Self::Bridge(_) | Self::Switch | Self::Vfs(_) | Self::Firmware(_) => None,
        }
    }
}
