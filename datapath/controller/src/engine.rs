//! [`Engine`]: a running controller, and the handle to it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use virtnet_model::{
    Change, Controller, ControllerState, Events, Function, HotplugRequest, Moderation, PartError, QueueState,
    Queues, Target,
};

use crate::task::{Command, Phase, Plugging, Reply, Shared, Task};
use crate::{DeviceModel, EngineConfig, Forgetful, Memory};

/// Requests that wait while the device is busy; further callers wait for room.
const QUEUED_REQUESTS: usize = 64;

/// How a controller ends in good order. SFs in the pool are destroyed in both cases where `sf_pool_force_destroy` says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The service ends: hot-plugged functions are unplugged (the guide, section 1.2).
    Service,
    /// Another will carry on: functions stay as they are.
    Restart,
}

/// A running virtio-net controller over a device.
///
/// Dropping it stops the controller wherever it is, as a crash would: the device keeps what it has, and the next engine
/// over it carries on. Requests go on when their caller goes away.
pub struct Engine<D> {
    device: Arc<D>,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    phase: watch::Receiver<Phase>,
    task: AbortHandle,
}

impl<D: DeviceModel> Engine<D> {
    /// Starts a controller over the device, in a task of the present tokio runtime.
    ///
    /// It takes over the functions and SFs that are there. Firmware values that make no sense, and a device that can't
    /// be reached, are told by every call until they are mended; it tries again by itself.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(device: Arc<D>, config: EngineConfig) -> Self {
        Self::start_with(device, config, Arc::new(Forgetful))
    }

    /// The same, with a memory of what an earlier controller was told.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start_with(device: Arc<D>, config: EngineConfig, memory: Arc<dyn Memory>) -> Self {
        let (commands, receiver) = mpsc::channel(QUEUED_REQUESTS);
        let shared = Arc::new(Shared::new());
        let (sender, phase) = watch::channel(Phase::Starting);
        let task = Task {
            device: Arc::clone(&device),
            config,
            memory,
            shared: Arc::clone(&shared),
            commands: receiver,
            phase: sender,
        };
        let task = tokio::spawn(task.run()).abort_handle();
        Self { device, shared, commands, phase, task }
    }

    /// The device that it runs on.
    pub fn device(&self) -> &Arc<D> {
        &self.device
    }

    /// Stops the controller wherever it is, as a crash would. Callers that wait are told that it stopped.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// A live update begins or ends. While it runs, hot-plug and unplug are refused; in the later generation VFs that
    /// the host makes wait for its end too.
    pub async fn set_updating(&self, updating: bool) -> Result<(), PartError> {
        self.ask("set the state of the live update", |reply| Command::SetUpdating(updating, reply)).await
    }

    /// Ends the controller in good order, after the requests that came before. What could not be cleared away is told, and
    /// the controller has ended all the same.
    pub async fn stop(&self, stop: Stop) -> Result<(), PartError> {
        self.ask("stop the controller", |reply| Command::Stop(stop, reply)).await
    }

    async fn ask<T>(&self, doing: &str, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, PartError> {
        let (reply, answer) = oneshot::channel();
        let stopped =
            || PartError::unavailable(format!("{doing}: the controller stopped before it answered"));
        self.commands.send(command(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

#[async_trait]
impl<D: DeviceModel> Controller for Engine<D> {
    async fn observe(&self) -> Result<ControllerState, PartError> {
        let stopped = || PartError::unavailable("observe the controller: it stopped");
        let mut phase = self.phase.clone();
        if let Phase::Down(why) =
            &*phase.wait_for(|phase| !matches!(phase, Phase::Starting)).await.map_err(|_| stopped())?
        {
            return Err(PartError::unavailable(format!("observe the controller: {why}")));
        }
        if self.phase.has_changed().is_err() {
            return Err(stopped());
        }
        self.shared.report().ok_or_else(|| PartError::unavailable("observe the controller: it has no device"))
    }

    async fn hotplug(&self, request: &HotplugRequest) -> Result<Function, PartError> {
        let doing = format!("hot-plug {}", request.mac);
        let plugging = Plugging::begin(&self.shared, request.mac);
        self.ask(&doing, |reply| Command::Hotplug(request.clone(), plugging, reply)).await
    }

    async fn unplug(&self, target: &Target) -> Result<(), PartError> {
        self.ask(&format!("unplug {target}"), |reply| Command::Unplug(target.clone(), reply)).await
    }

    async fn modify(&self, target: &Target, change: &Change) -> Result<(), PartError> {
        let doing = format!("modify {target}");
        self.ask(&doing, |reply| Command::Modify(target.clone(), change.clone(), reply)).await
    }

    fn events(&self) -> Events {
        self.shared.notifier.events()
    }
}

#[async_trait]
impl<D: DeviceModel> Queues for Engine<D> {
    async fn queues(&self, target: &Target) -> Result<Vec<QueueState>, PartError> {
        let doing = format!("query the queues of {target}");
        let place = match self.shared.table().as_ref() {
            Some(table) => table.admit_present_function(&doing, target)?,
            None => return Err(PartError::unavailable(format!("{doing}: the controller has no device"))),
        };
        // What only reads need not wait for what the task does.
        self.device.queues(place).await
    }

    async fn moderate(&self, target: &Target, moderation: Moderation) -> Result<(), PartError> {
        self.ask(&format!("moderate {target}"), |reply| Command::Moderate(target.clone(), moderation, reply))
            .await
    }
}

impl<D> Drop for Engine<D> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<D> fmt::Debug for Engine<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("phase", &*self.phase.borrow()).finish_non_exhaustive()
    }
}
