//! [`SoftDevice`]: what a controller asks of the device, done. What is in slots is done in `slot`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::task::AbortHandle;
use virtnet_controller::{DeviceModel, DeviceWatch, Emulated, Emulation, Place, Sf, SfKey};
use virtnet_model::{Moderation, PartError, QueueState, Refusal, SfNumber, Uplink, representor_name};
use virtnet_netlink::{NetlinkLinks, Representors};
use virtnet_qemu_host::{Bus, ConfigError as HostError};
use virtnet_soft::{Carries, Function, FunctionError, Program, ReplaceError, Socket, Tap, Workers};

use crate::config::SoftConfig;
use crate::table::{BackEnd, Held, HeldSf, Table};
use crate::{hosts, links, profile, queues};

/// The RDMA device that SFs are said to be made on: there is none.
const PARENT: &str = "soft0";

/// A DPU in software. It ends with its last clone: functions and representors go, and the process that moves packets.
#[derive(Clone, Debug)]
pub struct SoftDevice(pub(crate) Arc<Shared>);

/// What operations and tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: SoftConfig,
    pub(crate) carries: Carries,
    pub(crate) workers: Workers,
    table: Mutex<Table>,
    /// The buses of the hosts, by name.
    pub(crate) buses: BTreeMap<String, Arc<Bus>>,
    followers: Mutex<Vec<AbortHandle>>,
    /// Operations on one function follow one another.
    places: Mutex<BTreeMap<Place, Arc<tokio::sync::Mutex<()>>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for follower in lock(&self.followers).drain(..) {
            follower.abort();
        }
    }
}

/// Whoever panicked was between two whole steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a device can't be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder of its sockets can't be made.
    #[error("making the folder {} of functions' sockets", path.display())]
    Sockets {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The function of a VF, which is there from the start, can't be opened.
    #[error("{place}")]
    Vf {
        /// The VF.
        place: Place,
        /// Why.
        #[source]
        source: FunctionError,
    },
    /// A host can't be meant.
    #[error("the host {name}")]
    Host {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: HostError,
    },
    /// What happens to representors can't be followed.
    #[error("opening a socket of rtnetlink, to follow representors")]
    Links(#[source] std::io::Error),
}

impl SoftDevice {
    /// Starts a device, the process that moves packets (`program`), and the search for its hosts, which may come later. Its representors
    /// are in the network namespace of the threads of the runtime that it is called in.
    ///
    /// # Errors
    /// Where the folder of the sockets or the socket of a VF can't be made, or the kernel refuses a socket of rtnetlink.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(config: SoftConfig, carries: Carries, program: Program) -> Result<Self, StartError> {
        std::fs::create_dir_all(&config.sockets)
            .map_err(|source| StartError::Sockets { path: config.sockets.clone(), source })?;
        let mut buses = BTreeMap::new();
        for (name, host) in &config.hosts {
            let bus =
                Bus::start(host.clone()).map_err(|source| StartError::Host { name: name.clone(), source })?;
            buses.insert(name.clone(), Arc::new(bus));
        }
        let uplink_mtus = BTreeMap::from([(Uplink::P0, config.uplink_mtu.get().into())]);
        let mut table = Table::new(profile::profile(&config, carries), uplink_mtus);
        for pf in config.pfs() {
            let vf_sockets = config.vfs_of(pf).map(|vf| config.socket(vf)).collect();
            let emulated = Emulated { vf_sockets, ..Emulated::default() };
            table.add(Place::Static(pf), Held { emulated, ..Held::default() });
        }
        let shared = Arc::new(Shared {
            config,
            carries,
            workers: Workers::start(program),
            table: Mutex::new(table),
            buses,
            followers: Mutex::default(),
            places: Mutex::default(),
        });
        for vf in shared.config.pfs().flat_map(|pf| shared.config.vfs_of(pf)) {
            shared.open_vf(vf).map_err(|source| StartError::Vf { place: vf, source })?;
        }
        let representors = NetlinkLinks::open(Representors::Taps).map_err(StartError::Links)?;
        let following = links::follow(Arc::downgrade(&shared), representors);
        lock(&shared.followers).push(tokio::spawn(following).abort_handle());
        for (name, bus) in &shared.buses {
            let following = hosts::follow(Arc::downgrade(&shared), name.clone(), bus.watch());
            lock(&shared.followers).push(tokio::spawn(following).abort_handle());
        }
        Ok(Self(shared))
    }

    /// Has another program move the packets from now on, as a live update does. Drivers see no reset; packets wait meanwhile.
    ///
    /// # Errors
    /// Where it can't be started; the one before goes on then.
    pub async fn update(&self, program: Program) -> Result<(), ReplaceError> {
        self.0.workers.replace(program).await
    }

    /// The process that moves packets, and every change of it.
    pub fn worker(&self) -> tokio::sync::watch::Receiver<virtnet_soft::WorkerState> {
        self.0.workers.watch()
    }

    /// Closes what is behind the functions: their sockets are gone when it returns. What is in slots stays there.
    pub async fn close(&self) {
        let places = self.0.table().back_ends();
        for place in places {
            let back_end = self.0.table().take_back_end(place);
            Shared::close(back_end).await;
        }
    }
}

