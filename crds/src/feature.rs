//! Names and bit numbers of virtio features, as the virtio specification 1.3 lists them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! features {
    ($($variant:ident $name:literal $bit:literal $doc:literal;)+) => {
        /// A feature of a virtio network device, by its name in the specification without its prefix
        /// (`VIRTIO_NET_F_` or `VIRTIO_F_`).
        #[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[schemars(inline)]
        pub enum Feature {
            $(
                #[doc = $doc]
                #[serde(rename = $name)]
                $variant,
            )+
        }

        impl Feature {
            /// All known features, by bit.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in manifests and in the specification.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// Number of the feature's bit, 0 to 63.
            #[must_use]
            pub const fn bit(self) -> u8 {
                match self { $(Self::$variant => $bit),+ }
            }
        }
    };
}

features! {
    Csum "CSUM" 0 "The device takes packets with partial checksums.";
    GuestCsum "GUEST_CSUM" 1 "The driver takes packets with partial checksums.";
    CtrlGuestOffloads "CTRL_GUEST_OFFLOADS" 2 "Receive offloads can be changed at run time.";
    Mtu "MTU" 3 "The device tells the driver its MTU.";
    Mac "MAC" 5 "The device tells the driver its MAC address.";
    GuestTso4 "GUEST_TSO4" 7 "The driver takes TSOv4.";
    GuestTso6 "GUEST_TSO6" 8 "The driver takes TSOv6.";
    GuestEcn "GUEST_ECN" 9 "The driver takes TSO with ECN.";
    GuestUfo "GUEST_UFO" 10 "The driver takes UFO.";
    HostTso4 "HOST_TSO4" 11 "The device takes TSOv4.";
    HostTso6 "HOST_TSO6" 12 "The device takes TSOv6.";
    HostEcn "HOST_ECN" 13 "The device takes TSO with ECN.";
    HostUfo "HOST_UFO" 14 "The device takes UFO.";
    MrgRxbuf "MRG_RXBUF" 15 "Received packets may span several buffers.";
    Status "STATUS" 16 "The device tells the driver its link state.";
    CtrlVq "CTRL_VQ" 17 "There is a control queue.";
    CtrlRx "CTRL_RX" 18 "The receive mode can be set by the control queue.";
    CtrlVlan "CTRL_VLAN" 19 "VLAN filters can be set by the control queue.";
    CtrlRxExtra "CTRL_RX_EXTRA" 20 "Further receive modes can be set by the control queue.";
    GuestAnnounce "GUEST_ANNOUNCE" 21 "The driver can announce itself on the network.";
    Mq "MQ" 22 "There are several pairs of queues.";
    CtrlMacAddr "CTRL_MAC_ADDR" 23 "The MAC address can be set by the control queue.";
    NotifyOnEmpty "NOTIFY_ON_EMPTY" 24 "Legacy: a notification when the ring runs empty.";
    AnyLayout "ANY_LAYOUT" 27 "Legacy: descriptors may have any layout.";
    IndirectDesc "INDIRECT_DESC" 28 "Indirect descriptors.";
    EventIdx "EVENT_IDX" 29 "Notifications are suppressed by ring index.";
    Version1 "VERSION_1" 32 "Compliance with virtio 1.0 and later.";
    AccessPlatform "ACCESS_PLATFORM" 33 "Memory access by the platform's rules (an IOMMU may be on the way).";
    RingPacked "RING_PACKED" 34 "Packed virtqueues.";
    InOrder "IN_ORDER" 35 "Buffers are used in the order they were made available.";
    OrderPlatform "ORDER_PLATFORM" 36 "Memory ordering by the platform's rules.";
    SrIov "SR_IOV" 37 "The function can have VFs.";
    NotificationData "NOTIFICATION_DATA" 38 "The driver passes extra data in its notifications.";
    NotifConfigData "NOTIF_CONFIG_DATA" 39 "The device gives the data for notifications.";
    RingReset "RING_RESET" 40 "One queue can be reset alone.";
    AdminVq "ADMIN_VQ" 41 "There is an administration queue.";
    DeviceStats "DEVICE_STATS" 50 "The device keeps statistics.";
    HashTunnel "HASH_TUNNEL" 51 "Hashes of inner headers.";
    VqNotfCoal "VQ_NOTF_COAL" 52 "Notification coalescing for each queue.";
    NotfCoal "NOTF_COAL" 53 "Notification coalescing.";
    GuestUso4 "GUEST_USO4" 54 "The driver takes USOv4.";
    GuestUso6 "GUEST_USO6" 55 "The driver takes USOv6.";
    HostUso "HOST_USO" 56 "The device takes USO.";
    HashReport "HASH_REPORT" 57 "The device reports a hash with each packet.";
    GuestHdrlen "GUEST_HDRLEN" 59 "The driver gives exact header lengths.";
    Rss "RSS" 60 "Receive-side scaling.";
    RscExt "RSC_EXT" 61 "The device reports merged segments and duplicated ACKs.";
    Standby "STANDBY" 62 "The device may be the standby of another with the same MAC address.";
    SpeedDuplex "SPEED_DUPLEX" 63 "The device reports speed and duplex.";
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is no feature's name.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error(
    "{name:?} is not the name of a virtio-net feature; the specification writes them like CSUM or MRG_RXBUF"
)]
pub struct UnknownFeature {
    /// The text that was read.
    pub name: String,
}

impl FromStr for Feature {
    type Err = UnknownFeature;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|feature| feature.name() == name)
            .ok_or_else(|| UnknownFeature { name: name.to_owned() })
    }
}
