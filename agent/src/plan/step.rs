//! A [`Step`]: one thing to do, with the sentence that logs, dry runs and Events say of it.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use virtnet_model::{
    BridgeName, Change, EswitchPort, FirmwareValues, HotplugRequest, IfName, LinkChange, Mac, Owner, PfId,
    Port, PortSettings, SubFunction, Target,
};

use crate::desired::{DeviceKey, Uid};

/// The device that a step is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct For {
    /// Its uid.
    pub uid: Uid,
    /// Its namespace and name.
    pub key: DeviceKey,
}

/// One thing to do to the API, the controller, the switch, the links, the firmware or the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Put our finalizer on the object, and note the MACs that its function may bear, before anything is made.
    Register {
        /// Whose.
        device: For,
        /// The MACs to note.
        macs: BTreeSet<Mac>,
    },
    /// Look whether another of the fleet has the MAC that the device declares.
    ClaimMac {
        /// Whose.
        device: For,
        /// The MAC.
        mac: Mac,
        /// The object notes it.
        noted: bool,
        /// The status tells of a function with it.
        bore: bool,
        /// When the object was created: who is senior has the MAC.
        created: Timestamp,
    },
    /// Take our finalizer off the object: nothing of it is left on the DPU.
    Release {
        /// Whose.
        device: For,
    },
    /// Make a bridge that the Dpu's spec wants.
    AddBridge {
        /// Its name.
        name: BridgeName,
        /// Its datapath as in OVSDB; empty: the kernel's.
        datapath_type: String,
    },
    /// Take a port of ours off the switch.
    RemovePort {
        /// Whose it is, where its object is still there.
        device: Option<For>,
        /// The port's name.
        name: IfName,
        /// Whose marks it must bear.
        owner: Owner,
        /// Why it goes.
        why: Removal,
    },
    /// Unplug a hot-plugged function.
    Unplug {
        /// Whose.
        device: For,
        /// Which function.
        target: Target,
        /// Why it goes.
        why: Removal,
        /// A driver has it in use.
        in_use: bool,
    },
    /// Plug a function.
    Hotplug {
        /// Whose.
        device: For,
        /// With which values.
        request: HotplugRequest,
    },
    /// Change a function's settings, or those that a VF will be made with.
    Modify {
        /// Whose.
        device: For,
        /// Which function.
        target: Target,
        /// To which values.
        change: Change,
    },
    /// Set a representor's admin state and MTU.
    SetLink {
        /// Whose.
        device: For,
        /// The SF whose representor it is.
        sf: SubFunction,
        /// To which values.
        change: LinkChange,
    },
    /// Make a port, or bring ours to its settings.
    SetPort {
        /// Whose.
        device: For,
        /// The port's name.
        name: IfName,
        /// How it shall be.
        settings: PortSettings,
        /// How it is, where it is there and attached.
        present: Option<Box<Port>>,
    },
    /// Write a PF's `sriov_numvfs` on the host.
    SetNumVfs {
        /// The static PF.
        pf: PfId,
        /// How many VFs.
        num_vfs: u16,
        /// How many it has now: the kernel goes by way of none.
        present: u16,
    },
    /// Set firmware values for the next cold boot.
    SetFirmware {
        /// Of which port's device.
        port: EswitchPort,
        /// The values.
        values: FirmwareValues,
    },
}

/// Why something is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The object is being deleted.
    Deleted,
    /// The spec no longer wants it.
    NotWanted,
    /// The device has no function now, or one with another representor.
    Moved,
    /// It is ours and no object is there any more.
    Orphan,
    /// To be made again with other values.
    Replug,
    /// The switch holds a netdev of this name that is gone: to be made again on the one that is there.
    Detached,
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deleted => "the device is being deleted",
            Self::NotWanted => "it is no longer wanted",
            Self::Moved => "its representor is gone, or another",
            Self::Orphan => "its device is gone",
            Self::Replug => "to plug it again with other values",
            Self::Detached => "to make it again on the netdev that bears its name now",
        })
    }
}

/// Which part of the system a step changes. Steps of one device and part never run at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The object in the API.
    Object,
    /// The claim of a MAC.
    Mac,
    /// The function.
    Function,
    /// The representor.
    Representor,
    /// The port, or a bridge for ports.
    Port,
    /// Host or firmware: no device's.
    Dpu,
}

impl Step {
    /// The device that it is for.
    pub fn device(&self) -> Option<&For> {
        match self {
            Self::Register { device, .. }
            | Self::ClaimMac { device, .. }
            | Self::Release { device }
            | Self::Unplug { device, .. }
            | Self::Hotplug { device, .. }
            | Self::Modify { device, .. }
            | Self::SetLink { device, .. }
            | Self::SetPort { device, .. } => Some(device),
            Self::RemovePort { device, .. } => device.as_ref(),
            Self::AddBridge { .. } | Self::SetNumVfs { .. } | Self::SetFirmware { .. } => None,
        }
    }

    /// Which part it changes.
    pub fn part(&self) -> Part {
        match self {
            Self::Register { .. } | Self::Release { .. } => Part::Object,
            Self::ClaimMac { .. } => Part::Mac,
            Self::Unplug { .. } | Self::Hotplug { .. } | Self::Modify { .. } => Part::Function,
            Self::SetLink { .. } => Part::Representor,
            Self::AddBridge { .. } | Self::RemovePort { .. } | Self::SetPort { .. } => Part::Port,
            Self::SetNumVfs { .. } | Self::SetFirmware { .. } => Part::Dpu,
        }
    }

