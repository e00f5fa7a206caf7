//! From firmware and configuration to limits: [`Bounds`]. Pure.

use std::collections::{BTreeMap, BTreeSet};

use virtnet_model::{
    EswitchPort, Features, FirmwareValues, Generation, Limits, Mac, PartError, SfBudget, TransitionalLimits,
    Uplink,
};

use crate::{DeviceState, EngineConfig, Profile, UplinkMode, VfMacs};

/// PF indices and VF indices each go up to 1023.
const MAX_INDEX: u32 = 1023;
/// The emulated switch of any generation has fewer ports than a PCIe bus has devices times functions.
const MAX_SLOTS: u32 = 255;
/// A later generation's firmware has either hot-plug or more VFs than this.
const VFS_BESIDE_HOTPLUG: u32 = 127;
/// The I/O window of a PCIe bridge, in bytes: what one transitional function takes.
const IO_WINDOW: u32 = 4096;

/// The limits, and what refusals need to name beside them.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// As reported; SFs in use are counted by the table.
    pub(crate) limits: Limits,
    /// PCI_SWITCH_EMULATION_ENABLE.
    pub(crate) switch_enabled: bool,
    /// PCI_SWITCH_EMULATION_NUM_PORT.
    pub(crate) num_port: u16,
    /// MSI-X vectors that a VF is born with.
    pub(crate) vf_default_msix: u16,
    /// MSI-X vectors that the VFs of one PF share; `None`: each has its own.
    pub(crate) vf_msix_pool: Option<u32>,
    /// The slots of hosts that have names; empty: all are the one host's.
    pub(crate) hosts: BTreeMap<String, BTreeSet<u16>>,
    /// MAC of static PF 0.
    pub(crate) mac_base: Mac,
    /// Configured MACs of VFs.
    pub(crate) vf_macs: Option<VfMacs>,
    /// What a function offers of which nothing else is said.
    pub(crate) default_features: Features,
    /// What a static PF offers that nobody changed.
    pub(crate) static_pf_features: Features,
    /// What a VF is born offering.
    pub(crate) vf_features: Features,
}

impl Bounds {
    /// Reads the firmware's values. A value that is no number in its range is an error that names it, and so is a
    /// configuration that the device can't meet.
    pub(crate) fn new(device: &DeviceState, config: &EngineConfig) -> Result<Self, PartError> {
        let profile = &device.profile;
        check_bond(device.uplink_mtus.contains_key(&Uplink::Bond), config.uplinks)?;
        let p0 = Values::of(profile, EswitchPort::P0);
        let emulation = p0.flag("VIRTIO_NET_EMULATION_ENABLE")?;
        let switch_enabled = p0.flag("PCI_SWITCH_EMULATION_ENABLE")?;
        let num_port = p0.number("PCI_SWITCH_EMULATION_NUM_PORT", MAX_SLOTS)?;
        let static_pfs = p0.number("VIRTIO_NET_EMULATION_NUM_PF", MAX_INDEX - MAX_SLOTS)?;
        let vfs_per_pf = p0.number("VIRTIO_NET_EMULATION_NUM_VF", MAX_INDEX)?;
        let pf_msix = p0.number("VIRTIO_NET_EMULATION_NUM_MSIX", 2048)?;
        let layout = p0.flag("VIRTIO_NET_EMULATION_PF_PCI_LAYOUT")?;
        let hotplug_trans = p0.flag("VIRTIO_EMULATION_HOTPLUG_TRANS")?;
        let own_vf_msix = p0.number("VIRTIO_NET_EMULATION_NUM_VF_MSIX", 2048)?;
        let vf_layout = p0.flag("VIRTIO_NET_EMULATION_VF_PCI_LAYOUT")?;

        let later = config.generation == Generation::Later;
        let all_vfs = u32::from(static_pfs) * u32::from(vfs_per_pf);
        let excluded = later && all_vfs > VFS_BESIDE_HOTPLUG;
        let hotplug_slots = if switch_enabled && !excluded { num_port } else { 0 };

        let vf_default_msix = if later && own_vf_msix > 0 { own_vf_msix } else { pf_msix };
        let vf_msix_pool = later.then(|| u32::from(vf_default_msix) * u32::from(vfs_per_pf));
        let vf_msix = match vf_msix_pool {
            // One vector for each queue that the device can have, and the configuration's.
            Some(pool) => u16::try_from(pool).unwrap_or(u16::MAX).min(profile.max_virtq.saturating_add(1)),
            None => vf_default_msix,
        };

        let windows = (profile.host_io_space / IO_WINDOW).saturating_sub(1);
        let transitional = TransitionalLimits {
            hotplug: if !later && layout && hotplug_trans {
                u16::try_from(windows).unwrap_or(u16::MAX)
            } else {
                0
            },
            vf: later && vf_layout,
        };

        let mut sfs = BTreeMap::new();
        for port in profile.firmware.keys() {
            let total = Values::of(profile, *port).number("PF_TOTAL_SF", u32::from(u16::MAX))?;
            sfs.insert(*port, SfBudget { total: u32::from(total), used: 0, foreign: 0 });
        }
        let uplinks = match config.uplinks {
            UplinkMode::Lag => vec![Uplink::Bond],
            UplinkMode::Single => vec![Uplink::P0],
            UplinkMode::Ports { .. } => [Uplink::P0, Uplink::P1]
                .into_iter()
                .filter(|uplink| profile.firmware.contains_key(&uplink.port()))
                .collect(),
        };
        let static_uplink = config.uplinks.static_uplink();
        if !uplinks.contains(&static_uplink) {
            return Err(PartError::failed(format!(
                "start the controller: ib_dev_for_static_pf is on {static_uplink}, which the device does not have"
            )));
        }

        let mac_base = config.static_pf.mac_base.unwrap_or(profile.base_mac);
        if mac_base.checked_add(u64::from(static_pfs.saturating_sub(1))).is_none() {
            return Err(PartError::failed(format!(
                "start the controller: pf_mac {mac_base} leaves no unicast addresses for {static_pfs} static PFs"
            )));
        }

        if let Some(macs) = config.vf.macs {
            check_vf_macs(macs, static_pfs, vfs_per_pf)?;
        }
        let device = &profile.features;
        let default_features =
            config.default_features.iter().filter(|feature| device.contains(*feature)).collect::<Features>();
        let born_with =
            |key: &str, configured: Option<&Features>| born_with(key, configured, &default_features, device);
        let static_pf_features = born_with("static_pf", config.static_pf.features.as_ref())?;
        let vf_features = born_with("vf", config.vf.features.as_ref())?;

        let limits = Limits {
            generation: config.generation,
            emulation,
            hotplug_slots,
            static_pfs,
            vfs_per_pf,
            sfs,
            uplinks,
            static_uplink,
            pf_msix,
            vf_msix,
            max_virtq: profile.max_virtq,
            max_queue_size: profile.max_queue_size,
            transitional,
            features: profile.features.clone(),
        };
        Ok(Self {
            limits,
            switch_enabled,
            num_port,
            vf_default_msix,
            vf_msix_pool,
            hosts: profile.hosts.clone(),
            mac_base,
            vf_macs: config.vf.macs,
            default_features,
            static_pf_features,
            vf_features,
        })
    }

