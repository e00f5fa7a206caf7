//! What a controller is configured with: [`EngineConfig`].

use virtnet_model::{EswitchPort, Generation, Mac, Uplink};

/// Which uplinks there are. A bond excludes its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkMode {
    /// The ports one by one (`is_lag` 0). Static PFs and their VFs sit on the one named (`ib_dev_for_static_pf`).
    Ports {
        /// Where static PFs and VFs are.
        static_pfs: EswitchPort,
    },
    /// Both as one link aggregation group (`is_lag` 1).
    Lag,
}

impl UplinkMode {
    /// The uplink of static PFs and their VFs.
    pub fn static_uplink(self) -> Uplink {
        match self {
            Self::Ports { static_pfs: EswitchPort::P0 } => Uplink::P0,
            Self::Ports { static_pfs: EswitchPort::P1 } => Uplink::P1,
            Self::Lag => Uplink::Bond,
        }
    }
}

/// SFs kept without a function (the guide, section 1.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SfPool {
    /// How many to make at start, as a percentage from 0 to 100 of the static uplink's PF_TOTAL_SF.
    pub percent: u8,
    /// Start with an empty pool: what an earlier controller left in it is destroyed (`sf_pool_force_destroy`).
    pub force_destroy: bool,
}

/// A controller's configuration, read once when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Whose rules hold.
    pub generation: Generation,
    /// Which uplinks there are.
    pub uplinks: UplinkMode,
    /// MAC of static PF 0, counted upwards for the others; `None`: the device's own.
    pub mac_base: Option<Mac>,
    /// The pool of SFs.
    pub sf_pool: SfPool,
    /// The version that the controller says it is.
    pub version: String,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            generation: Generation::Guide,
            uplinks: UplinkMode::Ports { static_pfs: EswitchPort::P0 },
            mac_base: None,
            sf_pool: SfPool::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
