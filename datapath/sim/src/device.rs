//! The simulated hardware, firmware and SF drivers, and the trait [`DeviceModel`] over them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use virtnet_controller::{
    DeviceEvent, DeviceModel, DeviceState, DeviceWatch, Emulated, Emulation, Place, Profile, Sf, SfKey,
};
use virtnet_model::{
    EswitchPort, FirmwareValues, HostPower, Moderation, PartError, PfId, QueueState, Refusal, SfNumber,
    Uplink, representor_name,
};

use crate::effect::{Effect, Part};
use crate::links::uplink_netdev;
use crate::queues::FunctionQueues;
use crate::shared::Shared;
use crate::world::{Action, World};

/// The first number of an SF's own RDMA device; those below are the ports'.
const FIRST_RDMA: u32 = 2;
/// The first VHCA id of an SF; those below are of the ports' own functions, on the DPU and on the host.
const FIRST_VHCA: u16 = 4;

/// The uplinks, each with the default MTU.
fn uplink_mtus(bonded: bool) -> BTreeMap<Uplink, u32> {
    let uplinks = if bonded { vec![Uplink::Bond] } else { vec![Uplink::P0, Uplink::P1] };
    uplinks.into_iter().map(|uplink| (uplink, 1500)).collect()
}

/// The device's state.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) functions: BTreeMap<Place, Emulated>,
    pub(crate) queues: BTreeMap<Place, FunctionQueues>,
    pub(crate) sfs: BTreeMap<SfKey, Sf>,
    pub(crate) uplink_mtus: BTreeMap<Uplink, u32>,
    watchers: Vec<mpsc::UnboundedSender<DeviceEvent>>,
}

impl Device {
    pub(crate) fn new(bonded: bool) -> Self {
        Self {
            functions: BTreeMap::new(),
            queues: BTreeMap::new(),
            sfs: BTreeMap::new(),
            uplink_mtus: uplink_mtus(bonded),
            watchers: Vec::new(),
        }
    }

    /// Functions and SFs are volatile. Whoever watched has to watch anew.
    pub(crate) fn power_cycle(&mut self) {
        self.functions.clear();
        self.queues.clear();
        self.sfs.clear();
        for mtu in self.uplink_mtus.values_mut() {
            *mtu = 1500;
        }
        self.watchers.clear();
    }

    pub(crate) fn emit(&mut self, event: &DeviceEvent) {
        self.watchers.retain(|watcher| watcher.send(event.clone()).is_ok());
    }
}

