//! What is there: all parts of the DPU read back at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use virtnet_client::chain;
use virtnet_model::{
    Controller, ControllerState, EswitchPort, Firmware, FirmwareState, Host, HostState, IfName, Link, Links,
    PartError, Switch, SwitchState,
};
use virtnet_sim::Sim;

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

/// All hands on a simulated DPU.
impl From<&Sim> for Parts {
    fn from(sim: &Sim) -> Self {
        Self {
            controller: sim.controller(),
            switch: sim.switch(),
            links: sim.links(),
            firmware: sim.firmware(),
            host: sim.host(),
        }
    }
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
    /// Reads all parts at the same time. One that doesn't answer for half a minute is one that can't be read.
    pub async fn observe(&self) -> Observed {
        let (controller, switch, links, firmware, host) = futures::join!(
            answer(self.controller.observe()),
            answer(self.switch.observe()),
            answer(self.links.observe()),
            answer(self.firmware.observe()),
            answer(self.host.observe()),
        );
        Observed { controller, switch, links, firmware, host }
    }
}

/// How long a part may take to tell its state.
const GIVE_UP: Duration = Duration::from_secs(30);

async fn answer<T>(observation: impl Future<Output = Result<T, PartError>>) -> Result<T, String> {
    match tokio::time::timeout(GIVE_UP, observation).await {
        Ok(result) => result.map_err(|error| chain(&error)),
        Err(_) => Err(format!("it did not tell its state in {} s", GIVE_UP.as_secs())),
    }
}

impl Observed {
    /// Whether every part could be read.
    pub fn is_complete(&self) -> bool {
        let Self { controller, switch, links, firmware, host } = self;
        controller.is_ok() && switch.is_ok() && links.is_ok() && firmware.is_ok() && host.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_never_answers_can_not_be_read() {
        assert_eq!(answer(async { Ok(7) }).await, Ok(7));
        assert_eq!(
            answer(std::future::pending::<Result<(), PartError>>()).await,
            Err("it did not tell its state in 30 s".to_owned())
        );
    }
}
