//! The simulated host: its power, its bus, its drivers and its SR-IOV, and the trait [`Host`] over them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use virtnet_controller::{Emulated, Place};
use virtnet_model::{
    Bdf, EswitchPort, Events, Host, HostDriver, HostPower, HostState, PartError, PfId, Refusal, VfId,
};

use crate::effect::{Effect, Part};
use crate::queues::CONFIG_VECTOR;
use crate::shared::Shared;
use crate::world::{Action, World};

/// Static PF 0 is 85:00.0, and the first VF 85:04.5, as in the guide's section 1.3.2.
const FIRST_STATIC: u16 = 0x8500;
const FIRST_VF: u16 = 0x8525;
/// Each slot of the emulated switch is a bus of its own, from c0 on.
const FIRST_SLOT_BUS: u16 = 0xc0;

/// The host's state.
#[derive(Debug)]
pub(crate) struct HostWorld {
    pub(crate) power: HostPower,
    pub(crate) autoprobe: bool,
    num_vfs: BTreeMap<PfId, u16>,
    /// Functions that a person unbound, until they are bound again, vanish, or the host reboots.
    unbound: BTreeSet<Place>,
    boots: u64,
}

impl HostWorld {
    pub(crate) fn new(autoprobe: bool) -> Self {
        Self {
            power: HostPower::Off,
            autoprobe,
            num_vfs: BTreeMap::new(),
            unbound: BTreeSet::new(),
            boots: 0,
        }
    }

    pub(crate) fn forget(&mut self, place: Place) {
        self.unbound.remove(&place);
    }
}

impl World {
    /// Where the host's firmware puts a function: always the same.
    fn address(&self, place: Place) -> Option<Bdf> {
        let vfs = u16::try_from(self.firmware_number(EswitchPort::P0, "VIRTIO_NET_EMULATION_NUM_VF")).ok()?;
        let raw = match place {
            Place::Static(pf) => FIRST_STATIC.checked_add(pf.get()),
            Place::Vf(pf, vf) => pf.get().checked_mul(vfs)?.checked_add(vf.get())?.checked_add(FIRST_VF),
            Place::Slot(slot) => FIRST_SLOT_BUS.checked_add(slot)?.checked_mul(0x100),
        };
        Bdf::from_raw(raw?)
    }

    pub(crate) fn at(&self, bdf: Bdf) -> Result<Place, PartError> {
        let has = |emulated: &Emulated| emulated.bdf == Some(bdf);
        self.device.functions.iter().find(|(_, emulated)| has(emulated)).map(|(place, _)| *place).ok_or_else(
            || {
                PartError::refused(
                    Refusal::NoSuchFunction,
                    format!("the host has no virtio-net function {bdf}"),
                )
            },
        )
    }

    /// Power on. A host that is on stays as it is.
    pub(crate) fn host_boot(&mut self) {
        if self.host.power != HostPower::Off {
            return;
        }
        self.host.boots += 1;
        self.host.power = HostPower::Booting;
        self.schedule(self.config.timing.host_boot, Action::HostBooted(self.host.boots));
        self.touch(Part::Host);
    }

    /// Power off, or the moment at which a warm reboot resets the bus: VFs are gone, PFs have no address.
    pub(crate) fn host_off(&mut self) {
        self.host.power = HostPower::Off;
        self.host.num_vfs.clear();
        self.host.unbound.clear();
        let places: Vec<_> = self.device.functions.keys().copied().collect();
        for place in places {
            match place {
                Place::Vf(..) => self.set_function(place, None),
                Place::Static(_) | Place::Slot(_) => {
                    self.reset_queues(place);
                    self.edit_function(place, |emulated| {
                        emulated.bdf = None;
                        emulated.driver = HostDriver::default();
                        emulated.negotiated = None;
                        emulated.config_vector = None;
                        emulated.migrating = false;
                    });
                }
            }
        }
        self.touch(Part::Host);
    }

    pub(crate) fn host_booted(&mut self, boot: u64) {
        if self.host.power != HostPower::Booting || self.host.boots != boot {
            return;
        }
        self.host.power = HostPower::Running;
        let places: Vec<_> = self.device.functions.keys().copied().collect();
        for place in places {
            self.enumerate(place);
        }
        self.touch(Part::Host);
    }

    /// The host finds a function, and gives it its address.
    pub(crate) fn enumerate(&mut self, place: Place) {
        let unseen = self.device.functions.get(&place).is_some_and(|emulated| !emulated.driver.seen);
        if self.host.power != HostPower::Running || !unseen {
            return;
        }
        let bdf = self.address(place);
        self.edit_function(place, |emulated| {
            emulated.bdf = bdf;
            emulated.driver.seen = true;
        });
        if let Place::Static(pf) = place {
            self.host.num_vfs.insert(pf, 0);
            self.touch(Part::Host);
        }
        self.schedule_probe(place);
    }

    /// The driver will come up, where it can.
    pub(crate) fn schedule_probe(&mut self, place: Place) {
        if self.can_probe(place) {
            self.schedule(self.config.timing.probe, Action::Probe(place));
        }
    }

    fn can_probe(&self, place: Place) -> bool {
        let ready = self.device.functions.get(&place).is_some_and(|emulated| {
            let backed = emulated.emulation.as_ref().is_some_and(|emulation| emulation.sf.is_some());
            emulated.driver.seen && !emulated.driver.in_use && backed
        });
        ready && self.host.autoprobe && !self.host.unbound.contains(&place)
    }

