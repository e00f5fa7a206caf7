//! Recovery files (the guide, section 1.1.3): one for each function, by which those that a device has lost are made again.
//!
//! | module | what lives there |
//! |---|---|
//! | `record` | what a file says of a function (pure) |
//! | `stamp` | what the files of a folder are of, by which stale ones are known (pure) |
//! | `folder` | the folder: reading, writing in groups, setting aside |
//!
//! The files follow what the controller reports, and never the other way while the service runs: what is unplugged, or goes with
//! its host or its power, has no file any more. They are obeyed once, when the service begins, before anybody is served. A file
//! that can't be read harms nothing but itself.

mod folder;
mod record;
mod stamp;

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use virtnet_controller::Profile;
use virtnet_controller::conf::RdmaDevices;
use virtnet_model::{
    Change, Controller, ControllerState, ErrorKind, Feature, Features, HotplugRequest, PartError, QueueSize,
    Target,
};

use folder::{Folder, Records};
use record::{DeviceType, Record, file_name};
use stamp::Stamp;

/// How long changes are gathered before they are written. While they go on it doubles up to [`GATHER_MAX`]: a disk is slow, and
/// hundreds of VFs come at once.
const GATHER: Duration = Duration::from_millis(50);
const GATHER_MAX: Duration = Duration::from_secs(1);

/// Where the files are, and how often something was waited for to reach the disk.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder.
    pub folder: PathBuf,
    /// How often: counted, for tests.
    pub syncs: Arc<AtomicU64>,
    /// What tells this time of having power from others; `None`: this boot of the machine.
    pub power_on: Option<String>,
}

impl Settings {
    /// With a folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, syncs: Arc::default(), power_on: None }
    }
}

/// The files of a service.
#[derive(Debug)]
pub(crate) struct Recovery {
    /// Held for as long as the disk takes, on a thread of its own.
    folder: Arc<Mutex<Folder>>,
    found: Records,
}

impl Recovery {
    /// Opens the folder.
    ///
    /// # Errors
    /// Where it can't be read or written. Files in it that can't be read are no error: they are set aside.
    pub(crate) fn open(settings: Settings, profile: &Profile) -> anyhow::Result<Self> {
        let Settings { folder, syncs, power_on } = settings;
        let power_on = match power_on {
            Some(power_on) => power_on,
            None => stamp::this_boot().context("reading the identity of this boot")?,
        };
        let (folder, found) = Folder::open(&folder, &Stamp::of(profile, power_on), syncs)?;
        Ok(Self { folder: Arc::new(Mutex::new(folder)), found })
    }

    /// Makes again what the files tell and the device has lost. One that can't be is set aside with the reason. Where the
    /// controller can't serve, all is left for later.
    pub(crate) async fn restore(
        &mut self,
        controller: &dyn Controller,
        rdma_devices: &RdmaDevices,
    ) -> anyhow::Result<()> {
        if self.found.is_empty() || controller.observe().await.is_err() {
            return Ok(());
        }
        let mut in_order: Vec<_> = std::mem::take(&mut self.found).into_iter().collect();
        // Indices follow the order in which functions are plugged.
        in_order.sort_by_key(|(_, record)| (record.pf_id, record.vf_id));
        for (name, record) in in_order {
            match restore_one(&record, controller, rdma_devices).await {
                Ok(()) => tracing::debug!("{name}: as it was"),
                // Nothing is wrong with the file.
                Err(error) if error.kind == ErrorKind::Unavailable => {
                    tracing::warn!("{name}: {error}; it is tried again");
                    self.found.insert(name, record);
                }
                Err(error) => {
                    let why = format!("it can't be recovered: {error}");
                    self.on_disk(move |folder| folder.set_aside(&[name], &why)).await?;
                }
            }
        }
        Ok(())
    }

    /// Keeps the files as the controller reports its functions, for as long as it is polled.
    pub(crate) async fn follow(
        &mut self,
        controller: &dyn Controller,
        rdma_devices: &RdmaDevices,
    ) -> anyhow::Result<()> {
        let mut events = controller.events();
        let mut gather = GATHER;
        loop {
            self.restore(controller, rdma_devices).await?;
            if let (true, Ok(state)) = (self.found.is_empty(), controller.observe().await) {
                let now = records(&state);
                self.keep(|_| now).await;
            }
            let written = Instant::now();
            if events.next().await.is_none() {
                return Ok(());
            }
            gather = if written.elapsed() < gather { (gather * 2).min(GATHER_MAX) } else { GATHER };
            sleep(gather).await;
        }
    }

