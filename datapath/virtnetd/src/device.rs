//! What the service runs on: [`Device`], and what each kind of it can do beyond [`DeviceModel`].

use std::path::Path;
use std::sync::Arc;

use serde_json::value::RawValue;
use virtnet_controller::DeviceModel;
use virtnet_rpc::Fault;
use virtnet_sim::Sim;
#[cfg(feature = "soft")]
use virtnet_soft_device::{Program, SoftDevice};

use crate::host;

/// The device of a service.
#[derive(Clone, Debug)]
pub enum Device {
    /// A simulated DPU with its host.
    Sim(Sim),
    /// A DPU in software.
    #[cfg(feature = "soft")]
    Soft(Soft),
}

impl From<Sim> for Device {
    fn from(sim: Sim) -> Self {
        Self::Sim(sim)
    }
}

/// A DPU in software, and how the process is started that moves its packets.
#[cfg(feature = "soft")]
#[derive(Clone, Debug)]
pub struct Soft {
    /// It.
    pub device: SoftDevice,
    /// The process's arguments.
    pub arguments: Vec<std::ffi::OsString>,
}

#[cfg(feature = "soft")]
impl From<Soft> for Device {
    fn from(soft: Soft) -> Self {
        Self::Soft(soft)
    }
}

impl Device {
    /// As a controller has it.
    pub(crate) fn model(&self) -> Arc<dyn DeviceModel> {
        match self {
            Self::Sim(sim) => sim.device(),
            #[cfg(feature = "soft")]
            Self::Soft(soft) => Arc::new(soft.device.clone()),
        }
    }

    /// Does what is asked for beyond what a controller does. Only a simulation has a host that can be told what to do.
    pub(crate) async fn call(&self, method: &str, params: &RawValue) -> Result<Box<RawValue>, Fault> {
        match self {
            Self::Sim(sim) => host::call(sim, method, params).await,
            #[cfg(feature = "soft")]
            Self::Soft(_) => Err(Fault::no_such_method(method)),
        }
    }

    /// Takes a program into use that was installed and that a worker of the controller now is. What can't be is told: packets
    /// go on as before.
    pub(crate) async fn update(&self, installed: &Path) {
        match self {
            Self::Sim(_) => {
                tracing::debug!(program = %installed.display(), "a simulation has nothing to renew");
            }
            #[cfg(feature = "soft")]
            Self::Soft(Soft { device, arguments }) => {
                let program = Program { path: installed.to_owned(), arguments: arguments.clone() };
                match device.update(program).await {
                    Ok(()) => tracing::info!("packets are moved by the program that was installed"),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, "packets go on being moved by the program of before");
                    }
                }
            }
        }
    }

    /// Leaves nothing behind that would not go with this process.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sim(_) => {}
            #[cfg(feature = "soft")]
            Self::Soft(soft) => soft.device.close().await,
        }
    }
}
