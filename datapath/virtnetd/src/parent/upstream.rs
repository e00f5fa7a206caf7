//! The controller as clients have it, whichever worker is behind it: [`Upstream`].

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::timeout;
use virtnet_model::{
    Change, Controller, ControllerState, ErrorKind, Events, Function, HotplugRequest, Moderation, PartError,
    QueueState, Queues, Target,
};
use virtnet_rpc::method::{self, Moderate, Modify, QueuesOf, Unplug};
use virtnet_rpc::{Caller, NoAnswer};

use super::Shared;
use super::workers::State;
use crate::wire::{self, End};

/// How long a request waits for a worker to be there.
const WAIT: Duration = Duration::from_secs(30);

/// Passes requests on to the worker of now, or to the one that is about to begin.
#[derive(Debug)]
pub(super) struct Upstream {
    workers: watch::Receiver<State>,
    shared: Arc<Shared>,
}

impl Upstream {
    pub(super) fn new(workers: watch::Receiver<State>, shared: Arc<Shared>) -> Self {
        Self { workers, shared }
    }

    async fn worker(&self, method: &str) -> Result<Caller, PartError> {
        let mut workers = self.workers.clone();
        let up = async {
            let state = workers.wait_for(|state| matches!(state, State::Up(_))).await.ok()?;
            match &*state {
                State::Up(caller) => Some(caller.clone()),
                State::Starting => None,
            }
        };
        timeout(WAIT, up).await.ok().flatten().ok_or_else(|| {
            PartError::unavailable(format!("{method}: there is no worker; virtnetd's log says why"))
        })
    }

    /// Asks for what changes nothing, of the next worker too where one ends before it answered.
    pub(super) async fn read<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &impl Serialize,
    ) -> Result<R, PartError> {
        loop {
            let worker = self.worker(method).await?;
            match worker.ask(method, params).await {
                Ok(answer) => return Ok(answer),
                Err(NoAnswer::Failed(error)) => return Err(error),
                // The state still says that it is up, for a moment.
                Err(NoAnswer::Unasked | NoAnswer::Gone) => self.gone(&worker).await,
            }
        }
    }

    /// Asks for a change. Whether it was made is not known where the worker ended first.
    async fn change<R: DeserializeOwned>(
        &self,
        method: &str,
        what: &str,
        params: &impl Serialize,
    ) -> Result<R, PartError> {
        loop {
            let worker = self.worker(method).await?;
            return match worker.ask(method, params).await {
                Ok(answer) => Ok(answer),
                Err(NoAnswer::Failed(error)) => Err(error),
                Err(NoAnswer::Unasked) => {
                    self.gone(&worker).await;
                    continue;
                }
                Err(NoAnswer::Gone) => Err(PartError::unavailable(format!(
                    "{what}: the controller's worker ended before it answered{}: look whether it was done, and ask again \
                     if not",
                    self.given_up()
                ))),
            };
        }
    }

    /// What is to be said of a device that did not come to the end of what it was asked to do.
    fn given_up(&self) -> String {
        let given_up = self.shared.condition.given_up();
        if given_up.is_empty() {
            return String::new();
        }
        format!(
            ", and the device did not come to the end of what was given up then ({})",
            given_up.join(", ")
        )
    }

    /// Waits until a worker of which the connection ended is taken for gone.
    async fn gone(&self, worker: &Caller) {
        let mut workers = self.workers.clone();
        let another = |state: &State| !matches!(state, State::Up(caller) if caller.is_of(worker));
        // There will be no other where nobody starts any more, which the next try tells.
        let _ = workers.wait_for(another).await;
    }

    /// Ends the controller, and the hot-plugged functions with it.
    pub(super) async fn end(&self) -> anyhow::Result<()> {
        loop {
            let worker = self.worker(wire::END).await.context("ending the controller")?;
            match worker.ask::<()>(wire::END, &End { with_service: true }).await {
                Ok(()) => return Ok(()),
                // It was about to end for another, which is asked next.
                Err(NoAnswer::Unasked | NoAnswer::Gone) => self.gone(&worker).await,
                Err(NoAnswer::Failed(error)) if error.kind == ErrorKind::Unavailable => {
                    self.gone(&worker).await;
                }
                Err(NoAnswer::Failed(error)) => return Err(error).context("ending the controller"),
            }
        }
    }
}

#[async_trait]
impl Controller for Upstream {
    async fn observe(&self) -> Result<ControllerState, PartError> {
        self.read(method::OBSERVE, &()).await
    }

    async fn hotplug(&self, request: &HotplugRequest) -> Result<Function, PartError> {
        self.change(method::HOTPLUG, &format!("hot-plug {}", request.mac), request).await
    }

    async fn unplug(&self, target: &Target) -> Result<(), PartError> {
        let params = Unplug { target: target.clone() };
        self.change(method::UNPLUG, &format!("unplug {target}"), &params).await
    }

    async fn modify(&self, target: &Target, change: &Change) -> Result<(), PartError> {
        let params = Modify { target: target.clone(), change: change.clone() };
        self.change(method::MODIFY, &format!("modify {target}"), &params).await
    }

    fn events(&self) -> Events {
        self.shared.notifier.events()
    }
}

#[async_trait]
impl Queues for Upstream {
    async fn queues(&self, target: &Target) -> Result<Vec<QueueState>, PartError> {
        self.read(method::QUEUES, &QueuesOf { target: target.clone() }).await
    }

    async fn moderate(&self, target: &Target, moderation: Moderation) -> Result<(), PartError> {
        let params = Moderate { target: target.clone(), moderation };
        self.change(method::MODERATE, &format!("moderate {target}"), &params).await
    }
}