impl Shared {
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// The right to change a function.
    pub(crate) async fn change(&self, place: Place) -> tokio::sync::OwnedMutexGuard<()> {
        let right = Arc::clone(lock(&self.places).entry(place).or_default());
        right.lock_owned().await
    }

    /// The bus that a place is on, where there is one.
    pub(crate) fn bus(&self, place: Place) -> Option<Arc<Bus>> {
        let name = match place {
            Place::Slot(slot) => self.config.host_of(slot)?,
            Place::Static(pf) | Place::Vf(pf, _) => {
                let found = self.config.hosts.iter().find(|(_, host)| host.static_pfs.contains_key(&pf));
                found.map(|(name, _)| name.as_str())?
            }
        };
        self.buses.get(name).map(Arc::clone)
    }

    /// Whether a function is put on its bus here, and not by whoever started the machine.
    pub(crate) fn is_plugged(&self, place: Place) -> bool {
        matches!(place, Place::Slot(_)) && self.bus(place).is_some()
    }

    /// The socket of a function.
    pub(crate) fn socket(&self, place: Place) -> PathBuf {
        self.config.socket(place)
    }

    /// The representor of an SF that a function is to have, and no other has. It is the controller's to give one SF to one function at a time.
    pub(crate) fn representor(&self, doing: &str, place: Place, key: SfKey) -> Result<Arc<Tap>, PartError> {
        let table = self.table();
        if let Some(user) = table.user_of(key).filter(|user| *user != place) {
            return Err(PartError::failed(format!("{doing}: {user} uses {key}")));
        }
        match table.sf(key) {
            Some(held) => Ok(Arc::clone(&held.tap)),
            None => Err(PartError::failed(format!("{doing}: there is no {key}"))),
        }
    }

    /// Opens what is behind a function, with its SF's representor.
    pub(crate) fn open(
        &self,
        doing: &str,
        place: Place,
        emulation: &Emulation,
    ) -> Result<Function, PartError> {
        let Some(key) = emulation.sf else {
            return Err(PartError::failed(format!("{doing}: it has no SF")));
        };
        let tap = self.representor(doing, place, key)?;
        let socket = Socket::Serve(self.socket(place));
        Function::open(&self.workers, Some(tap), &emulation.settings, self.carries, socket)
            .map_err(|error| PartError::failed(doing.to_owned()).caused_by(error))
    }

    /// Begins to follow what the driver of a function does.
    pub(crate) fn back_end(self: &Arc<Self>, place: Place, function: Function) -> BackEnd {
        let following = hosts::follow_driver(Arc::downgrade(self), place, function.watch());
        let follower = tokio::spawn(following).abort_handle();
        BackEnd { function: Arc::new(function), follower }
    }

    /// Closes what was behind a function.
    pub(crate) async fn close(back_end: Option<BackEnd>) {
        let Some(back_end) = back_end else { return };
        back_end.follower.abort();
        let function = Arc::clone(&back_end.function);
        drop(back_end);
        // Nothing else has it but an operation on the same function, of which there is none.
        if let Some(function) = Arc::into_inner(function) {
            function.close().await;
        }
    }

    /// Takes in what is known of a function now, whoever told it before, and in whatever order.
    pub(crate) fn look_at(&self, place: Place) {
        let bus = self.bus(place).map(|bus| bus.state());
        let by_socket = !self.is_plugged(place);
        let mut table = self.table();
        let driver = table.back_end(place).map(|function| function.watch());
        let seen = bus.as_ref().map(|bus| bus.borrow());
        let seen = seen.as_ref().map(|bus| bus.functions.get(&place));
        table.see(place, seen, driver.as_ref().map(|driver| driver.borrow()).as_deref(), by_socket);
    }

