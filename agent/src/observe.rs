//! What is there: all parts of the DPU read back at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use virtnet_model::{
    Controller, ControllerState, EswitchPort, Firmware, FirmwareState, Host, HostState, IfName, Link, Links,
    PartError, Switch, SwitchState,
};

/// The hands of the agent: the parts of one DPU.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The virtio-net controller.
    pub controller: Arc<dyn Controller>,
    /// Open vSwitch.
    pub switch: Arc<dyn Switch>,
    /// The netdevs.
    pub links: Arc<dyn Links>,
    /// The firmware's settings.
    pub firmware: Arc<dyn Firmware>,
    /// The host.
    pub host: Arc<dyn Host>,
}

/// Each part's state, or why it could not be read.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The virtio-net controller.
    pub controller: Result<ControllerState, String>,
    /// Open vSwitch.
    pub switch: Result<SwitchState, String>,
    /// The netdevs.
    pub links: Result<BTreeMap<IfName, Link>, String>,
    /// The firmware's settings.
    pub firmware: Result<BTreeMap<EswitchPort, FirmwareState>, String>,
    /// The host.
    pub host: Result<HostState, String>,
}

impl Parts {
    /// Reads all parts at the same time.
    pub async fn observe(&self) -> Observed {
        let (controller, switch, links, firmware, host) = futures::join!(
            self.controller.observe(),
            self.switch.observe(),
            self.links.observe(),
            self.firmware.observe(),
            self.host.observe(),
        );
        Observed {
            controller: controller.map_err(|error| chain(&error)),
            switch: switch.map_err(|error| chain(&error)),
            links: links.map_err(|error| chain(&error)),
            firmware: firmware.map_err(|error| chain(&error)),
            host: host.map_err(|error| chain(&error)),
        }
    }
}

impl Observed {
    /// Whether every part could be read.
    pub fn is_complete(&self) -> bool {
        let Self { controller, switch, links, firmware, host } = self;
        controller.is_ok() && switch.is_ok() && links.is_ok() && firmware.is_ok() && host.is_ok()
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &PartError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
