//! [`Sim`]: a simulated DPU with its host, and its parts as the traits of `virtnet-model`.

use std::fmt;
use std::sync::{Arc, Weak};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use virtnet_controller::DeviceModel;
use virtnet_model::{Controller, Firmware, Host, Links, Netdevs, Queues, Switch};

use crate::config::SimConfig;
use crate::controller::SimController;
use crate::device::SimDevice;
use crate::firmware::SimFirmware;
use crate::host::SimHost;
use crate::links::SimLinks;
use crate::shared::Shared;
use crate::switch::SimSwitch;
use crate::world::{Action, World};

/// A DPU and its host in memory. Clones are the same DPU; it is gone when the last is dropped.
///
/// All time is tokio's, so that it passes at once under a paused clock, and all chance comes from
/// [`SimConfig::seed`]: on a runtime of one thread the same calls have the same outcome.
#[derive(Clone)]
pub struct Sim(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    controller: Arc<SimController>,
    clock: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.clock.abort();
        self.controller.stop();
    }
}

impl Sim {
    /// A DPU that has just booted, with its controller starting; its host begins to boot if so configured.
    ///
    /// # Panics
    /// Outside a tokio runtime with time.
    pub fn new(config: SimConfig) -> Self {
        Self::of(World::new(config), false)
    }

    /// A DPU that has just booted without a controller of its own: another runs on [`Sim::device`].
    ///
    /// # Panics
    /// Outside a tokio runtime with time.
    pub fn device_only(config: SimConfig, netdevs: Option<Arc<dyn Netdevs>>) -> Self {
        let udev_renames = config.udev_renames && netdevs.is_none();
        let mut world = World::new(SimConfig { udev_renames, ..config });
        world.real_netdevs = netdevs;
        Self::of(world, true)
    }

    /// The same with representors that are netdevs too. Their names don't change, so
    /// [`SimConfig::udev_renames`] has no effect.
    ///
    /// # Panics
    /// Outside a tokio runtime with time.
    pub fn on_netdevs(config: SimConfig, netdevs: Arc<dyn Netdevs>) -> Self {
        let mut world = World::new(SimConfig { udev_renames: false, ..config });
        world.real_netdevs = Some(netdevs);
        Self::of(world, false)
    }

    fn of(world: World, controller_elsewhere: bool) -> Self {
        let host_on = world.config.host_on;
        let shared = Arc::new(Shared::new(world));
        let controller = Arc::new(SimController::new(Arc::clone(&shared), controller_elsewhere));
        controller.start();
        let agenda = Arc::clone(&shared.agenda);
        let clock =
            Clock { shared: Arc::downgrade(&shared), controller: Arc::downgrade(&controller), agenda };
        let clock = tokio::spawn(clock.run()).abort_handle();
        let sim = Self(Arc::new(Inner { shared, controller, clock }));
        if host_on {
            sim.boot_host();
        }
        sim
    }

    /// What a controller runs on.
    pub fn device(&self) -> Arc<dyn DeviceModel> {
        Arc::new(SimDevice(Arc::clone(&self.0.shared)))
    }

    /// The controller, whichever process is behind its socket.
    pub fn controller(&self) -> Arc<dyn Controller> {
        Arc::<SimController>::clone(&self.0.controller)
    }

    /// The same, which tells of queues too.
    pub fn queues(&self) -> Arc<dyn Queues> {
        Arc::<SimController>::clone(&self.0.controller)
    }

    /// Open vSwitch.
    pub fn switch(&self) -> Arc<dyn Switch> {
        Arc::new(SimSwitch(Arc::clone(&self.0.shared)))
    }

    /// The netdevs.
    pub fn links(&self) -> Arc<dyn Links> {
        Arc::new(SimLinks(Arc::clone(&self.0.shared)))
    }

    /// `mlxconfig`.
    pub fn firmware(&self) -> Arc<dyn Firmware> {
        Arc::new(SimFirmware(Arc::clone(&self.0.shared)))
    }

    /// The host, as far as something reaches it.
    pub fn host(&self) -> Arc<dyn Host> {
        Arc::new(SimHost(Arc::clone(&self.0.shared)))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    pub(crate) fn process(&self) -> &SimController {
        &self.0.controller
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.shared.with(|world| fmt::Debug::fmt(world, f))
    }
}

/// Lets what is on the agenda happen when it is due.
struct Clock {
    shared: Weak<Shared>,
    controller: Weak<SimController>,
    agenda: Arc<Notify>,
}

impl Clock {
    async fn run(self) {
        loop {
            let Some(due) = self.shared.upgrade().map(|shared| shared.with(|world| world.next_due())) else {
                return;
            };
            match due {
                Some(due) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => {}
                        () = self.agenda.notified() => continue,
                    }
                }
                None => {
                    self.agenda.notified().await;
                    continue;
                }
            }
            if self.act().is_none() {
                return;
            }
        }
    }

    /// Lets everything happen that is due; `None`: the DPU is gone.
    fn act(&self) -> Option<()> {
        let shared = self.shared.upgrade()?;
        let now = Instant::now();
        let acted = |world: &mut World| {
            let action = world.take_due(now)?;
            world.act(&action);
            Some(action)
        };
        while let Some(action) = shared.with(acted) {
            if action == Action::ControllerStarts {
                self.controller.upgrade()?.start();
            }
        }
        Some(())
    }
}
