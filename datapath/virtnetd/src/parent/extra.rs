//! The methods of the socket beyond a controller's: [`Methods`].

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use serde_json::value::RawValue;
use virtnet_model::{ControllerState, PartError};
use virtnet_rpc::method::{self, Level, Log, Version};
use virtnet_rpc::{Extra, Fault, raw, read};
use virtnet_sim::Sim;
use virtnet_telemetry::LogLevel;

use super::Shared;
use super::program::Program;
use super::upstream::Upstream;
use super::workers::Handle;
use crate::host;

/// Logs, versions, restarts, and the simulated host.
#[derive(Debug)]
pub(super) struct Methods {
    shared: Arc<Shared>,
    upstream: Arc<Upstream>,
    workers: Handle,
    /// Where the program is that is installed.
    installed: PathBuf,
    sim: Sim,
    log: LogLevel,
}

impl Methods {
    pub(super) fn new(
        shared: Arc<Shared>,
        upstream: Arc<Upstream>,
        workers: Handle,
        installed: PathBuf,
        sim: Sim,
        log: LogLevel,
    ) -> Self {
        Self { shared, upstream, workers, installed, sim, log }
    }

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
                let done = host::call(&self.sim, method, params).await;
                if method == host::POWER_CYCLE && done.is_ok() {
                    // The controller went down with its DPU, and whatever it had kept.
                    self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    self.workers.restart();
                }
                done
            }
        }
    }
}