    /// MSI-X vectors that a function of this kind can have.
    pub(crate) fn msix_limit(&self, vf: bool) -> u16 {
        if vf { self.limits.vf_msix } else { self.limits.pf_msix }
    }

    /// The setting that bounds them.
    pub(crate) fn msix_setting(&self, vf: bool) -> &'static str {
        let own =
            vf && self.limits.generation == Generation::Later && self.vf_default_msix != self.limits.pf_msix;
        if own { "VIRTIO_NET_EMULATION_NUM_VF_MSIX" } else { "VIRTIO_NET_EMULATION_NUM_MSIX" }
    }

    /// Virtqueues for this many MSI-X vectors: fewer than vectors, since the configuration has one, and no more than
    /// the device has.
    pub(crate) fn queues_for(&self, num_msix: u16) -> u16 {
        num_msix.saturating_sub(1).clamp(1, self.limits.max_virtq.max(1))
    }
}

/// The controller must be stopped before the bond is made, and started with `is_lag` after it.
fn check_bond(bonded: bool, uplinks: UplinkMode) -> Result<(), PartError> {
    let why = match (bonded, uplinks) {
        (true, UplinkMode::Lag) | (false, UplinkMode::Ports { .. } | UplinkMode::Single) => return Ok(()),
        (false, UplinkMode::Lag) => {
            "is_lag is 1 and the ports are not bonded: stop the controller, make the bond, and start it again"
        }
        (true, UplinkMode::Ports { .. } | UplinkMode::Single) => BONDED,
    };
    Err(PartError::failed(format!("start the controller: {why}")))
}

/// What is to be done where the ports are bonded and the controller is not configured so.
pub(crate) const BONDED: &str = "the ports are bonded and is_lag is 0: stop the controller, set is_lag to 1, and \
    ib_dev_lag and ib_dev_for_static_pf to the bond's RDMA device, without ib_dev_p0 and ib_dev_p1, and start it again";

fn check_vf_macs(macs: VfMacs, static_pfs: u16, vfs_per_pf: u16) -> Result<(), PartError> {
    let VfMacs { base, vfs_per_pf: wanted } = macs;
    let all = u64::from(static_pfs) * u64::from(wanted);
    let why = if wanted > vfs_per_pf {
        format!("vf.vfs_per_pf {wanted} is above VIRTIO_NET_EMULATION_NUM_VF={vfs_per_pf}")
    } else if base.checked_add(all.saturating_sub(1)).is_none() {
        format!(
            "vf.mac_base {base} leaves no unicast addresses for {wanted} VFs on each of {static_pfs} static PFs"
        )
    } else {
        return Ok(());
    };
    Err(PartError::failed(format!("start the controller: {why}")))
}

/// What functions offer that nobody changed: what is configured for them, with what it needs, or the default.
fn born_with(
    key: &str,
    configured: Option<&Features>,
    default: &Features,
    device: &Features,
) -> Result<Features, PartError> {
    let Some(configured) = configured else { return Ok(default.clone()) };
    let complete = configured.completed();
    let missing: Features = complete.missing_from(device).collect();
    if missing == Features::default() {
        return Ok(complete);
    }
    Err(PartError::failed(format!(
        "start the controller: {key}.features: the device does not offer {missing}; it offers {device}"
    )))
}

/// One port's values, with the port's name for errors. An absent key is 0, as in firmware that lacks the feature.
struct Values<'a> {
    port: EswitchPort,
    values: Option<&'a FirmwareValues>,
}

impl<'a> Values<'a> {
    fn of(profile: &'a Profile, port: EswitchPort) -> Self {
        Self { port, values: profile.firmware.get(&port) }
    }

    fn number(&self, key: &str, max: u32) -> Result<u16, PartError> {
        let Some(text) = self.values.and_then(|values| values.get(key)) else { return Ok(0) };
        text.parse::<u16>().ok().filter(|value| u32::from(*value) <= max).ok_or_else(|| {
            PartError::failed(format!(
                "start the controller: firmware of {}: {key}={text} is not a number from 0 to {max}",
                self.port
            ))
        })
    }

    fn flag(&self, key: &str) -> Result<bool, PartError> {
        self.number(key, 1).map(|value| value == 1)
    }
}
