//! The device table: what the device told, and what only the controller knows. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use virtnet_model::{
    Change, ControllerState, EswitchPort, Function, FunctionId, Mac, Mtu, PfId, QueueSize, SfBudget,
    SfNumber, SubFunction, Target, Uplink, VfId,
};

use crate::limits::{BONDED, Bounds};
use crate::{DeviceEvent, DeviceState, Emulated, Emulation, EngineConfig, Place, Settings, Sf, SfKey, ids};

/// How: by either service's own command.
const RESTART: &str = "virtnet restart; of the vendor's, systemctl restart virtio-net-controller.service";

/// What is to be done where the bond that the controller is configured for is gone.
const UNBONDED: &str = "since the controller started, the bond was taken apart: stop the controller, set is_lag to 0, and \
    ib_dev_p0, ib_dev_p1 and ib_dev_for_static_pf to the ports' RDMA devices, without ib_dev_lag, and start it again";

/// The teardown of a PF's VFs.
#[derive(Debug)]
struct Unloading {
    gone: u32,
    /// Those that were there when the first one went, and still are.
    left: BTreeSet<Place>,
}

/// The state of a running controller.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) config: EngineConfig,
    pub(crate) bounds: Bounds,
    pub(crate) base_mac: Mac,
    pub(crate) functions: BTreeMap<Place, Emulated>,
    pub(crate) sfs: BTreeMap<SfKey, Sf>,
    pub(crate) prepared: BTreeMap<(PfId, VfId), Change>,
    /// A live update is running.
    pub(crate) updating: bool,
    /// The SFs that the pool still lacks at start.
    pub(crate) pool_wanted: u32,
    /// SFs that an earlier controller left in the pool are still to be destroyed.
    pub(crate) drain_pool: bool,
    /// PFs of which the VFs are going.
    unloading: BTreeMap<PfId, Unloading>,
    uplinks_at_start: BTreeMap<Uplink, u32>,
    uplinks_now: BTreeMap<Uplink, u32>,
}

impl Table {
    /// Takes over a device as it is.
    pub(crate) fn new(config: EngineConfig, bounds: Bounds, device: DeviceState) -> Self {
        let DeviceState { profile, uplink_mtus, functions, sfs } = device;
        let total =
            bounds.limits.sfs.get(&bounds.limits.static_uplink.port()).map_or(0, |budget| budget.total);
        let pool_wanted = total * u32::from(config.sf_pool.percent.min(100)) / 100;
        Self {
            drain_pool: config.sf_pool.force_destroy,
            unloading: BTreeMap::new(),
            config,
            bounds,
            base_mac: profile.base_mac,
            functions,
            sfs,
            prepared: BTreeMap::new(),
            updating: false,
            pool_wanted,
            uplinks_at_start: uplink_mtus.clone(),
            uplinks_now: uplink_mtus,
        }
    }

    /// Takes in what the device told.
    pub(crate) fn absorb(&mut self, event: DeviceEvent) {
        match event {
            DeviceEvent::Function(place, Some(emulated)) => {
                self.functions.insert(place, emulated);
            }
            DeviceEvent::Function(place, None) => {
                if self.functions.remove(&place).is_some() {
                    self.unload(place);
                }
            }
            DeviceEvent::Sf(key, Some(sf)) => {
                self.sfs.insert(key, sf);
            }
            DeviceEvent::Sf(key, None) => {
                self.sfs.remove(&key);
            }
            DeviceEvent::Uplink(uplink, Some(mtu)) => {
                self.uplinks_now.insert(uplink, mtu);
            }
            DeviceEvent::Uplink(uplink, None) => {
                self.uplinks_now.remove(&uplink);
            }
        }
    }

    /// Ends the teardown of a PF's VFs with the line that the guide has people wait for (section 1.3.2).
    fn unload(&mut self, place: Place) {
        let Place::Vf(pf, _) = place else { return };
        let unloading = self.unloading.entry(pf).or_insert_with(|| {
            let left = self.functions.range(Place::Vf(pf, VfId::MIN)..=Place::Vf(pf, VfId::MAX));
            Unloading { gone: 0, left: left.map(|(place, _)| *place).collect() }
        });
        unloading.gone += 1;
        unloading.left.remove(&place);
        if unloading.left.is_empty() {
            tracing::info!("PF({pf}): Unload ({}) VFs finished", unloading.gone);
            self.unloading.remove(&pf);
        }
    }

    /// Whether some of the PF's VFs have gone and others of the same generation have not: until the last has, no new one is
    /// configured.
    pub(crate) fn is_unloading(&self, pf: PfId) -> bool {
        self.unloading.contains_key(&pf)
    }

    /// What a client sees.
    pub(crate) fn report(&self) -> ControllerState {
        let functions = self
            .functions
            .keys()
            .filter_map(|place| self.function(*place))
            .map(|function| (function.id, function))
            .collect();
        let mut limits = self.bounds.limits.clone();
        for (port, budget) in &mut limits.sfs {
            *budget = self.budget_of(*port, budget.total);
        }
        ControllerState {
            functions,
            prepared: self.prepared.clone(),
            plugging: BTreeSet::new(),
            limits,
            version: self.config.version.clone(),
            updating: self.updating,
            restart_required: self.restart_required(),
        }
    }