    async fn configure(self: &Arc<Self>, place: Place, emulation: &Emulation) -> Result<(), PartError> {
        let doing = format!("configure {place}");
        if matches!(place, Place::Vf(..)) {
            return self.configure_vf(&doing, place, emulation).await;
        }
        let _right = self.change(place).await;
        let (now, function) = {
            let table = self.table();
            let Some(held) = table.function(place) else {
                return Err(PartError::failed(format!("{doing}: there is none")));
            };
            if held.emulated.driver.in_use {
                return Err(PartError::refused(
                    Refusal::DriverLoaded,
                    format!("{doing}: Virtio driver should not be loaded"),
                ));
            }
            let function = table.back_end(place).map(Arc::clone);
            (held.emulated.emulation.clone(), function)
        };
        match (now, function) {
            (Some(now), Some(function)) if now.sf == emulation.sf => {
                if now.settings != emulation.settings {
                    self.reconfigure(&doing, place, &function, &now.settings, &emulation.settings).await?;
                }
                drop(function);
                let mut table = self.table();
                // It is wanted there again.
                table.set_leaving(place, false);
                table.edit(place, |emulated| emulated.emulation = Some(emulation.clone()));
            }
            (_, function) => {
                drop(function);
                let before = self.table().take_back_end(place);
                Self::close(before).await;
                let back_end = match emulation.sf {
                    Some(_) => Some(self.open(&doing, place, emulation)?),
                    None => None,
                };
                let back_end = back_end.map(|function| self.back_end(place, function));
                let socket = (back_end.is_some() && !self.is_plugged(place)).then(|| self.socket(place));
                let mut table = self.table();
                table.configured(place, emulation, back_end);
                table.edit(place, |emulated| emulated.socket = socket);
            }
        }
        self.look_at(place);
        links::set(self, place);
        Ok(())
    }

    fn create_sf(&self, uplink: Uplink, number: SfNumber) -> Result<(), PartError> {
        let key = SfKey { port: uplink.port(), number };
        let doing = format!("create {key}");
        let mut table = self.table();
        if !table.has_uplink(uplink) {
            return Err(PartError::refused(
                Refusal::NoSuchUplink,
                format!("{doing}: there is no uplink {uplink}"),
            ));
        }
        if table.sf(key).is_some() {
            return Err(PartError::refused(Refusal::SfNumberInUse, format!("{doing}: it exists")));
        }
        let representor = representor_name(key.port, number);
        let tap = Tap::create(&representor, 1).map_err(|error| {
            PartError::failed(format!("{doing}: making the TAP {representor}")).caused_by(error)
        })?;
        let sf =
            Sf { parent: PARENT.to_owned(), rdma_device: None, representor, foreign: false, vhca_id: None };
        table.add_sf(key, HeldSf { sf, tap: Arc::new(tap), up: false });
        Ok(())
    }

    fn destroy_sf(&self, key: SfKey) -> Result<(), PartError> {
        let doing = format!("destroy {key}");
        let mut table = self.table();
        if table.sf(key).is_none() {
            return Err(PartError::failed(format!("{doing}: there is none")));
        }
        if let Some(user) = table.user_of(key) {
            return Err(PartError::failed(format!("{doing}: {user} uses it")));
        }
        table.remove_sf(key);
        Ok(())
    }
}

/// Runs an operation in a task of its own: half of one is worse than one that nobody waits for.
async fn to_its_end<F>(device: &SoftDevice, operation: impl FnOnce(Arc<Shared>) -> F) -> Result<(), PartError>
where
    F: Future<Output = Result<(), PartError>> + Send + 'static,
{
    let task = tokio::spawn(operation(Arc::clone(&device.0)));
    task.await.unwrap_or_else(|ended| match ended.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(PartError::unavailable("the service is ending")),
    })
}

#[async_trait]
impl DeviceModel for SoftDevice {
    async fn watch(&self) -> Result<DeviceWatch, PartError> {
        Ok(self.0.table().watch())
    }

    async fn create_sf(&self, uplink: Uplink, number: SfNumber) -> Result<(), PartError> {
        self.0.create_sf(uplink, number)
    }

    async fn destroy_sf(&self, sf: SfKey) -> Result<(), PartError> {
        self.0.destroy_sf(sf)
    }

    async fn plug(&self, slot: u16, emulation: &Emulation) -> Result<(), PartError> {
        let emulation = emulation.clone();
        to_its_end(self, |shared| async move { shared.plug(slot, &emulation).await }).await
    }

    async fn unplug(&self, slot: u16) -> Result<(), PartError> {
        to_its_end(self, |shared| async move { shared.unplug(slot).await }).await
    }

    async fn configure(&self, place: Place, emulation: &Emulation) -> Result<(), PartError> {
        let emulation = emulation.clone();
        to_its_end(self, |shared| async move { shared.configure(place, &emulation).await }).await
    }

    async fn queues(&self, place: Place) -> Result<Vec<QueueState>, PartError> {
        let table = self.0.table();
        let Some(emulation) = table.function(place).and_then(|held| held.emulated.emulation.as_ref()) else {
            return Err(PartError::failed(format!("query the queues of {place}: it is not configured")));
        };
        let settings = &emulation.settings;
        let (state, counted) = table.back_end(place).map_or_else(Default::default, |function| {
            (function.watch().borrow().clone(), function.counters(settings.max_queues))
        });
        Ok(queues::queues(settings, &state, &counted))
    }

    async fn moderate(&self, place: Place, _moderation: Moderation) -> Result<(), PartError> {
        Err(PartError::failed(format!(
            "moderate {place}: a function in software interrupts its driver once for what it got at once, and not later"
        )))
    }
}
