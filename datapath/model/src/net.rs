//! Values of Ethernet and of Linux networking: [`Mac`], [`Mtu`], [`VlanId`], [`IfName`], [`BridgeName`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text or number that is not a value of the wanted type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {wanted}")]
pub struct ParseError {
    /// What was given.
    pub value: String,
    /// What would have been accepted, as a noun phrase.
    pub wanted: &'static str,
}

impl ParseError {
    pub(crate) fn new(value: impl fmt::Display, wanted: &'static str) -> Self {
        Self { value: value.to_string(), wanted }
    }
}

/// Serde through `FromStr` and `Display`, for types whose wire form is their text.
macro_rules! text_serde {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = crate::ParseError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}
pub(crate) use text_serde;

/// A unicast MAC address that is not all zero. Written in lower case with colons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    const WANTED: &str = "a unicast MAC address such as 0c:c4:7a:ff:22:93";

    /// The address of these octets, unless it is multicast or all zero.
    pub fn new(octets: [u8; 6]) -> Result<Self, ParseError> {
        let mac = Self(octets);
        if octets[0] & 1 == 1 || octets == [0; 6] {
            return Err(ParseError::new(mac, Self::WANTED));
        }
        Ok(mac)
    }

    /// A locally administered address: `02` followed by `tail`.
    pub fn local(tail: [u8; 5]) -> Self {
        let [a, b, c, d, e] = tail;
        Self([0x02, a, b, c, d, e])
    }

    /// The six octets, first on the wire first.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }

    /// The address `offset` above this one, as the controller numbers static PFs from `pf_mac` upwards. `None` where
    /// the sum is no unicast address of 48 bits.
    pub fn checked_add(self, offset: u64) -> Option<Self> {
        let value = self.0.iter().fold(0u64, |acc, octet| acc << 8 | u64::from(*octet));
        let sum = value.checked_add(offset).filter(|sum| *sum < 1 << 48)?;
        let [_, _, a, b, c, d, e, f] = sum.to_be_bytes();
        Self::new([a, b, c, d, e, f]).ok()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::new(text, Self::WANTED);
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(bad)?;
            *octet = part
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit())
                .then(|| u8::from_str_radix(part, 16).ok())
                .flatten()
                .ok_or_else(bad)?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        Self::new(octets).map_err(|_| bad())
    }
}
text_serde!(Mac);

/// A number type restricted to an inclusive range, with its wire form the plain number.
macro_rules! ranged {
    ($(#[$doc:meta])* $name:ident($inner:ty) in $min:literal ..= $max:literal, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u32", into = "u32")]
        pub struct $name($inner);

        impl $name {
            /// The least value.
            pub const MIN: Self = Self($min);
            /// The greatest value.
            pub const MAX: Self = Self($max);

            /// The plain number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl TryFrom<u32> for $name {
            type Error = crate::ParseError;
            fn try_from(value: u32) -> Result<Self, Self::Error> {
                if (u32::from(Self::MIN.0)..=u32::from(Self::MAX.0)).contains(&value) {
                    Ok(Self(value as $inner))
                } else {
                    Err(crate::ParseError::new(value, $wanted))
                }
            }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> Self {
                u32::from(value.0)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, f)
            }
        }
    };
}
pub(crate) use ranged;

ranged!(
    /// An MTU in bytes, 68 to 9978: the least of virtio 1.2, section 5.1.4.1, and the most that the device takes.
    Mtu(u16) in 68..=9978, "an MTU from 68 to 9978"
);

impl Mtu {
    /// The Ethernet default, 1500.
    pub const DEFAULT: Self = Self(1500);
}

ranged!(
    /// A VLAN id of IEEE 802.1Q, 1 to 4094.
    VlanId(u16) in 1..=4094, "a VLAN id from 1 to 4094"
);

/// A name that Linux and Open vSwitch both take: 1 to 15 bytes of printable ASCII without `/`, not `.` or `..`.
fn is_interface_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
        && text != "."
        && text != ".."
}

/// A checked string newtype whose wire form is the string.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:expr, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::ParseError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if $check(text) { Ok(Self(text.to_owned())) } else { Err(crate::ParseError::new(text, $wanted)) }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&self.0, f)
            }
        }
        crate::net::text_serde!($name);
    };
}
pub(crate) use name_type;

name_type!(
    /// The name of a network interface (IFNAMSIZ less the terminating zero: at most 15 bytes).
    IfName, is_interface_name, "an interface name of 1 to 15 printable characters without a slash"
);

name_type!(
    /// The name of an Open vSwitch bridge, which is also the name of its local interface.
    BridgeName, is_interface_name, "a bridge name of 1 to 15 printable characters without a slash"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_read_in_any_case_and_written_in_lower_case() {
        let mac: Mac = "0C:C4:7A:FF:22:93".parse().unwrap();
        assert_eq!(mac.to_string(), "0c:c4:7a:ff:22:93");
        assert_eq!(serde_json::to_string(&mac).unwrap(), "\"0c:c4:7a:ff:22:93\"");
    }

    #[test]
    fn malformed_multicast_and_zero_macs_are_refused() {
        for text in [
            "",
            "0c:c4:7a:ff:22",
            "0c:c4:7a:ff:22:93:00",
            "0c-c4-7a-ff-22-93",
            "c:c4:7a:ff:22:93",
            "0c:c4:7a:ff:22:+3",
            "0c:c4:7a:ff:22:9g",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn static_pf_macs_count_upwards_and_stop_at_the_end_of_the_space() {
        let base: Mac = "00:11:22:33:44:ff".parse().unwrap();
        assert_eq!(base.checked_add(1), Some("00:11:22:33:45:00".parse().unwrap()));
        let last: Mac = "fe:ff:ff:ff:ff:ff".parse().unwrap();
        assert_eq!(last.checked_add(1), None, "the next address is multicast");
    }

    #[test]
    fn mtu_and_vlan_know_their_ranges() {
        assert!(Mtu::try_from(67).is_err() && Mtu::try_from(9979).is_err());
        assert_eq!(Mtu::try_from(68).unwrap(), Mtu::MIN);
        assert!(VlanId::try_from(0).is_err() && VlanId::try_from(4095).is_err());
        assert!(serde_json::from_str::<Mtu>("70000").is_err());
        assert_eq!(Mtu::try_from(67).unwrap_err().to_string(), "\"67\" is not an MTU from 68 to 9978");
    }

    #[test]
    fn interface_names_are_what_linux_and_ovs_take() {
        assert!("en3f0pf0sf2000".parse::<IfName>().is_ok());
        for text in ["", "sixteen-bytes-xx", "a/b", "a b", "..", "näme"] {
            assert!(text.parse::<IfName>().is_err(), "{text}");
            assert!(text.parse::<BridgeName>().is_err(), "{text}");
        }
    }
}
