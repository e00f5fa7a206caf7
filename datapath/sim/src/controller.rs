//! The controller's process on the simulated DPU: it starts, stops, and can be out of reach.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use tokio::task::AbortHandle;
use virtnet_controller::Engine;
use virtnet_model::{
    Change, Controller, ControllerState, Events, Function, HotplugRequest, Moderation, PartError, QueueState,
    Queues, Target,
};

use crate::device::SimDevice;
use crate::effect::{Effect, Part};
use crate::shared::Shared;

/// A running controller.
struct Running {
    engine: Arc<Engine<SimDevice>>,
    /// Passes its events on.
    forward: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Callers that wait hold the engine too, and must learn that it is gone.
        self.engine.abort();
        self.forward.abort();
    }
}

/// The socket that clients talk to, whichever process is behind it.
pub(crate) struct SimController {
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
    /// Another process runs the controller, and nothing is started here.
    elsewhere: bool,
}

impl SimController {
    pub(crate) fn new(shared: Arc<Shared>, elsewhere: bool) -> Self {
        Self { shared, running: Mutex::new(None), elsewhere }
    }

    /// Starts a controller in place of any that runs.
    pub(crate) fn start(&self) {
        if self.elsewhere {
            return;
        }
        let config = self.shared.with(|world| world.config.engine.clone());
        let engine = Arc::new(Engine::start(Arc::new(SimDevice(Arc::clone(&self.shared))), config));
        let mut events = engine.events();
        let shared = Arc::clone(&self.shared);
        let forward = tokio::spawn(async move {
            while events.next().await.is_some() {
                shared.notify(Part::Controller);
            }
        });
        self.replace(Some(Running { engine, forward: forward.abort_handle() }));
    }

    /// Kills it wherever it is.
    pub(crate) fn stop(&self) {
        self.replace(None);
    }

    fn replace(&self, next: Option<Running>) {
        let last = std::mem::replace(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner), next);
        drop(last);
        self.shared.notify(Part::Controller);
    }

    pub(crate) fn engine(&self, doing: &str) -> Result<Arc<Engine<SimDevice>>, PartError> {
        let reachable = self.shared.with(|world| {
            world.reachable(doing)?;
            Ok(world.controller_reachable)
        })?;
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match &*running {
            Some(running) if reachable => Ok(Arc::clone(&running.engine)),
            _ => {
                Err(PartError::unavailable(format!("{doing}: connect to the controller: Connection refused")))
            }
        }
    }
}

#[async_trait]
impl Controller for SimController {
    async fn observe(&self) -> Result<ControllerState, PartError> {
        self.shared.observe(Part::Controller, |_| Ok(()))?;
        self.engine("observe the controller")?.observe().await
    }

    async fn hotplug(&self, request: &HotplugRequest) -> Result<Function, PartError> {
        self.shared.before(Effect::Hotplug).await?;
        let function = self.engine(&format!("hot-plug {}", request.mac))?.hotplug(request).await?;
        self.shared.after(Effect::Hotplug).await?;
        Ok(function)
    }

    async fn unplug(&self, target: &Target) -> Result<(), PartError> {
        self.shared.before(Effect::Unplug).await?;
        self.engine(&format!("unplug {target}"))?.unplug(target).await?;
        self.shared.after(Effect::Unplug).await
    }

    async fn modify(&self, target: &Target, change: &Change) -> Result<(), PartError> {
        self.shared.before(Effect::Modify).await?;
        self.engine(&format!("modify {target}"))?.modify(target, change).await?;
        self.shared.after(Effect::Modify).await
    }

    fn events(&self) -> Events {
        self.shared.events(Part::Controller)
    }
}

#[async_trait]
impl Queues for SimController {
    async fn queues(&self, target: &Target) -> Result<Vec<QueueState>, PartError> {
        self.engine(&format!("query the queues of {target}"))?.queues(target).await
    }

    async fn moderate(&self, target: &Target, moderation: Moderation) -> Result<(), PartError> {
        self.engine(&format!("moderate {target}"))?.moderate(target, moderation).await
    }
}

impl fmt::Debug for SimController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimController").finish_non_exhaustive()
    }
}