impl World {
    /// A firmware value in force, where it is a number.
    pub(crate) fn firmware_number(&self, port: EswitchPort, key: &str) -> u32 {
        let state = self.firmware.get(&port);
        state.and_then(|state| state.current.get(key)).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn current_firmware(&self) -> BTreeMap<EswitchPort, FirmwareValues> {
        self.firmware.iter().map(|(port, state)| (*port, state.current.clone())).collect()
    }

    /// The static PFs of the firmware's configuration, which no controller has configured yet.
    pub(crate) fn make_static_pfs(&mut self) {
        if self.firmware_number(EswitchPort::P0, "VIRTIO_NET_EMULATION_ENABLE") == 0 {
            return;
        }
        let count = self.firmware_number(EswitchPort::P0, "VIRTIO_NET_EMULATION_NUM_PF");
        for pf in (0..count).filter_map(|pf| PfId::try_from(pf).ok()) {
            self.set_function(Place::Static(pf), Some(Emulated::default()));
        }
    }

    /// Makes the function at a place what is given, and says so.
    pub(crate) fn set_function(&mut self, place: Place, function: Option<Emulated>) {
        match &function {
            Some(emulated) => self.device.functions.insert(place, emulated.clone()),
            None => {
                self.device.queues.remove(&place);
                self.device.functions.remove(&place)
            }
        };
        self.device.emit(&DeviceEvent::Function(place, function));
    }

    /// Changes the function at a place, if there is one.
    pub(crate) fn edit_function(&mut self, place: Place, edit: impl FnOnce(&mut Emulated)) {
        if let Some(mut emulated) = self.device.functions.get(&place).cloned() {
            edit(&mut emulated);
            self.set_function(place, Some(emulated));
        }
    }

    fn watch_device(&mut self) -> DeviceWatch {
        let (sender, events) = mpsc::unbounded_channel();
        self.device.watchers.push(sender);
        let state = DeviceState {
            profile: Profile {
                firmware: self.current_firmware(),
                base_mac: self.config.base_mac,
                max_virtq: self.config.max_virtq,
                max_queue_size: self.config.max_queue_size,
                features: self.config.features.clone(),
                host_io_space: self.config.host_io_space,
                hosts: BTreeMap::new(),
            },
            uplink_mtus: self.device.uplink_mtus.clone(),
            functions: self.device.functions.clone(),
            sfs: self.device.sfs.clone(),
        };
        DeviceWatch { state, events }
    }

    /// Makes an SF, as `devlink port add` does.
    pub(crate) fn create_sf(
        &mut self,
        uplink: Uplink,
        number: SfNumber,
        foreign: bool,
    ) -> Result<(), PartError> {
        let key = SfKey { port: uplink.port(), number };
        let doing = format!("create {key}");
        self.reachable(&doing)?;
        if !self.device.uplink_mtus.contains_key(&uplink) {
            return Err(PartError::refused(
                Refusal::NoSuchUplink,
                format!("{doing}: there is no uplink {uplink}"),
            ));
        }
        if self.device.sfs.contains_key(&key) {
            return Err(PartError::refused(Refusal::SfNumberInUse, format!("{doing}: it exists")));
        }
        let total = self.firmware_number(key.port, "PF_TOTAL_SF");
        let present = self.device.sfs.keys().filter(|sf| sf.port == key.port).count();
        if u32::try_from(present).unwrap_or(u32::MAX) >= total {
            return Err(PartError::refused(
                Refusal::SfExhausted,
                format!("{doing}: PF_TOTAL_SF={total} of {} is spent", key.port),
            ));
        }
        let sf = Sf {
            parent: self.config.rdma_devices.of(uplink).to_owned(),
            rdma_device: Some(self.free_rdma_device()),
            representor: representor_name(key.port, number),
            foreign,
            vhca_id: self.free_vhca_id(),
        };
        self.device.sfs.insert(key, sf.clone());
        self.device.emit(&DeviceEvent::Sf(key, Some(sf)));
        self.schedule(self.config.timing.netdev, Action::NetdevAppears(key));
        Ok(())
    }

    fn free_rdma_device(&self) -> String {
        let taken: BTreeSet<&str> =
            self.device.sfs.values().filter_map(|sf| sf.rdma_device.as_deref()).collect();
        (FIRST_RDMA..)
            .map(|index| format!("mlx5_{index}"))
            .find(|name| !taken.contains(name.as_str()))
            .unwrap_or_else(|| unreachable!("fewer SFs than numbers"))
    }

    fn free_vhca_id(&self) -> Option<u16> {
        let taken: BTreeSet<u16> = self.device.sfs.values().filter_map(|sf| sf.vhca_id).collect();
        (FIRST_VHCA..=u16::MAX).find(|id| !taken.contains(id))
    }

    /// Removes an SF that no function uses, and its representor with it.
    pub(crate) fn destroy_sf(&mut self, key: SfKey) -> Result<(), PartError> {
        let doing = format!("destroy {key}");
        self.reachable(&doing)?;
        if !self.device.sfs.contains_key(&key) {
            return Err(PartError::failed(format!("{doing}: there is none")));
        }
        if let Some(place) = self.user_of(key) {
            return Err(PartError::failed(format!("{doing}: {place} uses it")));
        }
        self.device.sfs.remove(&key);
        self.device.emit(&DeviceEvent::Sf(key, None));
        self.netdev_vanishes(key);
        Ok(())
    }

    fn user_of(&self, key: SfKey) -> Option<Place> {
        let uses =
            |emulated: &Emulated| emulated.emulation.as_ref().and_then(|emulation| emulation.sf) == Some(key);
        self.device.functions.iter().find(|(_, emulated)| uses(emulated)).map(|(place, _)| *place)
    }

    fn check_sf(&self, doing: &str, place: Place, emulation: &Emulation) -> Result<(), PartError> {
        let Some(key) = emulation.sf else { return Ok(()) };
        if !self.device.sfs.contains_key(&key) {
            return Err(PartError::failed(format!("{doing}: there is no {key}")));
        }
        match self.user_of(key).filter(|user| *user != place) {
            Some(user) => Err(PartError::failed(format!("{doing}: {user} uses {key}"))),
            None => Ok(()),
        }
    }

    fn plug(&mut self, slot: u16, emulation: &Emulation) -> Result<(), PartError> {
        let place = Place::Slot(slot);
        let doing = format!("plug into {place}");
        self.reachable(&doing)?;
        let enabled = self.firmware_number(EswitchPort::P0, "PCI_SWITCH_EMULATION_ENABLE") == 1;
        let ports = self.firmware_number(EswitchPort::P0, "PCI_SWITCH_EMULATION_NUM_PORT");
        if !enabled || u32::from(slot) >= ports {
            return Err(PartError::failed(format!("{doing}: the emulated switch has {ports} ports")));
        }
        if self.device.functions.contains_key(&place) {
            return Err(PartError::failed(format!("{doing}: it is taken")));
        }
        self.check_sf(&doing, place, emulation)?;
        self.set_function(
            place,
            Some(Emulated { emulation: Some(emulation.clone()), ..Emulated::default() }),
        );
        self.appears(place);
        Ok(())
    }

    fn unplug(&mut self, slot: u16) -> Result<(), PartError> {
        let place = Place::Slot(slot);
        self.reachable("unplug")?;
        if !self.device.functions.contains_key(&place) {
            return Err(PartError::failed(format!("unplug from {place}: it is empty")));
        }
        self.set_function(place, None);
        self.host.forget(place);
        Ok(())
    }

    fn configure(&mut self, place: Place, emulation: &Emulation) -> Result<(), PartError> {
        let doing = format!("configure {place}");
        self.reachable(&doing)?;
        let Some(emulated) = self.device.functions.get(&place) else {
            return Err(PartError::failed(format!("{doing}: there is none")));
        };
        if emulated.driver.in_use {
            return Err(PartError::refused(
                Refusal::DriverLoaded,
                format!("{doing}: Virtio driver should not be loaded"),
            ));
        }
        self.check_sf(&doing, place, emulation)?;
        self.edit_function(place, |emulated| emulated.emulation = Some(emulation.clone()));
        self.schedule_probe(place);
        Ok(())
    }

    /// A function has appeared on the bus.
    pub(crate) fn appears(&mut self, place: Place) {
        if self.host.power == HostPower::Running {
            self.schedule(self.config.timing.enumerate, Action::Enumerate(place));
        }
    }

    /// Sets the MTU in bytes of a physical port or of the bond.
    pub(crate) fn set_uplink_mtu(&mut self, uplink: Uplink, mtu: u32) {
        if let Some(present) = self.device.uplink_mtus.get_mut(&uplink) {
            *present = mtu;
            self.device.emit(&DeviceEvent::Uplink(uplink, Some(mtu)));
            self.add_uplink_netdevs();
            self.touch(Part::Links);
        }
    }

    /// Makes one bond of the ports, or takes it apart. The RDMA devices of the ports give way to the bond's, or the other way, and
    /// SFs that are there are of those that are there then. What is so already is left alone.
    pub(crate) fn set_bonded(&mut self, bonded: bool) {
        if self.device.uplink_mtus.contains_key(&Uplink::Bond) == bonded {
            return;
        }
        let before = std::mem::replace(&mut self.device.uplink_mtus, uplink_mtus(bonded));
        for uplink in before.into_keys() {
            self.links.remove(&uplink_netdev(uplink));
            self.device.emit(&DeviceEvent::Uplink(uplink, None));
        }
        let after = self.device.uplink_mtus.clone();
        for (uplink, mtu) in after {
            self.device.emit(&DeviceEvent::Uplink(uplink, Some(mtu)));
        }
        let rdma_devices = &self.config.rdma_devices;
        for (key, sf) in &mut self.device.sfs {
            let uplink = match (bonded, key.port) {
                (true, _) => Uplink::Bond,
                (false, EswitchPort::P0) => Uplink::P0,
                (false, EswitchPort::P1) => Uplink::P1,
            };
            rdma_devices.of(uplink).clone_into(&mut sf.parent);
        }
        for (key, sf) in self.device.sfs.clone() {
            self.device.emit(&DeviceEvent::Sf(key, Some(sf)));
        }
        self.add_uplink_netdevs();
        self.touch(Part::Links);
    }
}

/// The device that the controller runs on.
#[derive(Debug)]
pub(crate) struct SimDevice(pub(crate) Arc<Shared>);

#[async_trait]
impl DeviceModel for SimDevice {
    async fn watch(&self) -> Result<DeviceWatch, PartError> {
        self.0.with(|world| {
            world.reachable("watch the device")?;
            Ok(world.watch_device())
        })
    }

