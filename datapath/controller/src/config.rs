//! What a controller is configured with: [`EngineConfig`].

use virtnet_model::{EswitchPort, Features, Generation, Mac, PfId, Uplink, VfId};

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
    /// The first port alone (`single_port` 1, of the later generation).
    Single,
}

impl UplinkMode {
    /// The uplink of static PFs and their VFs.
    pub fn static_uplink(self) -> Uplink {
        match self {
            Self::Ports { static_pfs: EswitchPort::P0 } | Self::Single => Uplink::P0,
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

/// What static PFs are made with (`static_pf`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticPfDefaults {
    /// MAC of static PF 0, counted upwards for the others (`pf_mac`, or `static_pf.mac_base`); `None`: the device's own.
    pub mac_base: Option<Mac>,
    /// Features that they offer; `None`: [`EngineConfig::default_features`].
    pub features: Option<Features>,
}

/// What VFs are born with (`vf`), where nothing was prepared for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VfDefaults {
    /// Their MACs; `None`: each has one of the controller's making.
    pub macs: Option<VfMacs>,
    /// Features that they offer; `None`: [`EngineConfig::default_features`].
    pub features: Option<Features>,
}

/// MACs of VFs, numbered from a first one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfMacs {
    /// That of VF 0 of PF 0 (`vf.mac_base`).
    pub base: Mac,
    /// How many follow for each PF (`vf.vfs_per_pf`). VFs from this index on have one of the controller's making.
    pub vfs_per_pf: u16,
}

impl VfMacs {
    /// The MAC of a VF; `None` for one beyond `vfs_per_pf`.
    pub(crate) fn of(self, pf: PfId, vf: VfId) -> Option<Mac> {
        let offset = u64::from(pf.get()) * u64::from(self.vfs_per_pf) + u64::from(vf.get());
        (vf.get() < self.vfs_per_pf).then(|| self.base.checked_add(offset)).flatten()
    }
}

/// A controller's configuration, read once when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Whose rules hold.
    pub generation: Generation,
    /// Which uplinks there are.
    pub uplinks: UplinkMode,
    /// What static PFs are made with.
    pub static_pf: StaticPfDefaults,
    /// What VFs are born with.
    pub vf: VfDefaults,
    /// What a function offers of which nothing else is said, as far as the device has it.
    pub default_features: Features,
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
            static_pf: StaticPfDefaults::default(),
            vf: VfDefaults::default(),
            default_features: Features::controller_default(),
            sf_pool: SfPool::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
