//! What a modification is refused for, and what it does. Pure.

use virtnet_model::{Change, Generation, PartError, PfId, Refusal, Target, VfId};

use crate::table::Table;
use crate::{Emulation, Place, Settings};

/// A modification that nothing speaks against.
#[derive(Debug)]
pub(crate) enum ModifyPlan {
    /// Everything is so already.
    Nothing,
    /// Kept for a VF that is not there yet, in place of what was kept before; nothing where it is empty.
    Prepare(PfId, VfId, Change),
    /// Set on the device.
    Configure(Place, Emulation),
}

impl Table {
    /// Checks a modification against the device as it is.
    pub(crate) fn admit_modify(&self, target: &Target, change: &Change) -> Result<ModifyPlan, PartError> {
        let doing = format!("modify {target}");
        self.check_emulation(&doing)?;
        let place = self.place(target).ok_or_else(|| self.no_such_function(&doing, target))?;
        if let Place::Vf(pf, vf) = place {
            self.check_vf(&doing, pf, vf)?;
        }
        self.check_migrating(&doing, place)?;
        let emulated = self.functions.get(&place);
        match (emulated.and_then(|emulated| emulated.emulation.as_ref()), place) {
            (Some(emulation), _) => {
                let in_use = emulated.is_some_and(|emulated| emulated.driver.in_use);
                self.admit_present(&doing, place, emulation, in_use, change)
            }
            (None, Place::Vf(pf, vf)) => self.admit_prepared(&doing, pf, vf, change),
            (None, _) => {
                Err(PartError::unavailable(format!("{doing}: the controller is still configuring it")))
            }
        }
    }

    /// The place of a function that is there and configured, of which something is asked.
    pub(crate) fn admit_present_function(&self, doing: &str, target: &Target) -> Result<Place, PartError> {
        self.check_emulation(doing)?;
        let place = self.place(target).filter(|place| self.function(*place).is_some());
        let place = place.ok_or_else(|| self.no_such_function(doing, target))?;
        self.check_migrating(doing, place)?;
        Ok(place)
    }

    /// Checks a moderation of interrupts, which the guide's generation does not have.
    pub(crate) fn admit_moderate(&self, target: &Target) -> Result<Place, PartError> {
        let doing = format!("moderate {target}");
        if self.bounds.limits.generation == Generation::Guide {
            return Err(PartError::refused(
                Refusal::NotInGeneration,
                format!(
                    "{doing}: the guide's generation has no moderation of queues: set generation to later in virtnet.conf"
                ),
            ));
        }
        self.admit_present_function(&doing, target)
    }

    /// Nothing is asked of a function that is being moved, nor changed of it.
    pub(crate) fn check_migrating(&self, doing: &str, place: Place) -> Result<(), PartError> {
        if !self.functions.get(&place).is_some_and(|emulated| emulated.migrating) {
            return Ok(());
        }
        Err(PartError::refused(
            Refusal::Migrating,
            format!("{doing}: migrating: try again when that has ended"),
        ))
    }

    fn check_vf(&self, doing: &str, pf: PfId, vf: VfId) -> Result<(), PartError> {
        let limits = &self.bounds.limits;
        if pf.get() < limits.static_pfs && vf.get() < limits.vfs_per_pf {
            return Ok(());
        }
        Err(PartError::refused(
            Refusal::NoSuchVf,
            format!(
                "{doing}: there are VIRTIO_NET_EMULATION_NUM_PF={} static PFs with \
                 VIRTIO_NET_EMULATION_NUM_VF={} VFs each, counted from 0; no other PF has VFs",
                limits.static_pfs, limits.vfs_per_pf
            ),
        ))
    }