    async fn create_sf(&self, uplink: Uplink, number: SfNumber) -> Result<(), PartError> {
        self.0.perform(Effect::CreateSf, |world| world.create_sf(uplink, number, false)).await
    }

    async fn destroy_sf(&self, sf: SfKey) -> Result<(), PartError> {
        self.0.perform(Effect::DestroySf, |world| world.destroy_sf(sf)).await
    }

    async fn plug(&self, slot: u16, emulation: &Emulation) -> Result<(), PartError> {
        self.0.perform(Effect::DevicePlug, |world| world.plug(slot, emulation)).await
    }

    async fn unplug(&self, slot: u16) -> Result<(), PartError> {
        self.0.perform(Effect::DeviceUnplug, |world| world.unplug(slot)).await
    }

    async fn configure(&self, place: Place, emulation: &Emulation) -> Result<(), PartError> {
        self.0.perform(Effect::DeviceConfigure, |world| world.configure(place, emulation)).await
    }

    async fn queues(&self, place: Place) -> Result<Vec<QueueState>, PartError> {
        self.0.with(|world| world.queues(place))
    }

    async fn moderate(&self, place: Place, moderation: Moderation) -> Result<(), PartError> {
        self.0.perform(Effect::DeviceModerate, |world| world.moderate(place, moderation)).await
    }
}