    /// The function at a place, once the controller has configured it.
    pub(crate) fn function(&self, place: Place) -> Option<Function> {
        let emulated = self.functions.get(&place)?;
        self.described(place, emulated, emulated.emulation.as_ref()?)
    }

    fn described(&self, place: Place, emulated: &Emulated, emulation: &Emulation) -> Option<Function> {
        let Settings { mac, mtu, max_queues, queue_size, num_msix, features, transitional } =
            &emulation.settings;
        Some(Function {
            id: self.id(place)?,
            kind: ids::kind(place),
            vuid: ids::vuid(place),
            bdf: emulated.bdf,
            mac: *mac,
            mtu: *mtu,
            max_queues: *max_queues,
            max_queue_size: *queue_size,
            num_msix: *num_msix,
            features: features.clone(),
            transitional: *transitional,
            driver: emulated.driver,
            negotiated: emulated.negotiated.clone(),
            config_vector: emulated.config_vector,
            migrating: emulated.migrating,
            sf: emulation.sf.and_then(|key| self.sub_function(key)),
            socket: emulated.socket.clone(),
            vfs: self.vfs_of(place, emulated),
        })
    }

    /// The VFs of a PF whose sockets whoever starts a machine has to know: each as it is, or as it would be made.
    fn vfs_of(&self, place: Place, emulated: &Emulated) -> Vec<Function> {
        let Place::Static(pf) = place else { return Vec::new() };
        let sockets = (0u32..).zip(&emulated.vf_sockets);
        let vf = |(index, socket): (u32, &PathBuf)| {
            let place = Place::Vf(pf, VfId::try_from(index).ok()?);
            self.function(place).or_else(|| {
                let unborn = Emulated { socket: Some(socket.clone()), ..Emulated::default() };
                self.described(place, &unborn, &Emulation { settings: self.birth(place)?, sf: None })
            })
        };
        sockets.filter_map(vf).collect()
    }

    fn sub_function(&self, key: SfKey) -> Option<SubFunction> {
        self.sfs.get(&key).map(|sf| SubFunction {
            port: key.port,
            number: key.number,
            parent: sf.parent.clone(),
            rdma_device: sf.rdma_device.clone(),
            representor: sf.representor.clone(),
            vhca_id: sf.vhca_id,
        })
    }

    pub(crate) fn id(&self, place: Place) -> Option<FunctionId> {
        ids::function_id(place, self.bounds.limits.static_pfs)
    }

    /// What is to be done where the bond was made or taken apart while the controller runs. Until then there is no uplink that an
    /// SF could be made on.
    pub(crate) fn rebonded(&self) -> Option<String> {
        let bonded = |uplinks: &BTreeMap<Uplink, u32>| uplinks.contains_key(&Uplink::Bond);
        match (bonded(&self.uplinks_at_start), bonded(&self.uplinks_now)) {
            (false, true) => Some(format!("since the controller started, {BONDED}")),
            (true, false) => Some(UNBONDED.to_owned()),
            (true, true) | (false, false) => None,
        }
    }

    fn restart_required(&self) -> Option<String> {
        if let Some(why) = self.rebonded() {
            return Some(why);
        }
        let changed: Vec<_> = self
            .uplinks_now
            .iter()
            .filter_map(|(uplink, now)| {
                let at_start = self.uplinks_at_start.get(uplink).filter(|at_start| *at_start != now)?;
                Some(format!(
                    "the MTU of {uplink} changed from {at_start} to {now} since the controller started"
                ))
            })
            .collect();
        (!changed.is_empty()).then(|| format!("{}: restart the controller ({RESTART})", changed.join(", ")))
    }

    /// The settings of configured functions, by place.
    pub(crate) fn configured(&self) -> impl Iterator<Item = (Place, &Settings, Option<SfKey>)> {
        self.functions.iter().filter_map(|(place, emulated)| {
            emulated.emulation.as_ref().map(|emulation| (*place, &emulation.settings, emulation.sf))
        })
    }

    /// Whose MAC this is: a function's, or promised to a VF. `but` is not looked at.
    pub(crate) fn mac_holder(&self, mac: Mac, but: Option<Place>) -> Option<String> {
        let holder = self
            .configured()
            .find(|(place, settings, _)| settings.mac == mac && Some(*place) != but)
            .map(|(place, ..)| format!("{} ({place})", ids::vuid(place)));
        holder.or_else(|| {
            self.prepared
                .iter()
                .map(|((pf, vf), change)| (Place::Vf(*pf, *vf), change))
                .find(|(place, change)| change.mac == Some(mac) && Some(*place) != but)
                .map(|(place, _)| format!("{} ({place}, prepared)", ids::vuid(place)))
        })
    }

    /// The place of the function that the target names, if all of its identity agrees. A VF need not exist.
    pub(crate) fn place(&self, target: &Target) -> Option<Place> {
        match target {
            Target::Static(pf) => Some(Place::Static(*pf)).filter(|place| self.functions.contains_key(place)),
            Target::Vf(pf, vf) => Some(Place::Vf(*pf, *vf)),
            Target::HotPlug { vuid, mac, sf } => self.slot_of(vuid, *mac, *sf),
        }
    }