    /// The reason of the Event that tells of it.
    pub fn event_reason(&self) -> &'static str {
        match self {
            Self::Register { .. } => "Registered",
            Self::ClaimMac { .. } => "MacClaimed",
            Self::Release { .. } => "Released",
            Self::AddBridge { .. } => "BridgeAdded",
            Self::RemovePort { .. } => "PortRemoved",
            Self::Unplug { .. } => "Unplugged",
            Self::Hotplug { .. } => "Plugged",
            Self::Modify { .. } => "Modified",
            Self::SetLink { .. } => "RepresentorSet",
            Self::SetPort { .. } => "PortSet",
            Self::SetNumVfs { .. } => "VfsSet",
            Self::SetFirmware { .. } => "FirmwareSet",
        }
    }

    /// What traffic or driver it disturbs, for a person who reads the plan; `None`: nothing that is in service.
    pub fn disturbs(&self) -> Option<String> {
        match self {
            Self::Unplug { target, in_use: true, .. } => Some(format!("the host's driver loses {target}")),
            Self::RemovePort { name, owner, .. } => {
                Some(format!("traffic of {} through {name} ends", owner.device))
            }
            Self::SetLink { sf, change: LinkChange { up: Some(false), .. }, .. } => {
                Some(format!("the driver behind {} sees its link go down", sf.representor))
            }
            Self::SetPort { name, settings, present: Some(present), .. } => {
                port_disturbance(name, settings, present)
            }
            Self::SetNumVfs { present: 0, .. } => None,
            Self::SetNumVfs { pf, present, .. } => {
                Some(format!("the host loses the {present} VFs that PF {pf} has now"))
            }
            Self::Register { .. }
            | Self::ClaimMac { .. }
            | Self::Release { .. }
            | Self::Unplug { .. }
            | Self::Hotplug { .. }
            | Self::Modify { .. }
            | Self::SetLink { .. }
            | Self::SetPort { .. }
            | Self::AddBridge { .. }
            | Self::SetFirmware { .. } => None,
        }
    }
}

/// What traffic feels when a port that is in service is brought to other settings.
fn port_disturbance(name: &IfName, settings: &PortSettings, present: &Port) -> Option<String> {
    if present.bridge != settings.bridge {
        return Some(format!("traffic through {name} moves from {} to {}", present.bridge, settings.bridge));
    }
    if present.interface_type != settings.interface_type {
        return Some(format!("traffic through {name} stops while it is attached anew"));
    }
    (!present.has_vlans_of(settings)).then(|| format!("traffic through {name} changes its VLANs"))
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register { device, macs } if macs.is_empty() => write!(f, "register {}", device.key),
            Self::Register { device, macs } => {
                let macs: Vec<_> = macs.iter().map(ToString::to_string).collect();
                write!(f, "register {} with MAC {}", device.key, macs.join(" and "))
            }
            Self::ClaimMac { device, mac, .. } => write!(f, "claim MAC {mac} for {}", device.key),
            Self::Release { device } => write!(f, "release {}", device.key),
            Self::AddBridge { name, datapath_type } if datapath_type.is_empty() => {
                write!(f, "add bridge {name}")
            }
            Self::AddBridge { name, datapath_type } => {
                write!(f, "add bridge {name} with datapath {datapath_type}")
            }
            Self::RemovePort { name, owner, why, .. } => {
                write!(f, "remove OVS port {name} of {}: {why}", owner.device)
            }
            Self::Unplug { device, target, why, .. } => write!(f, "unplug {target} of {}: {why}", device.key),
            Self::Hotplug { device, request } => {
                let HotplugRequest {
                    uplink, mac, mtu, max_queues, queue_size, transitional, sf_number, ..
                } = request;
                let kind = if *transitional { "a transitional function" } else { "a function" };
                write!(
                    f,
                    "plug {kind} for {} on {uplink}: MAC {mac}, MTU {mtu}, {max_queues} queues of {queue_size}",
                    device.key
                )?;
                sf_number.map_or(Ok(()), |number| write!(f, ", SF {number}"))
            }
            Self::Modify { device, target, change } if change.is_empty() => {
                write!(f, "take back the settings kept for {target} of {}", device.key)
            }
            Self::Modify { device, target, change } => write!(f, "set {target} of {}: {change}", device.key),
            Self::SetLink { device, sf, change } => {
                write!(f, "set representor {} of {}: {change}", sf.representor, device.key)
            }
            Self::SetPort { device, name, settings, .. } => {
                write!(f, "put {name} of {} on bridge {}", device.key, settings.bridge)?;
                settings.tag.map_or(Ok(()), |tag| write!(f, ", tag {tag}"))
            }
            Self::SetNumVfs { pf, num_vfs, .. } => write!(f, "set sriov_numvfs of PF {pf} to {num_vfs}"),
            Self::SetFirmware { port, values } => {
                let values: Vec<_> = values.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "set firmware of {port} for the next cold boot: {}", values.join(" "))
            }
        }
    }
}