    fn admit_present(
        &self,
        doing: &str,
        place: Place,
        emulation: &Emulation,
        in_use: bool,
        change: &Change,
    ) -> Result<ModifyPlan, PartError> {
        let now = &emulation.settings;
        let vf = matches!(place, Place::Vf(..));
        let mut wanted = now.clone();
        self.apply(change, &mut wanted, place);
        if wanted == *now {
            return Ok(ModifyPlan::Nothing);
        }
        if wanted.mtu != now.mtu && matches!(place, Place::Static(_)) {
            return Err(PartError::refused(
                Refusal::MtuFixed,
                format!("{doing}: MTU is invalid: that of a static PF stays {}", now.mtu),
            ));
        }
        if wanted.num_msix != now.num_msix && !vf && self.bounds.limits.generation == Generation::Later {
            return Err(PartError::refused(
                Refusal::MsixFixed,
                format!(
                    "{doing}: the MSI-X vectors of a PF are fixed in this generation: \
                     VIRTIO_NET_EMULATION_NUM_MSIX gives {}",
                    now.num_msix
                ),
            ));
        }
        self.check_settings(doing, place, now, &wanted)?;
        self.check_machine(doing, place)?;
        if in_use {
            return Err(PartError::refused(
                Refusal::DriverLoaded,
                format!(
                    "{doing}: Virtio driver should not be loaded: unbind the function from virtio-pci on the host"
                ),
            ));
        }
        Ok(ModifyPlan::Configure(place, Emulation { settings: wanted, sf: emulation.sf }))
    }

    /// What a machine was started with stays so until it ends, whether or not its guest has a driver for it.
    fn check_machine(&self, doing: &str, place: Place) -> Result<(), PartError> {
        let Some(function) = self.function(place) else { return Ok(()) };
        let Some(socket) = function.fixed_by() else { return Ok(()) };
        Err(PartError::refused(
            Refusal::MachineRuns,
            format!(
                "{doing}: the machine behind {} was started with what the function presents: shut it down, ask for this again, \
                 and start it with the qemu_arguments that `virtnet query -p {}` says then",
                socket.display(),
                function.id.pf
            ),
        ))
    }

    fn admit_prepared(
        &self,
        doing: &str,
        pf: PfId,
        vf: VfId,
        change: &Change,
    ) -> Result<ModifyPlan, PartError> {
        let place = Place::Vf(pf, vf);
        if self.prepared.get(&(pf, vf)).unwrap_or(&Change::default()) == change {
            return Ok(ModifyPlan::Nothing);
        }
        let Some(now) = self.unprepared(place) else {
            return Err(PartError::failed(format!("{doing}: no address is left for it")));
        };
        let mut wanted = now.clone();
        self.apply(change, &mut wanted, place);
        self.check_settings(doing, place, &now, &wanted)?;
        Ok(ModifyPlan::Prepare(pf, vf, change.clone()))
    }

    /// The rules that hold whether or not the function is there yet.
    fn check_settings(
        &self,
        doing: &str,
        place: Place,
        now: &Settings,
        wanted: &Settings,
    ) -> Result<(), PartError> {
        let vf = matches!(place, Place::Vf(..));
        if wanted.mac != now.mac {
            self.check_mac(doing, wanted.mac, Some(place))?;
        }
        if wanted.num_msix != now.num_msix {
            self.check_msix(doing, wanted.num_msix, vf)?;
            self.check_queues(doing, wanted.max_queues, wanted.num_msix)?;
            if let Place::Vf(pf, vf) = place {
                self.check_msix_pool(doing, pf, vf, wanted.num_msix)?;
            }
        }
        if wanted.queue_size != now.queue_size {
            self.check_queue_size(doing, wanted.queue_size)?;
        }
        if wanted.features != now.features {
            self.check_features(doing, &wanted.features)?;
        }
        Ok(())
    }

