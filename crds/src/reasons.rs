//! The table of reasons: every reason that a condition can give, what it means, and who acts on it.

use std::fmt;

/// Who acts next. Decides between kstatus's `Reconciling` and `Stalled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outlook {
    /// Nobody: all is as wanted. `Ready` is True.
    Ready,
    /// The agent or the operator, which is at it. `Reconciling` is True.
    Working,
    /// The host, the firmware, another object or another part of the DPU; it goes on by itself when they have.
    /// `Reconciling` is True.
    Waiting,
    /// A person, who must change the spec. `Stalled` is True.
    Stalled,
}

macro_rules! reasons {
    ($($name:ident $outlook:ident [$($condition:literal),+] $meaning:literal;)+) => {
        /// Why a condition is as it is, in one word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $meaning] $name,)+
        }

        impl Reason {
            /// All reasons, in the table's order.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word that conditions bear.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }

            /// Who acts next.
            #[must_use]
            pub const fn outlook(self) -> Outlook {
                match self { $(Self::$name => Outlook::$outlook),+ }
            }

            /// What it means, for the reference.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning),+ }
            }

            /// The types of the conditions that it is given for.
            #[must_use]
            pub const fn conditions(self) -> &'static [&'static str] {
                match self { $(Self::$name => &[$($condition),+]),+ }
            }
        }
    };
}

