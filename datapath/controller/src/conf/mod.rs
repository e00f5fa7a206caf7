//! `virtnet.conf` (the guide, section 1.1.1, and the later guides): [`Conf`]. Pure; the file is read by whoever starts a
//! controller.
//!
//! The text is checked in full: what is unknown, of the wrong kind, out of range or contradictory is told by line and key, all of it at
//! once, and nothing of such a file is used.

mod keys;
mod read;
mod reference;

use std::fmt;

use virtnet_model::{EswitchPort, Feature, Features, Generation, Uplink};

pub use keys::{KEYS, Key, Kind};
pub use reference::reference;

use crate::{EngineConfig, SfPool, StaticPfDefaults, UplinkMode, VfDefaults, VfMacs};
use keys::GENERATION;
use read::{Reader, Values};

/// The RDMA devices that SFs are made on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdmaDevices {
    /// Of port 0.
    pub p0: String,
    /// Of port 1.
    pub p1: String,
    /// Of the bond.
    pub lag: String,
}

impl Default for RdmaDevices {
    fn default() -> Self {
        Self { p0: "mlx5_0".to_owned(), p1: "mlx5_1".to_owned(), lag: "mlx5_bond_0".to_owned() }
    }
}

impl RdmaDevices {
    /// That of an uplink.
    pub fn of(&self, uplink: Uplink) -> &str {
        match uplink {
            Uplink::P0 => &self.p0,
            Uplink::P1 => &self.p1,
            Uplink::Bond => &self.lag,
        }
    }
}

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conf {
    /// What the engine is started with.
    pub engine: EngineConfig,
    /// The RDMA devices of the uplinks.
    pub rdma_devices: RdmaDevices,
    /// Whether functions are recovered after a restart.
    pub recovery: bool,
}

impl Default for Conf {
    fn default() -> Self {
        Self { engine: EngineConfig::default(), rdma_devices: RdmaDevices::default(), recovery: true }
    }
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: Option<usize>,
    /// The key with those of the objects around it, as in `vf.mac_base`; empty: the file as a whole.
    pub key: String,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.why)
    }
}

pub(crate) fn problem(line: Option<usize>, key: &str, why: String) -> Problem {
    Problem { line, key: key.to_owned(), why }
}

/// A file that is not used, for all of these reasons.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct ConfError(pub Vec<Problem>);

impl Conf {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ConfError> {
        let mut reader = Reader::new(text);
        let generation = match reader.peek(GENERATION).as_deref() {
            Some("later") => Generation::Later,
            _ => Generation::Guide,
        };
        let values = reader.object(text, "", KEYS, generation);
        let mut problems = reader.into_problems();
        // What contradicts what is only of interest where each by itself is right.
        if problems.is_empty() {
            problems = contradictions(&values);
        }
        if !problems.is_empty() {
            return Err(ConfError(problems));
        }
        Ok(Self::of(generation, &values))
    }

    /// Of values that don't contradict each other.
    fn of(generation: Generation, values: &Values) -> Self {
        let rdma_devices = rdma_devices(values);
        let (static_pf, vf) = (values.object("static_pf"), values.object("vf"));
        let uplinks = match (is(values, "is_lag"), is(values, "single_port")) {
            (true, _) => UplinkMode::Lag,
            (false, true) => UplinkMode::Single,
            (false, false) if values.text(STATIC_DEVICE) == Some(&rdma_devices.p1) => {
                UplinkMode::Ports { static_pfs: EswitchPort::P1 }
            }
            (false, false) => UplinkMode::Ports { static_pfs: EswitchPort::P0 },
        };
        let mut default_features = Features::controller_default();
        for (key, feature) in [("packed_vq", Feature::RingPacked), ("mrg_rxbuf", Feature::MrgRxbuf)] {
            if let Some(offered) = values.flag(key) {
                default_features = default_features.with(feature, offered);
            }
        }
        let macs = vf.mac("mac_base").zip(vf.number("vfs_per_pf"));
        let engine = EngineConfig {
            generation,
            uplinks,
            static_pf: StaticPfDefaults {
                mac_base: values.mac("pf_mac").or(values.mac("mac_base")).or(static_pf.mac("mac_base")),
                features: static_pf.features("features").cloned(),
            },
            vf: VfDefaults {
                macs: macs.map(|(base, vfs_per_pf)| VfMacs {
                    base,
                    vfs_per_pf: u16::try_from(vfs_per_pf).unwrap_or(u16::MAX),
                }),
                features: vf.features("features").cloned(),
            },
            default_features,
            sf_pool: SfPool {
                percent: values
                    .number("sf_pool_percent")
                    .and_then(|percent| u8::try_from(percent).ok())
                    .unwrap_or(0),
                force_destroy: is(values, "sf_pool_force_destroy"),
            },
            ..EngineConfig::default()
        };
        Self { engine, rdma_devices, recovery: values.flag("recovery").unwrap_or(true) }
    }
}

