//! The methods of the socket beyond a controller's: [`Methods`].

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::watch;
use virtnet_controller::advice;
use virtnet_controller::conf::Conf;
use virtnet_model::{ControllerState, PartError};
use virtnet_rpc::method::{self, Health, Level, Log, Validate, Validated, Version};
use virtnet_rpc::{Extra, Fault, raw, read};
use virtnet_telemetry::LogLevel;

use super::Shared;
use super::conf::Source;
use super::device::keep;
use super::program::Program;
use super::upstream::Upstream;
use super::workers::Handle;
use crate::device::Device;
use crate::host;

/// Logs, versions, restarts, the service's own state, and what the device can do beyond a controller's.
#[derive(Debug)]
pub(super) struct Methods {
    pub(super) shared: Arc<Shared>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) workers: Handle,
    /// The process of the worker of now.
    pub(super) worker: watch::Receiver<Option<u32>>,
    pub(super) conf: Arc<Source>,
    /// Where the program is that is installed.
    pub(super) installed: PathBuf,
    pub(super) device: Device,
    pub(super) log: LogLevel,
}

impl Methods {
    /// The parent and the worker of now log so, and those that follow.
    async fn set_log(&self, level: Level) -> Result<(), PartError> {
        let filter = match level {
            Level::Info => "info",
            Level::Err => "error",
            Level::Debug => "debug",
        };
        self.log.set(filter).map_err(PartError::failed)?;
        self.workers.set_log(filter);
        self.upstream.read(method::LOG, &filter).await
    }

    /// Whether a virtnet.conf can be used here, by itself and with what the firmware gives.
    async fn validate(&self, Validate { conf }: Validate) -> Result<Validated, PartError> {
        let (file, text) = match conf {
            Some(text) => (None, text),
            None => self.conf.next()?,
        };
        let file = file.map(|file| file.display().to_string());
        let found = match Conf::parse(&text) {
            Ok(Conf { engine, .. }) => {
                let device = self.shared.device.watch().await?.state;
                advice(&device, &engine).map_err(|error| vec![error.message])
            }
            Err(error) => Err(error.0.iter().map(ToString::to_string).collect()),
        };
        Ok(match found {
            Ok(warnings) => Validated { file, errors: Vec::new(), warnings },
            Err(errors) => Validated { file, errors, warnings: Vec::new() },
        })
    }

    fn health(&self) -> Health {
        self.shared.condition.health(&self.conf.said())
    }

    /// All that is known here, whether or not a worker answers.
    async fn debug(&self) -> Result<serde_json::Value, PartError> {
        let device = self.shared.device.watch().await.map(|watch| watch.state);
        let kept = self.shared.store.vfs_to_come();
        let kept = kept.iter().map(|((pf, vf), change)| json!({"pf": pf, "vf": vf, "change": change}));
        Ok(json!({
            "parent": {"process": std::process::id(), "version": env!("CARGO_PKG_VERSION")},
            "worker": {"process": *self.worker.borrow(), "program": self.installed},
            "health": self.health(),
            "update": self.workers.updates.status(),
            "kept": kept.collect::<Vec<_>>(),
            "device": device?,
        }))
    }

    /// What runs is what the worker says that it is.
    async fn version(&self) -> Result<Version, PartError> {
        let state: ControllerState = self.upstream.read(method::OBSERVE, &()).await?;
        let installed = async { Program::open(&self.installed)?.version().await }.await;
        // A program that can't say so can't be updated to either, and an update says why.
        let installed = installed.unwrap_or_else(|error| {
            tracing::warn!("asking {} for its version: {error:#}", self.installed.display());
            "unknown".to_owned()
        });
        Ok(Version { running: state.version, installed })
    }
}

#[async_trait]
impl Extra for Methods {
    async fn call(&self, method: &str, params: &RawValue) -> Result<Box<RawValue>, Fault> {
        match method {
            method::LOG => {
                let Log { level } = read(method, params)?;
                self.set_log(level).await?;
                raw(&())
            }
            method::VERSION => raw(&self.version().await?),
            method::HEALTH => raw(&self.health()),
            method::VALIDATE => raw(&self.validate(read(method, params)?).await?),
            method::DEBUG => raw(&self.debug().await?),
            method::UPDATE => {
                self.workers.updates.begin()?;
                raw(&())
            }
            method::UPDATE_STATUS => raw(&self.workers.updates.status()),
            method::RESTART => {
                self.workers.restart();
                raw(&())
            }
            _ => {
                let done = self.device.call(method, params).await;
                if method == host::POWER_CYCLE && done.is_ok() {
                    // The controller went down with its DPU, and whatever it had kept.
                    keep(self.shared.store.forget_vfs());
                    self.workers.restart();
                }
                done
            }
        }
    }
}