reasons! {
    Ready Ready ["Ready", "FunctionReady", "RepresentorReady", "PortReady"] "Read back as wanted.";
    Creating Working ["Ready", "FunctionReady"] "The function is being made.";
    Applying Working ["Ready", "FunctionReady", "RepresentorReady", "PortReady"] "A change is being made.";
    Deleting Working ["Ready", "FunctionReady", "RepresentorReady", "PortReady"] "What the device has on the DPU is being removed.";
    FunctionAbsent Waiting ["RepresentorReady", "PortReady"] "There is no function yet.";
    WaitingForHost Waiting ["Ready", "FunctionReady"] "The host has not given the function a PCI address yet, or no driver is up.";
    HostOff Waiting ["Ready", "FunctionReady"] "The host is off.";
    VfAbsent Waiting ["Ready", "FunctionReady"] "The host has not made the VF: its sriov_numvfs is too small.";
    DriverLoaded Waiting ["Ready", "FunctionReady"] "The controller refused a change because the host's driver has the function.";
    RebindPending Waiting ["Ready", "FunctionReady"] "A change waits until the host's driver is unbound.";
    ReplugPending Waiting ["Ready", "FunctionReady"] "A change needs the function plugged anew, and rebindPolicy does not allow it now; or the machine behind its socket started anew.";
    RestartPending Waiting ["Ready", "RestartRequired"] "The controller must be restarted for a setting to take effect.";
    ColdBootPending Waiting ["Ready", "RebootRequired", "FirmwareConfigured"] "Firmware values take effect at the next cold boot.";
    FirmwareDiffers Waiting ["FirmwareConfigured"] "Firmware values are not those wanted, and the policy is to report only.";
    SriovPending Waiting ["Ready"] "The wanted number of VFs can not be set now.";
    NoFreeSlot Waiting ["Ready", "FunctionReady"] "Every hot-plug slot is taken, or the DPU has none.";
    SfExhausted Waiting ["Ready", "FunctionReady", "RepresentorReady", "PortReady"] "PF_TOTAL_SF of the port is spent.";
    NoSuchPf Waiting ["Ready", "FunctionReady"] "Firmware has no static PF of this index.";
    VfOutOfRange Waiting ["Ready", "FunctionReady"] "Firmware gives the PF fewer VFs.";
    EmulationDisabled Waiting ["Ready", "FunctionReady"] "VIRTIO_NET_EMULATION_ENABLE is 0.";
    UplinkAbsent Waiting ["Ready", "FunctionReady"] "The uplink is not there in the present LAG configuration.";
    QueuesAboveLimit Stalled ["Ready", "FunctionReady"] "More or larger queues than MSI-X vectors and the device allow.";
    MsixAboveLimit Stalled ["Ready", "FunctionReady"] "More MSI-X vectors than firmware gives.";
    FeatureUnsupported Stalled ["Ready", "FunctionReady"] "A wanted feature is not offered by this DPU.";
    TransitionalUnsupported Stalled ["Ready", "FunctionReady"] "This kind of function can not be transitional here, or no I/O space is left for another.";
    MtuFixed Stalled ["Ready", "FunctionReady"] "The MTU of a static PF can not be changed.";
    MsixFixed Stalled ["Ready", "FunctionReady"] "The MSI-X vectors of a PF can not be changed in this generation.";
    SfNumberInUse Waiting ["Ready", "FunctionReady"] "The wanted SF number is in use on the port.";
    FunctionClaimed Waiting ["Ready", "FunctionReady", "RepresentorReady", "PortReady"] "Another device has the same function.";
    MacClaimed Waiting ["Bound", "Ready", "FunctionReady"] "Another device or function has the same MAC address.";
    Undecodable Stalled ["Ready", "FunctionReady", "RepresentorReady"] "The spec can not be understood by this version.";
    RepresentorAbsent Waiting ["Ready", "RepresentorReady"] "The representor netdev has not appeared.";
    RepresentorDown Working ["Ready", "RepresentorReady"] "The representor is down and being set up.";
    RepresentorMismatch Waiting ["Ready", "RepresentorReady"] "A netdev of the representor's name is another's, so it is left alone.";
    BridgeNotFound Waiting ["Ready", "PortReady"] "There is no bridge of this name.";
    PortConflict Waiting ["Ready", "PortReady"] "A port of the representor's name belongs to someone else.";
    PortError Waiting ["Ready", "PortReady"] "Open vSwitch has the port and could not attach it.";
    ControllerUnavailable Waiting ["Ready", "FunctionReady", "RepresentorReady", "PortReady"] "The virtio-net controller can not be reached.";
    ControllerUpdating Waiting ["Ready", "FunctionReady", "RepresentorReady", "PortReady", "Updating"] "The controller's live update must end first.";
    SwitchUnavailable Waiting ["Ready", "FunctionReady", "RepresentorReady", "PortReady"] "Open vSwitch can not be reached.";
    LinksUnavailable Waiting ["Ready", "RepresentorReady"] "Netdevs can not be read or set.";
    StepFailed Waiting ["Ready", "FunctionReady", "RepresentorReady", "PortReady"] "A step failed; it is tried again after a while.";
    NoDpuFits Waiting ["Bound", "Ready"] "No DPU that is selected has room.";
    NoDpuSelected Waiting ["Bound", "Ready"] "The selector matches no DPU.";
    Progressing Working ["Ready"] "Devices of the set are being made, changed or removed.";
    DevicesNotReady Waiting ["Ready"] "Not all devices of the set are Ready.";
    DeviceStalled Stalled ["Ready"] "A device with the set's present template does not go on before that is changed.";
    DeviceConflict Waiting ["Ready"] "A device's name, or a field of it, is someone else's.";
    DeviceRefused Waiting ["Ready"] "The API refused a device of the set; it is tried again after a while.";
    DpuUnreachable Waiting ["Ready"] "The Lease of the DPU's agent has expired.";
    DpuGone Waiting ["Ready"] "The Dpu object is gone.";
    Unsupported Stalled ["Ready", "FunctionReady"] "The controller of this DPU can not do what is wanted.";
}

impl Reason {
    /// Whether the agent or the operator is at work to end this state.
    #[must_use]
    pub const fn is_working(self) -> bool {
        matches!(self.outlook(), Outlook::Working)
    }

    /// Whether an agent that makes no function for this reason does so for what its DPU is or has, so that another DPU may
    /// do.
    #[must_use]
    pub const fn is_of_the_dpu(self) -> bool {
        matches!(
            self,
            Self::NoFreeSlot
                | Self::SfExhausted
                | Self::SfNumberInUse
                | Self::NoSuchPf
                | Self::VfOutOfRange
                | Self::EmulationDisabled
                | Self::UplinkAbsent
                | Self::FunctionClaimed
                | Self::MsixAboveLimit
                | Self::TransitionalUnsupported
                | Self::FeatureUnsupported
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
