//! virtio-net feature bits by name (virtio 1.2, sections 5.1.3 and 6): [`Feature`] and the set [`Features`].

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::net::{ParseError, text_serde};

macro_rules! features {
    ($($(#[$doc:meta])* $variant:ident = $name:literal @ $bit:literal,)*) => {
        /// A feature bit, named as the specification names it without its `VIRTIO_NET_F_` or `VIRTIO_F_` prefix.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum Feature {
            $($(#[$doc])* $variant,)*
        }

        impl Feature {
            /// Every feature that has a name here, by bit.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The specification's name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The number of the bit, 0 to 63.
            pub fn bit(self) -> u32 {
                match self {
                    $(Self::$variant => $bit,)*
                }
            }
        }
    };
}

features! {
    /// The device handles packets with partial checksum.
    Csum = "CSUM" @ 0,
    /// The driver handles packets with partial checksum.
    GuestCsum = "GUEST_CSUM" @ 1,
    /// Offloads are reconfigured through the control queue.
    CtrlGuestOffloads = "CTRL_GUEST_OFFLOADS" @ 2,
    /// The device reports its maximum MTU.
    Mtu = "MTU" @ 3,
    /// The device has a MAC address.
    Mac = "MAC" @ 5,
    /// The driver can receive TSOv4.
    GuestTso4 = "GUEST_TSO4" @ 7,
    /// The driver can receive TSOv6.
    GuestTso6 = "GUEST_TSO6" @ 8,
    /// The driver can receive TSO with ECN.
    GuestEcn = "GUEST_ECN" @ 9,
    /// The driver can receive UFO.
    GuestUfo = "GUEST_UFO" @ 10,
    /// The device can receive TSOv4.
    HostTso4 = "HOST_TSO4" @ 11,
    /// The device can receive TSOv6.
    HostTso6 = "HOST_TSO6" @ 12,
    /// The device can receive TSO with ECN.
    HostEcn = "HOST_ECN" @ 13,
    /// The device can receive UFO.
    HostUfo = "HOST_UFO" @ 14,
    /// The driver can merge receive buffers.
    MrgRxbuf = "MRG_RXBUF" @ 15,
    /// The configuration status field exists.
    Status = "STATUS" @ 16,
    /// The control queue exists.
    CtrlVq = "CTRL_VQ" @ 17,
    /// The control queue sets the receive mode.
    CtrlRx = "CTRL_RX" @ 18,
    /// The control queue filters VLANs.
    CtrlVlan = "CTRL_VLAN" @ 19,
    /// Further receive modes can be set by the control queue.
    CtrlRxExtra = "CTRL_RX_EXTRA" @ 20,
    /// The driver can send gratuitous packets.
    GuestAnnounce = "GUEST_ANNOUNCE" @ 21,
    /// Several queue pairs with automatic steering.
    Mq = "MQ" @ 22,
    /// The control queue sets the MAC address.
    CtrlMacAddr = "CTRL_MAC_ADDR" @ 23,
    /// Legacy: a notification when the ring runs empty.
    NotifyOnEmpty = "NOTIFY_ON_EMPTY" @ 24,
    /// Legacy: descriptors may have any layout.
    AnyLayout = "ANY_LAYOUT" @ 27,
    /// Indirect descriptors.
    IndirectDesc = "INDIRECT_DESC" @ 28,
    /// Notifications are suppressed by ring index.
    EventIdx = "EVENT_IDX" @ 29,
    /// The device complies with version 1 of the specification.
    Version1 = "VERSION_1" @ 32,
    /// Memory access by the platform's rules (an IOMMU may be on the way).
    AccessPlatform = "ACCESS_PLATFORM" @ 33,
    /// Packed virtqueues.
    RingPacked = "RING_PACKED" @ 34,
    /// Buffers are used in the order they were made available.
    InOrder = "IN_ORDER" @ 35,
    /// Memory accesses are ordered as the platform orders them.
    OrderPlatform = "ORDER_PLATFORM" @ 36,
    /// The device supports SR-IOV.
    SrIov = "SR_IOV" @ 37,
    /// The driver passes data in its notifications.
    NotificationData = "NOTIFICATION_DATA" @ 38,
    /// The device gives the data for notifications.
    NotifConfigData = "NOTIF_CONFIG_DATA" @ 39,
    /// Queues can be reset one by one.
    RingReset = "RING_RESET" @ 40,
    /// The device has administration virtqueues.
    AdminVq = "ADMIN_VQ" @ 41,
    /// The device keeps statistics.
    DeviceStats = "DEVICE_STATS" @ 50,
    /// Hashes of inner headers.
    HashTunnel = "HASH_TUNNEL" @ 51,
    /// Notification coalescing for each queue.
    VqNotfCoal = "VQ_NOTF_COAL" @ 52,
    /// Notification coalescing.
    NotfCoal = "NOTF_COAL" @ 53,
    /// The driver takes USOv4.
    GuestUso4 = "GUEST_USO4" @ 54,
    /// The driver takes USOv6.
    GuestUso6 = "GUEST_USO6" @ 55,
    /// The device can receive USO.
    HostUso = "HOST_USO" @ 56,
    /// The device reports a hash with each packet.
    HashReport = "HASH_REPORT" @ 57,
    /// The driver gives the exact length of headers.
    GuestHdrlen = "GUEST_HDRLEN" @ 59,
    /// Receive-side scaling.
    Rss = "RSS" @ 60,
    /// The device reports merged segments and duplicated ACKs.
    RscExt = "RSC_EXT" @ 61,
    /// The device may be the standby of another with the same MAC address.
    Standby = "STANDBY" @ 62,
    /// The device reports its speed and duplex mode.
    SpeedDuplex = "SPEED_DUPLEX" @ 63,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Feature {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL.iter().copied().find(|feature| feature.name() == text).ok_or_else(|| {
            ParseError::new(text, "a feature name of the virtio specification such as CSUM or MQ")
        })
    }
}
text_serde!(Feature);

impl Feature {
    /// What a device must offer with this feature and a driver must accept with it (virtio 1.2, section 5.1.3.1): one of
    /// each group. Empty for a feature that stands alone.
    pub fn needs(self) -> &'static [&'static [Self]] {
        use Feature::*;
        match self {
            GuestTso4 | GuestTso6 | GuestUfo | GuestUso4 | GuestUso6 => &[&[GuestCsum]],
            GuestEcn => &[&[GuestTso4, GuestTso6]],
            HostTso4 | HostTso6 | HostUfo | HostUso => &[&[Csum]],
            HostEcn | RscExt => &[&[HostTso4, HostTso6]],
            CtrlGuestOffloads | CtrlRx | CtrlRxExtra | CtrlVlan | GuestAnnounce | Mq | CtrlMacAddr
            | NotfCoal | VqNotfCoal | Rss | HashReport => &[&[CtrlVq]],
            HashTunnel => &[&[CtrlVq], &[Rss, HashReport]],
            Csum | GuestCsum | Mtu | Mac | MrgRxbuf | Status | CtrlVq | NotifyOnEmpty | AnyLayout
            | IndirectDesc | EventIdx | Version1 | AccessPlatform | RingPacked | InOrder | OrderPlatform
            | SrIov | NotificationData | NotifConfigData | RingReset | AdminVq | DeviceStats
            | GuestHdrlen | Standby | SpeedDuplex => &[],
        }
    }
}

/// A set of features, ordered by bit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Features(BTreeSet<Feature>);

impl Features {
    /// What the vendor's controller offers by default (its later guides list the bits; TSO towards the driver is absent).
    pub fn controller_default() -> Self {
        use Feature::*;
        [
            Csum,
            GuestCsum,
            Mtu,
            Mac,
            HostTso4,
            HostTso6,
            MrgRxbuf,
            Status,
            CtrlVq,
            CtrlRx,
            Mq,
            CtrlMacAddr,
            Version1,
        ]
        .into_iter()
        .collect()
    }

    /// These features with those that no function goes without (MAC and VERSION_1: a driver of today refuses a device that
    /// lacks the latter) and those that each of them needs, the first of several that would do. A driver takes no
    /// device that offers a feature without what it needs.
    #[must_use]
    pub fn completed(&self) -> Self {
        let mut complete = self.clone();
        complete.0.extend([Feature::Mac, Feature::Version1]);
        while let Some((_, group)) = complete.unmet() {
            complete.0.insert(group[0]);
        }
        complete
    }

    /// What a driver that knows the features `driver` accepts of these: `None` where it does not take the device, as the
    /// device offers a feature without what that needs, or is neither of today nor `transitional`.
    pub fn negotiated(&self, driver: &Self, transitional: bool) -> Option<Self> {
        if self.unmet().is_some() || !(transitional || self.contains(Feature::Version1)) {
            return None;
        }
        let mut accepted = Self(self.0.intersection(&driver.0).copied().collect());
        // What the driver lacks takes with it what needs that.
        while let Some((feature, _)) = accepted.unmet() {
            accepted.0.remove(&feature);
        }
        Some(accepted)
    }

    /// A feature of the set of which a need is not met, with what would meet it.
    fn unmet(&self) -> Option<(Feature, &'static [Feature])> {
        let needs =
            self.iter().flat_map(|feature| feature.needs().iter().map(move |group| (feature, *group)));
        needs.into_iter().find(|(_, group)| !group.iter().any(|needed| self.contains(*needed)))
    }

    /// Whether every feature of `self` is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// The features of `self` that `other` lacks.
    pub fn missing_from<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Feature> + 'a {
        self.0.difference(&other.0).copied()
    }

    /// Whether the feature is in the set.
    pub fn contains(&self, feature: Feature) -> bool {
        self.0.contains(&feature)
    }

    /// The features, by bit.
    pub fn iter(&self) -> impl Iterator<Item = Feature> + '_ {
        self.0.iter().copied()
    }

    /// The bits that a text has: up to 64 in hexadecimal, after 0x.
    pub fn bits_of(text: &str) -> Option<u64> {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
        // A number may have a sign.
        let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u64::from_str_radix(digits, 16).ok().filter(|_| plain)
    }

    /// The features of these bits, or the first bit that is none.
    pub fn from_bits(bits: u64) -> Result<Self, u32> {
        let each = (0..u64::BITS).filter(|bit| bits >> bit & 1 == 1);
        each.map(|bit| Feature::ALL.iter().copied().find(|feature| feature.bit() == bit).ok_or(bit)).collect()
    }

    /// With the feature, or without it.
    #[must_use]
    pub fn with(mut self, feature: Feature, there: bool) -> Self {
        if there {
            self.0.insert(feature);
        } else {
            self.0.remove(&feature);
        }
        self
    }

    /// The 64 bits that a driver reads.
    pub fn bits(&self) -> u64 {
        self.iter().fold(0, |bits, feature| bits | 1 << feature.bit())
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        Self(features.into_iter().collect())
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, feature) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{feature}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_are_unique_and_in_order() {
        let bits: Vec<_> = Feature::ALL.iter().map(|feature| feature.bit()).collect();
        assert!(bits.is_sorted_by(|a, b| a < b), "{bits:?}");
        for feature in Feature::ALL {
            assert_eq!(feature.name().parse::<Feature>().unwrap(), *feature);
        }
        assert!("TURBO".parse::<Feature>().is_err());
    }

    #[test]
    fn the_bits_are_those_of_the_specification() {
        let set: Features = [Feature::Csum, Feature::Mq, Feature::Version1].into_iter().collect();
        assert_eq!(set.bits(), 1 | 1 << 22 | 1 << 32);
        assert_eq!(set.to_string(), "CSUM,MQ,VERSION_1");
        assert_eq!(Features::from_bits(set.bits()), Ok(set));
        assert_eq!(Features::from_bits(1 | 1 << 44), Err(44));
    }

    fn set(names: &str) -> Features {
        names.split_whitespace().map(|name| name.parse::<Feature>().unwrap()).collect()
    }

    #[test]
    fn features_come_with_what_they_need() {
        assert_eq!(set("").completed().to_string(), "MAC,VERSION_1");
        assert_eq!(set("MQ").completed().to_string(), "MAC,CTRL_VQ,MQ,VERSION_1");
        assert_eq!(set("HOST_ECN").completed().to_string(), "CSUM,MAC,HOST_TSO4,HOST_ECN,VERSION_1");
        let six = "CSUM,MAC,HOST_TSO6,HOST_ECN,VERSION_1";
        assert_eq!(set("HOST_ECN HOST_TSO6").completed().to_string(), six, "one of several is enough");
        assert_eq!(set("HASH_TUNNEL").completed().to_string(), "MAC,CTRL_VQ,VERSION_1,HASH_TUNNEL,RSS");
        let default = Features::controller_default();
        assert_eq!(default.completed(), default);
    }

    #[test]
    fn a_driver_accepts_what_both_have_and_nothing_without_what_it_needs() {
        let driver = set("CSUM MAC MQ VERSION_1");
        let offered = set("CSUM CTRL_VQ MAC MQ STATUS VERSION_1");
        assert_eq!(offered.negotiated(&driver, false).unwrap().to_string(), "CSUM,MAC,VERSION_1");
        assert_eq!(set("MQ VERSION_1").negotiated(&driver, false), None, "no CTRL_VQ beside MQ");
        assert_eq!(set("CSUM").negotiated(&driver, false), None, "no device of today");
        assert_eq!(set("CSUM").negotiated(&driver, true).unwrap().to_string(), "CSUM");
    }
}
