//! What a device needs done without being asked: [`Job`]. Pure.

use std::collections::BTreeSet;

use crate::pool::{FIRST_VF, Grant};
use crate::table::Table;
use crate::{Emulation, Place, SfKey};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// An SF of ours that nothing will use: what a controller that stopped in the middle left.
    DestroySf(SfKey),
    /// A function that the firmware or the host made gets its settings, and an SF if there is one.
    Configure(Place, Emulation, Option<Grant>),
    /// Another SF for the pool.
    FillPool(Grant),
}

/// What a job is about. One that failed is left aside for a while, so that it does not hold up the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Sf(SfKey),
    Function(Place),
    Pool,
}

impl Job {
    pub(crate) fn subject(&self) -> Subject {
        match self {
            Self::DestroySf(sf) => Subject::Sf(*sf),
            Self::Configure(place, ..) => Subject::Function(*place),
            Self::FillPool(_) => Subject::Pool,
        }
    }
}

impl Table {
    /// The next job: clearing away first, then functions in the order of their places (static PFs, then VFs by PF and
    /// index), then the pool.
    pub(crate) fn next_job(&self, aside: &BTreeSet<Subject>) -> Option<Job> {
        if !self.bounds.limits.emulation {
            return None;
        }
        self.next_orphan(aside).or_else(|| self.next_function(aside)).or_else(|| self.next_for_pool(aside))
    }

    /// An SF that has no function and is not kept in the pool.
    pub(crate) fn next_orphan(&self, aside: &BTreeSet<Subject>) -> Option<Job> {
        self.unattached()
            .filter(|sf| sf.number.get() < FIRST_VF || self.drain_pool)
            .find(|sf| !aside.contains(&Subject::Sf(*sf)))
            .map(Job::DestroySf)
    }

    fn next_function(&self, aside: &BTreeSet<Subject>) -> Option<Job> {
        let uplink = self.bounds.limits.static_uplink;
        let free = self.budget(uplink.port()).free() > 0;
        let hold_vfs = self.updating && self.bounds.limits.generation == virtnet_model::Generation::Later;
        let place = self.functions.iter().find_map(|(place, emulated)| {
            let wanting = match &emulated.emulation {
                None => true,
                Some(emulation) => emulation.sf.is_none() && free,
            };
            let ours = match place {
                Place::Static(_) => true,
                Place::Vf(pf, _) => !hold_vfs && !self.is_unloading(*pf),
                Place::Slot(_) => false,
            };
            (wanting && ours && !aside.contains(&Subject::Function(*place))).then_some(*place)
        })?;
        let present =
            self.functions.get(&place)?.emulation.as_ref().map(|emulation| emulation.settings.clone());
        let settings = present.or_else(|| self.birth(place))?;
        let grant = self.grant(place, uplink, None).ok();
        Some(Job::Configure(place, Emulation { settings, sf: grant.map(|grant| grant.sf) }, grant))
    }

    fn next_for_pool(&self, aside: &BTreeSet<Subject>) -> Option<Job> {
        if aside.contains(&Subject::Pool) || self.pool_size() >= self.pool_wanted {
            return None;
        }
        let uplink = self.bounds.limits.static_uplink;
        let port = uplink.port();
        let budget = self.budget(port);
        let present = self.sfs.keys().filter(|key| key.port == port).count();
        let room = u32::try_from(present).unwrap_or(u32::MAX) < budget.total;
        let number = self.lowest_free(port, FIRST_VF)?;
        room.then_some(Job::FillPool(Grant {
            uplink,
            sf: SfKey { port, number },
            pooled: false,
            evict: None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use virtnet_model::{EswitchPort, Features, Mac, PfId, QueueSize, Uplink, VfId};

    use super::*;
    use crate::limits::Bounds;
    use crate::{DeviceEvent, DeviceState, Emulated, EngineConfig, Profile};

    fn vf(index: u32) -> Place {
        Place::Vf(PfId::MIN, VfId::try_from(index).unwrap())
    }

    /// A table with two VFs that the host has made and nobody has configured.
    fn table() -> Table {
        let firmware = [
            ("VIRTIO_NET_EMULATION_ENABLE", "1"),
            ("VIRTIO_NET_EMULATION_NUM_PF", "1"),
            ("VIRTIO_NET_EMULATION_NUM_VF", "4"),
            ("VIRTIO_NET_EMULATION_NUM_MSIX", "4"),
            ("PF_TOTAL_SF", "8"),
        ];
        let firmware = firmware.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let device = DeviceState {
            profile: Profile {
                firmware: [(EswitchPort::P0, firmware)].into(),
                base_mac: Mac::local([0; 5]),
                max_virtq: 16,
                max_queue_size: QueueSize::try_from(256).unwrap(),
                features: Features::controller_default(),
                host_io_space: 0,
                hosts: BTreeMap::new(),
            },
            uplink_mtus: [(Uplink::P0, 1500)].into(),
            functions: [(vf(0), Emulated::default()), (vf(1), Emulated::default())].into(),
            sfs: BTreeMap::new(),
        };
        let config = EngineConfig::default();
        let bounds = Bounds::new(&device, &config).unwrap();
        Table::new(config, bounds, device)
    }

    fn next(table: &Table) -> Option<Subject> {
        table.next_job(&BTreeSet::new()).map(|job| job.subject())
    }

    #[test]
    fn no_vf_is_made_again_before_the_last_of_the_earlier_ones_has_gone() {
        let mut table = table();
        assert_eq!(next(&table), Some(Subject::Function(vf(0))));
        table.absorb(DeviceEvent::Function(vf(0), None));
        table.absorb(DeviceEvent::Function(vf(0), Some(Emulated::default())));
        assert_eq!(next(&table), None, "VF 1 of before is still there");
        table.absorb(DeviceEvent::Function(vf(1), None));
        assert_eq!(next(&table), Some(Subject::Function(vf(0))));
    }
}
