//! What a hot-plug is refused for, and how it will be made. Pure.

use virtnet_model::{
    EswitchPort, Features, FunctionKind, Generation, HotplugRequest, Mac, PartError, QueueSize, Refusal,
    SfNumber, Target,
};

use crate::pool::{FIRST_STATIC, Grant, NoSf};
use crate::table::Table;
use crate::{Emulation, Place, Settings, ids};

/// A hot-plug that nothing speaks against.
#[derive(Debug)]
pub(crate) struct HotplugPlan {
    pub(crate) slot: u16,
    pub(crate) grant: Grant,
    pub(crate) emulation: Emulation,
}

impl Table {
    /// Refuses everything where firmware does not emulate virtio-net.
    pub(crate) fn check_emulation(&self, doing: &str) -> Result<(), PartError> {
        if self.bounds.limits.emulation {
            return Ok(());
        }
        Err(PartError::refused(
            Refusal::EmulationDisabled,
            format!("{doing}: VIRTIO_NET_EMULATION_ENABLE is 0: set it with mlxconfig and cold boot"),
        ))
    }

    fn check_updating(&self, doing: &str) -> Result<(), PartError> {
        if !self.updating {
            return Ok(());
        }
        Err(PartError::refused(
            Refusal::Updating,
            format!(
                "{doing}: a live update is running: try again when `virtnet update -t` says that it ended"
            ),
        ))
    }

    /// Checks a hot-plug and chooses slot and SF. Identity comes first, so that a call made twice is told of the
    /// function that the first one made.
    pub(crate) fn admit(&self, request: &HotplugRequest) -> Result<HotplugPlan, PartError> {
        let doing = format!("hot-plug {}", request.mac);
        let refused = |refusal, why: String| PartError::refused(refusal, format!("{doing}: {why}"));
        self.check_emulation(&doing)?;
        self.check_mac(&doing, request.mac, None)?;
        self.check_updating(&doing)?;
        let limits = &self.bounds.limits;

        let host =
            self.admit_host(request.host.as_deref()).map_err(|why| refused(Refusal::NoFreeSlot, why))?;
        if let Some(why) = self.rebonded() {
            return Err(refused(Refusal::NoSuchUplink, why));
        }
        if !limits.uplinks.contains(&request.uplink) {
            let there: Vec<_> = limits.uplinks.iter().map(ToString::to_string).collect();
            return Err(refused(
                Refusal::NoSuchUplink,
                format!(
                    "no uplink {}: there is {} (is_lag in virtnet.conf)",
                    request.uplink,
                    there.join(" and ")
                ),
            ));
        }
        if request.transitional {
            self.check_transitional(&doing)?;
        }
        let num_msix = request.num_msix.unwrap_or(limits.pf_msix);
        self.check_msix(&doing, num_msix, false)?;
        self.check_queues(&doing, request.max_queues, num_msix)?;
        self.check_queue_size(&doing, request.queue_size)?;
        let features = request
            .features
            .as_ref()
            .map_or_else(|| self.bounds.default_features.clone(), Features::completed);
        self.check_features(&doing, &features)?;

        let slot =
            self.free_slot(host).ok_or_else(|| refused(Refusal::NoFreeSlot, self.slots_taken(host)))?;
        let place = Place::Slot(slot);
        let grant = self.grant(place, request.uplink, request.sf_number).map_err(|why| match why {
            NoSf::Exhausted => refused(Refusal::SfExhausted, self.sfs_spent(request.uplink.port())),
            NoSf::NumberInUse => refused(
                Refusal::SfNumberInUse,
                self.number_in_use(request.uplink.port(), request.sf_number.map_or(0, SfNumber::get)),
            ),
        })?;
        let settings = Settings {
            mac: request.mac,
            mtu: request.mtu,
            max_queues: request.max_queues,
            queue_size: request.queue_size,
            num_msix,
            features,
            transitional: request.transitional,
        };
        Ok(HotplugPlan { slot, grant, emulation: Emulation { settings, sf: Some(grant.sf) } })
    }

    /// Checks an unplug; the place is a slot.
    pub(crate) fn admit_unplug(&self, target: &Target) -> Result<u16, PartError> {
        let doing = format!("unplug {target}");
        self.check_emulation(&doing)?;
        let place = match target {
            Target::HotPlug { .. } => self.place(target),
            Target::Static(_) | Target::Vf(..) => {
                return Err(PartError::refused(
                    Refusal::NotHotPlugged,
                    format!("{doing}: only hot-plugged functions can be unplugged"),
                ));
            }
        };
        match place {
            Some(place @ Place::Slot(slot)) => {
                self.check_migrating(&doing, place)?;
                self.check_updating(&doing)?;
                Ok(slot)
            }
            _ => Err(self.no_such_function(&doing, target)),
        }
    }