    /// VFs of a PF share its vectors, each holding what it has, is promised, or would be born with.
    fn check_msix_pool(&self, doing: &str, pf: PfId, vf: VfId, num_msix: u16) -> Result<(), PartError> {
        let Some(pool) = self.bounds.vf_msix_pool else { return Ok(()) };
        let default = self.bounds.vf_default_msix;
        let held: u32 = (0..self.bounds.limits.vfs_per_pf)
            .filter_map(|index| VfId::try_from(u32::from(index)).ok())
            .filter(|other| *other != vf)
            .map(|other| {
                let live = self
                    .functions
                    .get(&Place::Vf(pf, other))
                    .and_then(|emulated| emulated.emulation.as_ref())
                    .map(|emulation| emulation.settings.num_msix);
                let promised = || self.prepared.get(&(pf, other)).and_then(|change| change.num_msix);
                u32::from(live.or_else(promised).unwrap_or(default))
            })
            .sum();
        let free = pool.saturating_sub(held);
        if u32::from(num_msix) <= free {
            return Ok(());
        }
        Err(PartError::refused(
            Refusal::MsixAboveLimit,
            format!(
                "{doing}: {num_msix} MSI-X vectors: PF {pf}'s pool of {pool} ({}={default} for each VF) has {free} \
                 left: take some from another VF first",
                self.bounds.msix_setting(true)
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use virtnet_model::{HostDriver, Mac};

    use super::*;
    use crate::{DeviceEvent, Emulated, EngineConfig, fixture};

    /// A static PF whose machine is off, and which may have two VFs.
    fn table() -> Table {
        let device =
            fixture::device(&[("VIRTIO_NET_EMULATION_NUM_PF", "1"), ("VIRTIO_NET_EMULATION_NUM_VF", "2")]);
        let mut table = fixture::table(device, EngineConfig::default());
        let place = Place::Static(PfId::MIN);
        let settings = table.birth(place).unwrap();
        let pf = Emulated {
            emulation: Some(Emulation { settings, sf: None }),
            socket: Some("/run/pf-0".into()),
            vf_sockets: vec!["/run/pf-0-vf-0".into(), "/run/pf-0-vf-1".into()],
            ..Emulated::default()
        };
        table.absorb(DeviceEvent::Function(place, Some(pf)));
        table
    }

    fn change(last: u8) -> Change {
        Change { mac: Some(Mac::local([0, 0, 0, 0, last])), ..Change::default() }
    }

    #[test]
    fn a_pf_tells_what_a_machine_is_to_be_started_with_for_its_vfs() {
        let mut table = table();
        let target = Target::Vf(PfId::MIN, VfId::MIN);
        let plan = table.admit_modify(&target, &change(7)).unwrap();
        let ModifyPlan::Prepare(pf, vf, prepared) = plan else { panic!("{plan:?}") };
        table.prepared.insert((pf, vf), prepared);
        let pf = table.function(Place::Static(PfId::MIN)).unwrap();
        let told: Vec<_> = pf.vfs.iter().map(|vf| (vf.vuid.to_string(), vf.mac, vf.socket.clone())).collect();
        let other = table.birth(Place::Vf(PfId::MIN, VfId::try_from(1).unwrap())).unwrap().mac;
        assert_eq!(
            told,
            [
                ("VNETS0D0F0VF1".to_owned(), Mac::local([0, 0, 0, 0, 7]), Some("/run/pf-0-vf-0".into())),
                ("VNETS0D0F0VF2".to_owned(), other, Some("/run/pf-0-vf-1".into())),
            ]
        );
    }

    #[test]
    fn what_a_machine_was_started_with_is_changed_while_it_is_off_alone() {
        let mut table = table();
        let target = Target::Static(PfId::MIN);
        assert!(matches!(table.admit_modify(&target, &change(7)), Ok(ModifyPlan::Configure(..))));
        for driver in [HostDriver { seen: true, in_use: false }, HostDriver { seen: true, in_use: true }] {
            let place = Place::Static(PfId::MIN);
            let pf = Emulated { driver, ..table.functions[&place].clone() };
            table.absorb(DeviceEvent::Function(place, Some(pf)));
            let refused = table.admit_modify(&target, &change(7)).unwrap_err();
            assert_eq!(refused.refusal(), Some(Refusal::MachineRuns), "{refused}");
            assert!(refused.message.contains("/run/pf-0 was started with"), "{refused}");
            assert!(matches!(table.admit_modify(&target, &Change::default()), Ok(ModifyPlan::Nothing)));
        }
    }
}