/// Where static PFs and VFs are made.
const STATIC_DEVICE: &str = "ib_dev_for_static_pf";

/// Whether a flag is there and 1.
fn is(values: &Values, key: &str) -> bool {
    values.flag(key) == Some(true)
}

fn rdma_devices(values: &Values) -> RdmaDevices {
    let default = RdmaDevices::default();
    let named = |key: &str, default: String| values.text(key).map_or(default, str::to_owned);
    RdmaDevices {
        p0: named("ib_dev_p0", default.p0),
        p1: named("ib_dev_p1", default.p1),
        lag: named("ib_dev_lag", default.lag),
    }
}

/// What does not go together.
fn contradictions(values: &Values) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut contradiction = |key: &str, why: String| problems.push(problem(values.line(key), key, why));
    let RdmaDevices { p0, p1, lag } = rdma_devices(values);
    let (is_lag, single) = (is(values, "is_lag"), is(values, "single_port"));

    if is_lag && single {
        contradiction("single_port", "it excludes is_lag 1".to_owned());
    }
    for port in ["ib_dev_p0", "ib_dev_p1"] {
        if values.text(port).is_some() && is_lag {
            contradiction(port, "with is_lag 1 SFs are made on ib_dev_lag: leave it out".to_owned());
        }
    }
    if values.text("ib_dev_lag").is_some() && !is_lag {
        contradiction(
            "ib_dev_lag",
            "without is_lag 1 SFs are made on ib_dev_p0 and ib_dev_p1: leave it out".to_owned(),
        );
    }
    if !is_lag && p0 == p1 {
        let key = if values.text("ib_dev_p1").is_some() { "ib_dev_p1" } else { "ib_dev_p0" };
        contradiction(key, format!("{p0} is the device of the other port"));
    }
    let on = match (is_lag, single) {
        (true, _) => vec![lag],
        (false, true) => vec![p0],
        (false, false) => vec![p0, p1],
    };
    if let Some(device) = values.text(STATIC_DEVICE).filter(|device| !on.iter().any(|on| on == device)) {
        contradiction(STATIC_DEVICE, format!("{device} is not {}", on.join(" or ")));
    }
    if let (Some(start), Some(end)) = (values.number("dpa_core_start"), values.number("dpa_core_end"))
        && start > end
    {
        contradiction("dpa_core_end", format!("{end} is below dpa_core_start {start}"));
    }
    let (static_pf, vf) = (values.object("static_pf"), values.object("vf"));
    if values.mac("mac_base").is_some() && static_pf.mac("mac_base").is_some() {
        contradiction("mac_base", "it is the same as static_pf.mac_base: leave one out".to_owned());
    }
    if let (Some(line), None) = (vf.line("mac_base"), vf.number("vfs_per_pf")) {
        problems.push(problem(Some(line), "vf.mac_base", "it needs vf.vfs_per_pf".to_owned()));
    }
    problems
}

#[cfg(test)]
mod tests;
