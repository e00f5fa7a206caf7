//! Scalable functions: [`SfNumber`], the [`Uplink`] a function is put on, the [`EswitchPort`] that counts its SF, and the
//! representor's name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::net::{IfName, ParseError, ranged, text_serde};

ranged!(
    /// The number of a scalable function, unique on its port. The controller uses 1000 and above: static PFs from
    /// 1000, hot-plugged PFs from 2000, VFs from 3000 (the guide, section 1.1). The upper bound is what a representor name of 15 bytes holds.
    SfNumber(u16) in 0..=65535, "an SF number from 0 to 65535"
);

/// The network port that a function's traffic leaves by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Uplink {
    /// The first port.
    #[default]
    P0,
    /// The second port.
    P1,
    /// Both, as one link aggregation group.
    Bond,
}

impl Uplink {
    /// The port whose SFs a function on this uplink takes: a bond's are the first port's, its emulation manager.
    pub fn port(self) -> EswitchPort {
        match self {
            Self::P0 | Self::Bond => EswitchPort::P0,
            Self::P1 => EswitchPort::P1,
        }
    }
}

impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::P0 => "p0",
            Self::P1 => "p1",
            Self::Bond => "bond",
        })
    }
}

impl FromStr for Uplink {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "p0" => Ok(Self::P0),
            "p1" => Ok(Self::P1),
            "bond" => Ok(Self::Bond),
            _ => Err(ParseError::new(text, "p0, p1 or bond")),
        }
    }
}
text_serde!(Uplink);

/// A port of the embedded switch. With `PER_PF_NUM_SF=1` each has its own `PF_TOTAL_SF`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum EswitchPort {
    /// Port 0.
    P0,
    /// Port 1.
    P1,
}

impl EswitchPort {
    /// Both ports, in order.
    pub const ALL: [Self; 2] = [Self::P0, Self::P1];

    /// 0 or 1.
    pub fn index(self) -> u8 {
        match self {
            Self::P0 => 0,
            Self::P1 => 1,
        }
    }
}

impl fmt::Display for EswitchPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::P0 => "p0",
            Self::P1 => "p1",
        })
    }
}

impl FromStr for EswitchPort {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "p0" => Ok(Self::P0),
            "p1" => Ok(Self::P1),
            _ => Err(ParseError::new(text, "p0 or p1")),
        }
    }
}
text_serde!(EswitchPort);

/// The name that udev's rules give the representor of an SF by default: `en3f0pf0sf2000`, on port 1 `en3f1pf1sf2000`
/// (the guide, section 1.1).
pub fn representor_name(port: EswitchPort, sf: SfNumber) -> IfName {
    let index = port.index();
    let name = format!("en3f{index}pf{index}sf{sf}");
    name.parse().unwrap_or_else(|_| unreachable!("at most 15 letters and digits: {name}"))
}

/// The port and the number of the SF whose representor has this name; `None`: it is no name of an SF's representor.
pub fn sf_of(representor: &IfName) -> Option<(EswitchPort, SfNumber)> {
    let (_, port_name) = representor.as_str().strip_prefix("en3f")?.split_at_checked(1)?;
    let (index, number) = port_name.strip_prefix("pf")?.split_once("sf")?;
    let port = EswitchPort::ALL.into_iter().find(|port| port.index().to_string() == index)?;
    let number = number.parse().ok().and_then(|number: u32| SfNumber::try_from(number).ok())?;
    // Whatever else the text might be, it is the name of this one only.
    (representor_name(port, number) == *representor).then_some((port, number))
}

/// What the driver gives as the `phys_port_name` of the representor of this name, `pf0sf2000` for `en3f0pf0sf2000`; `None`:
/// it is no name of an SF's representor.
pub fn phys_port_name_of(representor: &IfName) -> Option<String> {
    sf_of(representor).map(|(port, number)| format!("pf{}sf{number}", port.index()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn representors_are_named_as_the_guide_names_them() {
        let number = |value: u32| SfNumber::try_from(value).unwrap();
        assert_eq!(representor_name(EswitchPort::P0, number(2000)).as_str(), "en3f0pf0sf2000");
        assert_eq!(representor_name(EswitchPort::P1, number(3503)).as_str(), "en3f1pf1sf3503");
        assert_eq!(representor_name(EswitchPort::P1, SfNumber::MAX).as_str().len(), 15);
    }

    #[test]
    fn the_name_of_a_representor_tells_its_port_name_and_no_other_name_does() {
        let told = |name: &str| phys_port_name_of(&name.parse().unwrap());
        assert_eq!(told("en3f0pf0sf2000").as_deref(), Some("pf0sf2000"));
        assert_eq!(told("en3f1pf1sf65535").as_deref(), Some("pf1sf65535"));
        for name in [
            "en3f",
            "en3f0pf1sf2000",
            "en3f2pf2sf2000",
            "en3f0pf0sf02000",
            "en3f0pf0sf+200",
            "en3f0pf0sf65536",
            "tap0",
        ] {
            assert_eq!(told(name), None, "{name}");
        }
    }
}
