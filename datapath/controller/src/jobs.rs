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
    use virtnet_model::{PfId, VfId};

    use super::*;
    use crate::{DeviceEvent, Emulated, EngineConfig, fixture};

    fn vf(index: u32) -> Place {
        Place::Vf(PfId::MIN, VfId::try_from(index).unwrap())
    }

    /// A table with two VFs that the host has made and nobody has configured.
    fn table() -> Table {
        let mut device =
            fixture::device(&[("VIRTIO_NET_EMULATION_NUM_PF", "1"), ("VIRTIO_NET_EMULATION_NUM_VF", "4")]);
        device.functions = [(vf(0), Emulated::default()), (vf(1), Emulated::default())].into();
        fixture::table(device, EngineConfig::default())
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
