//! What the tests of the service share.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use clap::Parser;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use virtnet_controller::{DeviceState, Place};
use virtnet_model::{Controller, ControllerState, HotplugRequest, Mac, PfId, QueueSize, VfId};
use virtnet_rpc::Client;
use virtnet_sim::{Sim, SimConfig};
use virtnet_telemetry::{LogArguments, LogLevel};
use virtnetd::parent::{self, Config, Patience, Wish};
use virtnetd::recovery::Settings;
use virtnetd::socket;
use virtnetd::store::Left;

/// Far longer than anything takes on a machine that is busy too.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The program that was built.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_virtnetd");

/// A service over a simulated DPU.
pub(crate) struct Service {
    pub(crate) sim: Sim,
    pub(crate) client: Client,
    pub(crate) folder: TempDir,
    wishes: mpsc::Sender<Wish>,
    worker: watch::Receiver<Option<u32>>,
    parent: JoinHandle<anyhow::Result<()>>,
}

fn log() -> LogLevel {
    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        logs: LogArguments,
    }
    static LOG: LazyLock<LogLevel> =
        LazyLock::new(|| Arguments::parse_from(["test", "--log=off"]).logs.begin());
    LOG.clone()
}

impl Service {
    /// With these firmware values of the simulated DPU.
    pub(crate) async fn start(firmware: &[&str]) -> Self {
        Self::with(firmware, "{}").await
    }

    /// The same with this virtnet.conf.
    pub(crate) async fn with(firmware: &[&str], conf: &str) -> Self {
        let mut config = SimConfig::default();
        config.set_firmware(firmware).unwrap();
        Self::over(Sim::device_only(config, None), conf, None).await
    }

    /// Over a DPU that is there, with recovery files or without.
    pub(crate) async fn over(sim: Sim, conf: &str, recovery: Option<Settings>) -> Self {
        let service = Self::begin(sim, conf, recovery);
        service.state().await;
        service
    }

    /// One that may not come to serve.
    pub(crate) fn unready(firmware: &[&str], conf: &str) -> Self {
        let mut config = SimConfig::default();
        config.set_firmware(firmware).unwrap();
        Self::begin(Sim::device_only(config, None), conf, None)
    }

    /// One that is about to begin.
    pub(crate) fn begin(sim: Sim, conf: &str, recovery: Option<Settings>) -> Self {
        Self::patient(sim, conf, recovery, Patience::default())
    }

    /// The same with a patience of one's own.
    pub(crate) fn patient(sim: Sim, conf: &str, recovery: Option<Settings>, patience: Patience) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A program of its own, so that another can be installed.
        std::fs::copy(PROGRAM, folder.path().join("virtnetd")).unwrap();
        let path = folder.path().join("virtnetd.sock");
        let (wishes, receiver) = mpsc::channel(1);
        let (sender, worker) = watch::channel(None);
        let config = Config {
            conf: conf.to_owned(),
            conf_file: None,
            recovery,
            program: folder.path().join("virtnetd"),
            listening: socket::listen(&path, None).unwrap(),
            left: Left::default(),
            log_arguments: vec!["--log=off".to_owned()],
            log: log(),
            worker: sender,
            patience,
        };
        let parent = tokio::spawn(parent::run(config, sim.clone(), receiver));
        Self { sim, client: Client::connect(&path), folder, wishes, worker, parent }
    }

    /// Ends it wherever it is, as a kill would.
    pub(crate) fn kill(self) {
        self.parent.abort();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("virtnetd.sock")
    }

    /// What the controller says.
    pub(crate) async fn state(&self) -> ControllerState {
        timeout(LIMIT, self.client.observe()).await.unwrap().unwrap()
    }

    /// What the device says.
    pub(crate) async fn device(&self) -> DeviceState {
        self.sim.device().watch().await.unwrap().state
    }

    /// The process of the worker of now.
    pub(crate) fn worker(&self) -> watch::Receiver<Option<u32>> {
        self.worker.clone()
    }

    /// Waits until there is a worker that is not this one.
    pub(crate) async fn worker_after(&self, before: Option<u32>) -> u32 {
        let mut worker = self.worker();
        let another = worker.wait_for(|worker| worker.is_some() && *worker != before);
        (*timeout(LIMIT, another).await.unwrap().unwrap()).unwrap()
    }

    pub(crate) async fn wish(&self, wish: Wish) {
        self.wishes.send(wish).await.unwrap();
    }

    /// Ends the service in good order.
    pub(crate) async fn stop(self) -> anyhow::Result<Sim> {
        self.wish(Wish::Stop).await;
        timeout(LIMIT, self.parent).await.unwrap().unwrap()?;
        Ok(self.sim)
    }

    /// Waits until something holds of the controller's state.
    pub(crate) async fn until(
        &self,
        what: &str,
        holds: impl Fn(&ControllerState) -> bool,
    ) -> ControllerState {
        let wait = async {
            loop {
                if let Ok(state) = self.client.observe().await
                    && holds(&state)
                {
                    return state;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("not seen: {what}"))
    }
}

/// Kills a process.
pub(crate) fn kill(process: u32) {
    let process = nix::unistd::Pid::from_raw(i32::try_from(process).unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
}

pub(crate) fn pf(index: u32) -> PfId {
    PfId::try_from(index).unwrap()
}

pub(crate) fn vf(index: u32) -> VfId {
    VfId::try_from(index).unwrap()
}

pub(crate) fn mac(last: u8) -> Mac {
    Mac::local([0xff, 0, 0, 0, last])
}

pub(crate) fn request(last: u8) -> HotplugRequest {
    HotplugRequest::new(mac(last), 3, QueueSize::DEFAULT)
}

/// How many functions are in slots.
pub(crate) fn plugged(device: &DeviceState) -> usize {
    device.functions.keys().filter(|place| matches!(place, Place::Slot(_))).count()
}

/// The path of a file in a folder, with a text in it.
pub(crate) fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