    /// What is there instead of the wanted function.
    pub(crate) fn no_such_function(&self, doing: &str, target: &Target) -> PartError {
        let there = match target {
            Target::HotPlug { vuid, .. } => self
                .functions
                .keys()
                .filter_map(|place| self.function(*place))
                .find(|function| function.vuid == *vuid)
                .map_or_else(
                    || format!("nothing has the VUID {vuid}"),
                    |function| {
                        let sf =
                            function.sf.map_or_else(|| "no SF".to_owned(), |sf| format!("SF {}", sf.number));
                        let kind = match function.kind {
                            FunctionKind::HotPlug => "another function",
                            FunctionKind::Static | FunctionKind::Vf => "not a hot-plugged function",
                        };
                        format!("{vuid} is {kind}: MAC {}, {sf}", function.mac)
                    },
                ),
            Target::Static(pf) => {
                format!("no static PF {pf}: VIRTIO_NET_EMULATION_NUM_PF={}", self.bounds.limits.static_pfs)
            }
            Target::Vf(pf, vf) => format!("no VF {vf} of PF {pf}"),
        };
        PartError::refused(Refusal::NoSuchFunction, format!("{doing}: {there}"))
    }

    pub(crate) fn check_mac(&self, doing: &str, mac: Mac, but: Option<Place>) -> Result<(), PartError> {
        match self.mac_holder(mac, but) {
            None => Ok(()),
            Some(holder) => Err(PartError::refused(
                Refusal::MacInUse,
                format!("{doing}: MAC {mac} is in use by {holder}"),
            )),
        }
    }

    pub(crate) fn check_msix(&self, doing: &str, num_msix: u16, vf: bool) -> Result<(), PartError> {
        let limit = self.bounds.msix_limit(vf);
        if (1..=limit).contains(&num_msix) {
            return Ok(());
        }
        Err(PartError::refused(
            Refusal::MsixAboveLimit,
            format!(
                "{doing}: {num_msix} MSI-X vectors: {}={limit} gives 1 to {limit}",
                self.bounds.msix_setting(vf)
            ),
        ))
    }

    /// `max_queues < num_msix`, and at most the lesser of NUM_MSIX and max_virtq.
    pub(crate) fn check_queues(&self, doing: &str, max_queues: u16, num_msix: u16) -> Result<(), PartError> {
        let max_virtq = self.bounds.limits.max_virtq;
        let why = if max_queues == 0 {
            "0 queues: at least 1".to_owned()
        } else if max_queues > max_virtq {
            format!("{max_queues} queues: the device has at most max_virtq={max_virtq}")
        } else if max_queues >= num_msix {
            format!(
                "{max_queues} queues need more than {max_queues} MSI-X vectors and have {num_msix} \
                 (VIRTIO_NET_EMULATION_NUM_MSIX={})",
                self.bounds.limits.pf_msix
            )
        } else {
            return Ok(());
        };
        Err(PartError::refused(Refusal::QueuesAboveLimit, format!("{doing}: {why}")))
    }

    pub(crate) fn check_queue_size(&self, doing: &str, size: QueueSize) -> Result<(), PartError> {
        let limit = self.bounds.limits.max_queue_size;
        if size <= limit {
            return Ok(());
        }
        Err(PartError::refused(
            Refusal::QueuesAboveLimit,
            format!("{doing}: queue size {size}: the device has at most max_queue_size={limit}"),
        ))
    }

    pub(crate) fn check_features(&self, doing: &str, features: &Features) -> Result<(), PartError> {
        let missing: Features = features.missing_from(&self.bounds.limits.features).collect();
        if missing == Features::default() {
            return Ok(());
        }
        Err(PartError::refused(
            Refusal::FeatureUnsupported,
            format!(
                "{doing}: the device does not offer {missing}; it offers {}",
                self.bounds.limits.features
            ),
        ))
    }

    /// Transitional PFs are limited by the host's I/O space: each takes a window of 4 KiB. The guide further wants a
    /// host kernel of 3.10 or later (before 5.1 with `intel_iommu=off`), `virtio_pci.force_legacy=1`, and no AMD CPU;
    /// none of which can be seen from the device.
    fn check_transitional(&self, doing: &str) -> Result<(), PartError> {
        let limit = self.bounds.limits.transitional.hotplug;
        let present = self
            .configured()
            .filter(|(place, settings, _)| {
                ids::kind(*place) == FunctionKind::HotPlug && settings.transitional
            })
            .count();
        let why = if limit == 0 {
            match self.bounds.limits.generation {
                Generation::Guide => "transitional functions need \
                    VIRTIO_NET_EMULATION_PF_PCI_LAYOUT=1, VIRTIO_EMULATION_HOTPLUG_TRANS=1 and 8 KiB of the host's \
                    I/O space"
                    .to_owned(),
                Generation::Later => {
                    "this generation has transitional VFs only (VIRTIO_NET_EMULATION_VF_PCI_LAYOUT=1)".to_owned()
                }
            }
        } else if present >= usize::from(limit) {
            format!(
                "the host's I/O space holds {limit} transitional functions, each taking 4 KiB, and {present} are \
                 there (/proc/ioports)"
            )
        } else {
            return Ok(());
        };
        Err(PartError::refused(Refusal::TransitionalUnsupported, format!("{doing}: {why}")))
    }