    /// The service has ended in good order, and what was plugged was unplugged. A controller that did not serve has reported no
    /// state; then the other files stay as they are.
    pub(crate) async fn forget_plugged(&self, state: Option<&ControllerState>) {
        let reported = state.map(records);
        self.keep(|folder| {
            let mut records = reported.unwrap_or_else(|| folder.records());
            records.retain(|_, record| record.device_type != DeviceType::Hotplug);
            records
        })
        .await;
    }

    /// That a disk fails must end no service.
    async fn keep(&self, wanted: impl FnOnce(&Folder) -> Records + Send + 'static) {
        let keep = |folder: &mut Folder| {
            let records = wanted(folder);
            folder.keep(&records)
        };
        if let Err(error) = self.on_disk(keep).await {
            tracing::error!("{error:#}: after a restart it is not as it was");
        }
    }

    /// Does something to the files while all else goes on: a disk may take its time. It comes to its end though nobody waits.
    async fn on_disk(
        &self,
        work: impl FnOnce(&mut Folder) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let folder = Arc::clone(&self.folder);
        let work = move || work(&mut folder.lock().unwrap_or_else(PoisonError::into_inner));
        spawn_blocking(work).await.context("working on the recovery files")?
    }
}

/// Makes again what a file tells, where the device lacks it.
async fn restore_one(
    record: &Record,
    controller: &dyn Controller,
    rdma_devices: &RdmaDevices,
) -> Result<(), PartError> {
    let state = controller.observe().await?;
    match wanted(record, &state, rdma_devices).map_err(PartError::failed)? {
        None => Ok(()),
        Some(Wanted::Plug(request)) => controller.hotplug(&request).await.map(|_| ()),
        Some(Wanted::Modify(target, change)) => controller.modify(&target, &change).await,
    }
}

/// What is to be done about a file.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Plug(HotplugRequest),
    Modify(Target, Change),
}

/// What a device that is so lacks of a record. An error says why it can't be had. Pure.
fn wanted(
    record: &Record,
    state: &ControllerState,
    rdma_devices: &RdmaDevices,
) -> Result<Option<Wanted>, String> {
    if state.functions.values().any(|function| Record::of(function).is_some_and(|now| is_of(&now, record))) {
        return Ok(None);
    }
    let limits = &state.limits;
    let uplink = limits.uplinks.iter().find(|uplink| rdma_devices.of(**uplink) == record.port_ib_dev);
    let uplink = *uplink
        .ok_or_else(|| format!("port_ib_dev: no uplink has the RDMA device {:?}", record.port_ib_dev))?;
    let change = Change { mac: Some(record.mac), ..Change::default() };
    Ok(Some(match (record.device_type, record.vf_id) {
        // Its file tells no more of it.
        (DeviceType::Hotplug, _) => Wanted::Plug(HotplugRequest {
            uplink,
            features: (record.mq == 0).then(|| {
                let default = Features::controller_default().with(Feature::Mq, false);
                default.iter().filter(|feature| limits.features.contains(*feature)).collect()
            }),
            sf_number: Some(record.sf_num),
            ..HotplugRequest::new(
                record.mac,
                limits.pf_msix.saturating_sub(1).min(limits.max_virtq),
                QueueSize::DEFAULT,
            )
        }),
        (DeviceType::Static, None) => Wanted::Modify(Target::Static(record.pf_id), change),
        (DeviceType::Static, Some(vf)) => Wanted::Modify(Target::Vf(record.pf_id, vf), change),
    }))
}

/// Whether both are of one function with one address.
fn is_of(now: &Record, then: &Record) -> bool {
    match then.device_type {
        DeviceType::Hotplug => now.device_type == then.device_type && now.mac == then.mac,
        DeviceType::Static => {
            (now.device_type, now.pf_id, now.vf_id, now.mac)
                == (then.device_type, then.pf_id, then.vf_id, then.mac)
        }
    }
}

/// The files of what a controller reports.
fn records(state: &ControllerState) -> Records {
    let functions = state.functions.values();
    functions.filter_map(|function| Some((file_name(&function.vuid), Record::of(function)?))).collect()
}