    pub(crate) fn probe(&mut self, place: Place) {
        if self.can_probe(place) {
            self.driver_takes(place);
        }
    }

    /// The driver agrees with the device on features and sets DRIVER_OK. False: they don't agree (virtio 1.2, section
    /// 3.1.1, step 6), or nothing is behind the function that could answer.
    fn driver_takes(&mut self, place: Place) -> bool {
        let driver = &self.config.driver_features;
        let emulation = self.device.functions.get(&place).and_then(|emulated| emulated.emulation.as_ref());
        let backed = emulation.filter(|emulation| emulation.sf.is_some());
        let negotiated = backed.and_then(|emulation| {
            let settings = &emulation.settings;
            settings.features.negotiated(driver, settings.transitional)
        });
        let Some(negotiated) = negotiated else { return false };
        self.set_queues_up(place, &negotiated);
        self.edit_function(place, |emulated| {
            emulated.driver.in_use = true;
            emulated.negotiated = Some(negotiated);
            emulated.config_vector = Some(CONFIG_VECTOR);
        });
        true
    }

    /// `echo BDF > /sys/bus/pci/drivers/virtio-pci/unbind`. A static PF's VFs go with its driver.
    pub(crate) fn unbind(&mut self, bdf: Bdf) -> Result<(), PartError> {
        let place = self.at(bdf)?;
        self.host.unbound.insert(place);
        self.reset_queues(place);
        self.edit_function(place, |emulated| {
            emulated.driver.in_use = false;
            emulated.negotiated = None;
            emulated.config_vector = None;
        });
        if let Place::Static(pf) = place {
            self.remove_vfs(pf);
        }
        Ok(())
    }

    /// `echo BDF > /sys/bus/pci/drivers/virtio-pci/bind`.
    pub(crate) fn bind(&mut self, bdf: Bdf) -> Result<(), PartError> {
        let place = self.at(bdf)?;
        self.host.unbound.remove(&place);
        if self.driver_takes(place) {
            return Ok(());
        }
        Err(PartError::failed(format!(
            "bind {bdf}: the device has no SF behind it, or offers features that the driver can't do with"
        )))
    }

    fn remove_vfs(&mut self, pf: PfId) {
        let vfs: Vec<_> = self
            .device
            .functions
            .range(Place::Vf(pf, VfId::MIN)..=Place::Vf(pf, VfId::MAX))
            .map(|(place, _)| *place)
            .collect();
        for place in vfs {
            self.set_function(place, None);
            self.host.forget(place);
        }
        if let Some(num_vfs) = self.host.num_vfs.get_mut(&pf) {
            *num_vfs = 0;
            self.touch(Part::Host);
        }
    }

    /// `echo N > sriov_numvfs`, as the kernel takes it: from one number to another only by way of 0.
    pub(crate) fn write_num_vfs(&mut self, pf: PfId, wanted: u16) -> Result<(), PartError> {
        let doing = format!("write {wanted} to sriov_numvfs of PF {pf}");
        if self.host.power != HostPower::Running {
            return Err(PartError::unavailable(format!("{doing}: the host is not running")));
        }
        let Some(present) = self.host.num_vfs.get(&pf).copied() else {
            return Err(PartError::refused(
                Refusal::NoSuchVf,
                format!("{doing}: there is no static PF of this index, and no other has VFs"),
            ));
        };
        let most = self.firmware_number(EswitchPort::P0, "VIRTIO_NET_EMULATION_NUM_VF");
        if u32::from(wanted) > most {
            return Err(PartError::refused(
                Refusal::NoSuchVf,
                format!("{doing}: VIRTIO_NET_EMULATION_NUM_VF={most} (Numerical result out of range)"),
            ));
        }
        if wanted == present {
            return Ok(());
        }
        if wanted == 0 {
            self.remove_vfs(pf);
            return Ok(());
        }
        if present != 0 {
            return Err(PartError::failed(format!("{doing}: it has {present} (Device or resource busy)")));
        }
        self.host.num_vfs.insert(pf, wanted);
        for vf in (0..u32::from(wanted)).filter_map(|vf| VfId::try_from(vf).ok()) {
            let place = Place::Vf(pf, vf);
            self.set_function(place, Some(Emulated::default()));
            self.appears(place);
        }
        self.touch(Part::Host);
        Ok(())
    }
}

/// The way to the host.
#[derive(Debug)]
pub(crate) struct SimHost(pub(crate) Arc<Shared>);

#[async_trait]
impl Host for SimHost {
    async fn observe(&self) -> Result<HostState, PartError> {
        self.0.observe(Part::Host, |world| {
            Ok(HostState { power: world.host.power, num_vfs: world.host.num_vfs.clone() })
        })
    }

    async fn set_num_vfs(&self, pf: PfId, num_vfs: u16) -> Result<(), PartError> {
        self.0
            .perform(Effect::SetNumVfs, |world| {
                if world.host.num_vfs.get(&pf).is_some_and(|present| *present != 0 && *present != num_vfs) {
                    let most = world.firmware_number(EswitchPort::P0, "VIRTIO_NET_EMULATION_NUM_VF");
                    if u32::from(num_vfs) <= most {
                        world.write_num_vfs(pf, 0)?;
                    }
                }
                world.write_num_vfs(pf, num_vfs)
            })
            .await
    }

    fn events(&self) -> Events {
        self.0.events(Part::Host)
    }
}