    fn free_slot(&self, host: Option<&str>) -> Option<u16> {
        let slots = host.and_then(|host| self.bounds.hosts.get(host));
        (0..self.bounds.limits.hotplug_slots)
            .filter(|slot| slots.is_none_or(|slots| slots.contains(slot)))
            .find(|slot| {
                let place = Place::Slot(*slot);
                !self.functions.contains_key(&place) && self.id(place).is_some()
            })
    }

    /// The host whose slots are meant: the first one where nothing is said. `None`: there is one, which has no name.
    fn admit_host<'a>(&'a self, wanted: Option<&'a str>) -> Result<Option<&'a str>, String> {
        let hosts = &self.bounds.hosts;
        let names = || hosts.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        match (wanted, hosts.len()) {
            (None, 0) => Ok(None),
            (None, _) => Ok(hosts.keys().next().map(String::as_str)),
            (Some(host), 0) => {
                Err(format!("no slot on host {host:?}: this controller serves one host, which has no name"))
            }
            (Some(host), _) if hosts.contains_key(host) => Ok(Some(host)),
            (Some(host), _) => Err(format!("no host {host:?}: there are {}", names())),
        }
    }

    fn slots_taken(&self, host: Option<&str>) -> String {
        let bounds = &self.bounds;
        if !bounds.switch_enabled {
            return "no slots: PCI_SWITCH_EMULATION_ENABLE is 0: set it with mlxconfig and cold boot"
                .to_owned();
        }
        if bounds.limits.hotplug_slots < bounds.num_port {
            return format!(
                "no slots: more than 127 VFs (VIRTIO_NET_EMULATION_NUM_PF={} with VIRTIO_NET_EMULATION_NUM_VF={}) \
                 exclude hot-plug in this generation",
                bounds.limits.static_pfs, bounds.limits.vfs_per_pf
            );
        }
        if let Some((host, slots)) = host.and_then(|host| Some((host, self.bounds.hosts.get(host)?))) {
            return format!("no free slot: all {} of host {host:?} are taken: unplug one", slots.len());
        }
        let taken = self.functions.keys().filter(|place| matches!(place, Place::Slot(_))).count();
        format!(
            "no free slot: {taken} of PCI_SWITCH_EMULATION_NUM_PORT={} taken: unplug one, or raise it with mlxconfig \
             and cold boot",
            bounds.num_port
        )
    }

    fn number_in_use(&self, port: EswitchPort, number: u16) -> String {
        if number < FIRST_STATIC {
            return format!("SF {number} of {port}: numbers below {FIRST_STATIC} are other applications'");
        }
        let foreign =
            self.sfs.iter().any(|(key, sf)| key.port == port && key.number.get() == number && sf.foreign);
        let by = if foreign {
            "another application".to_owned()
        } else {
            self.configured()
                .find(|(_, _, sf)| sf.is_some_and(|sf| sf.port == port && sf.number.get() == number))
                .map_or_else(|| "the controller".to_owned(), |(place, ..)| ids::vuid(place).to_string())
        };
        format!("SF {number} of {port} is in use by {by}")
    }
}

#[cfg(test)]
mod tests {
    use virtnet_model::QueueSize;

    use super::*;
    use crate::{EngineConfig, fixture};

    fn table(hosts: &[(&str, &[u16])]) -> Table {
        let mut device =
            fixture::device(&[("PCI_SWITCH_EMULATION_ENABLE", "1"), ("PCI_SWITCH_EMULATION_NUM_PORT", "3")]);
        let slots = |slots: &[u16]| slots.iter().copied().collect();
        device.profile.hosts = hosts.iter().map(|(name, of)| ((*name).to_owned(), slots(of))).collect();
        fixture::table(device, EngineConfig { uplinks: crate::UplinkMode::Single, ..EngineConfig::default() })
    }

    /// The slot that a function on this host has, or why it has none.
    fn slot(table: &Table, host: Option<&str>) -> Result<u16, String> {
        let request = HotplugRequest {
            host: host.map(str::to_owned),
            ..HotplugRequest::new(Mac::local([0, 0, 0, 0, 1]), 3, QueueSize::DEFAULT)
        };
        table.admit(&request).map(|plan| plan.slot).map_err(|error| error.message)
    }

    #[test]
    fn a_function_has_a_slot_of_its_host() {
        let nameless = table(&[]);
        assert_eq!(slot(&nameless, None), Ok(0));
        assert!(slot(&nameless, Some("a")).unwrap_err().contains("serves one host, which has no name"));
        let one = table(&[("a", &[0, 1, 2])]);
        assert_eq!((slot(&one, None), slot(&one, Some("a"))), (Ok(0), Ok(0)));
        let several = table(&[("a", &[0, 1]), ("b", &[2]), ("c", &[])]);
        assert_eq!([None, Some("a"), Some("b")].map(|host| slot(&several, host)), [Ok(0), Ok(0), Ok(2)]);
        for (host, part) in [
            (Some("d"), "no host \"d\": there are a, b, c"),
            (Some("c"), "no free slot: all 0 of host \"c\" are taken"),
        ] {
            let why = slot(&several, host).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