    fn slot_of(&self, vuid: &virtnet_model::Vuid, mac: Mac, number: SfNumber) -> Option<Place> {
        self.configured()
            .find(|(place, settings, sf)| {
                matches!(place, Place::Slot(_))
                    && settings.mac == mac
                    && sf.is_some_and(|sf| sf.number == number)
                    && ids::vuid(*place) == *vuid
            })
            .map(|(place, ..)| place)
    }

    /// What a function that firmware or host made is given at its birth; `None` where the place is outside the
    /// firmware's configuration.
    pub(crate) fn birth(&self, place: Place) -> Option<Settings> {
        let mut settings = self.unprepared(place)?;
        if let Place::Vf(pf, vf) = place
            && let Some(change) = self.prepared.get(&(pf, vf))
        {
            self.apply(change, &mut settings, place);
        }
        Some(settings)
    }

    /// Forgets what was prepared for VFs that have it by now, and says of which.
    pub(crate) fn drop_applied(&mut self) -> Vec<(PfId, VfId)> {
        let functions = &self.functions;
        let is_applied = |(pf, vf): &(PfId, VfId)| {
            functions.get(&Place::Vf(*pf, *vf)).is_some_and(|emulated| emulated.emulation.is_some())
        };
        let applied: Vec<_> = self.prepared.keys().copied().filter(is_applied).collect();
        self.prepared.retain(|place, _| !applied.contains(place));
        applied
    }

    /// As [`Table::birth`], with nothing prepared for it.
    pub(crate) fn unprepared(&self, place: Place) -> Option<Settings> {
        let limits = &self.bounds.limits;
        let mut settings = Settings {
            mac: self.base_mac,
            mtu: Mtu::DEFAULT,
            max_queues: self.bounds.queues_for(limits.pf_msix),
            queue_size: QueueSize::DEFAULT.min(limits.max_queue_size),
            num_msix: limits.pf_msix,
            features: self.bounds.static_pf_features.clone(),
            transitional: false,
        };
        match place {
            Place::Static(pf) => settings.mac = self.bounds.mac_base.checked_add(u64::from(pf.get()))?,
            Place::Vf(pf, vf) => {
                settings.num_msix = self.bounds.vf_default_msix;
                settings.max_queues = self.bounds.queues_for(settings.num_msix);
                settings.transitional = limits.transitional.vf;
                settings.features = self.bounds.vf_features.clone();
                settings.mac = self.free_vf_mac(place, pf, vf)?;
            }
            Place::Slot(_) => return None,
        }
        Some(settings)
    }

    /// Sets what the change names.
    pub(crate) fn apply(&self, change: &Change, settings: &mut Settings, place: Place) {
        let Change { mac, mtu, features, num_msix, queue_size } = change;
        settings.mac = mac.unwrap_or(settings.mac);
        settings.mtu = mtu.unwrap_or(settings.mtu);
        settings.queue_size = queue_size.unwrap_or(settings.queue_size);
        if let Some(features) = features {
            settings.features = features.completed();
        }
        if let Some(num_msix) = *num_msix {
            settings.num_msix = num_msix;
            // A hot-plug names its queues; what firmware or host made has as many as its vectors allow.
            if !matches!(place, Place::Slot(_)) {
                settings.max_queues = self.bounds.queues_for(num_msix);
            }
        }
    }

    fn free_vf_mac(&self, place: Place, pf: PfId, vf: VfId) -> Option<Mac> {
        let configured = self.bounds.vf_macs.and_then(|macs| macs.of(pf, vf));
        let made = (0..=u16::MAX).map(|attempt| ids::vf_mac(self.base_mac, pf, vf, attempt));
        configured.into_iter().chain(made).find(|mac| self.mac_holder(*mac, Some(place)).is_none())
    }

    /// How many functions have an SF of the port, by kind: VFs, static PFs, hot-plugged PFs.
    pub(crate) fn users_of(&self, port: EswitchPort) -> [u32; 3] {
        let mut users = [0; 3];
        for (place, _, sf) in self.configured() {
            if sf.is_some_and(|sf| sf.port == port) {
                let index = match place {
                    Place::Vf(..) => 0,
                    Place::Static(_) => 1,
                    Place::Slot(_) => 2,
                };
                users[index] += 1;
            }
        }
        users
    }

    fn budget_of(&self, port: EswitchPort, total: u32) -> SfBudget {
        let foreign = self.sfs.iter().filter(|(key, sf)| key.port == port && sf.foreign).count();
        SfBudget {
            total,
            used: self.users_of(port).iter().sum(),
            foreign: u32::try_from(foreign).unwrap_or(u32::MAX),
        }
    }

    /// The SFs of a port now.
    pub(crate) fn budget(&self, port: EswitchPort) -> SfBudget {
        let total = self.bounds.limits.sfs.get(&port).map_or(0, |budget| budget.total);
        self.budget_of(port, total)
    }
}
