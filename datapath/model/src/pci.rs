//! Values of PCI Express and of virtio queues: [`Bdf`], [`Vuid`], [`PfId`], [`VfId`], [`QueueSize`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::net::{ParseError, name_type, ranged, text_serde};

/// A PCI bus, device and function as the controller numbers them (`85:00.3`), without a domain.
///
/// `00:00.0` is not a value: the controller reports it for a function that the host has not enumerated, and here that
/// is `Option::None`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bdf(u16);

impl Bdf {
    const WANTED: &str = "a PCI address such as 85:00.3 that is not 00:00.0";

    /// From the 16 bits of a routing id, `bus << 8 | device << 3 | function`; `None` for zero.
    pub fn from_raw(raw: u16) -> Option<Self> {
        (raw != 0).then_some(Self(raw))
    }

    /// The 16 bits of the routing id (`bdf_raw` of a recovery file).
    pub fn raw(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{:x}", self.0 >> 8, self.0 >> 3 & 0x1f, self.0 & 7)
    }
}

impl fmt::Debug for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Bdf {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let hex = |digits: &str, len: usize, max: u16| {
            (digits.len() == len && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .then(|| u16::from_str_radix(digits, 16).ok().filter(|value| *value <= max))
                .flatten()
        };
        let parse = || {
            let (bus, rest) = text.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            Self::from_raw(hex(bus, 2, 0xff)? << 8 | hex(device, 2, 0x1f)? << 3 | hex(function, 1, 7)?)
        };
        parse().ok_or_else(|| ParseError::new(text, Self::WANTED))
    }
}
text_serde!(Bdf);

fn is_vuid(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

name_type!(
    /// A vendor unique id of a function, such as `VNETS1D0F0` or, for the first VF, `VNETS0D0F2VF1`.
    ///
    /// It names a slot as much as a function: a later function in the same slot bears the same VUID. So it is
    /// believed only together with the function's MAC and SF.
    Vuid, is_vuid, "a VUID of 1 to 64 letters and digits"
);

ranged!(
    /// The index of a physical function at the controller: static PFs first, hot-plugged ones above them.
    PfId(u16) in 0..=1023, "a PF index from 0 to 1023"
);

ranged!(
    /// The index of a virtual function of a PF, from 0.
    VfId(u16) in 0..=1023, "a VF index from 0 to 1023"
);

/// The size of a virtqueue in descriptors: a power of two from 2 to 32768 (virtio 1.2, section 2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct QueueSize(u16);

impl QueueSize {
    /// That of a function that nobody gave a size (`max_queues_size` in the guide's `virtnet list`).
    pub const DEFAULT: Self = Self(256);

    /// Descriptors in the queue.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u32> for QueueSize {
    type Error = ParseError;
    fn try_from(value: u32) -> Result<Self, ParseError> {
        if (2..=32768).contains(&value) && value.is_power_of_two() {
            Ok(Self(value as u16))
        } else {
            Err(ParseError::new(value, "a power of two from 2 to 32768"))
        }
    }
}

impl From<QueueSize> for u32 {
    fn from(value: QueueSize) -> Self {
        u32::from(value.0)
    }
}

impl fmt::Display for QueueSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bdf_and_its_raw_form_agree_with_the_guides_recovery_file() {
        let bdf = Bdf::from_raw(26624).unwrap();
        assert_eq!(bdf.to_string(), "68:00.0");
        assert_eq!("68:00.0".parse::<Bdf>().unwrap(), bdf);
        assert_eq!("85:04.5".parse::<Bdf>().unwrap().to_string(), "85:04.5");
    }

    #[test]
    fn an_address_that_no_host_gave_is_no_bdf() {
        for text in ["00:00.0", "", "85:00", "85:20.0", "85:00.8", "0000:85:00.0", "+5:00.0"] {
            assert!(text.parse::<Bdf>().is_err(), "{text}");
        }
    }

    #[test]
    fn queue_sizes_are_powers_of_two() {
        for good in [2, 256, 1024, 32768] {
            assert!(QueueSize::try_from(good).is_ok(), "{good}");
        }
        for bad in [0, 1, 3, 1000, 65536] {
            assert!(QueueSize::try_from(bad).is_err(), "{bad}");
        }
    }
}
