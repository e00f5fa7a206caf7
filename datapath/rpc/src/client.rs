//! A controller behind a unix socket: [`Client`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use virtnet_controller::Notifier;
use virtnet_model::{
    Change, Controller, ControllerState, Events, Function, HotplugRequest, Moderation, PartError, QueueState,
    Queues, Target,
};

use crate::link::{Caller, Incoming, Link};
use crate::method::{self, Moderate, Modify, QueuesOf, Unplug};

/// The first wait after a connection was refused or ended; it doubles up to [`LAST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// How long the other side may take to begin.
const ANSWERS: Duration = Duration::from_secs(10);

/// How the connection stands.
#[derive(Clone, Debug)]
enum State {
    /// The first try is under way.
    Connecting,
    /// There is one.
    Up(Caller),
    /// There is none, and why.
    Down(String),
}

/// A controller that someone serves on a socket. It connects by itself, and again whenever it must.
pub struct Client {
    socket: PathBuf,
    state: watch::Receiver<State>,
    notifier: Notifier,
    task: AbortHandle,
}

impl Client {
    /// Begins to connect, in a task of the present tokio runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(socket: &Path) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let notifier = Notifier::new();
        let task = tokio::spawn(keep_connected(socket.to_owned(), sender, notifier.clone())).abort_handle();
        Self { socket: socket.to_owned(), state, notifier, task }
    }

    /// Asks what is not of the trait [`Controller`].
    ///
    /// # Errors
    /// The controller's, and [`Unavailable`](virtnet_model::ErrorKind::Unavailable) where it can't be reached.
    pub async fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &impl Serialize,
    ) -> Result<R, PartError> {
        let mut state = self.state.clone();
        let known =
            state.wait_for(|state| !matches!(state, State::Connecting)).await.map(|state| state.clone());
        let why = match known {
            Ok(State::Up(caller)) => return caller.call(method, params).await,
            Ok(State::Down(why)) => why,
            Ok(State::Connecting) | Err(_) => "nobody tries any more".to_owned(),
        };
        Err(PartError::unavailable(format!("{method}: connect to {}: {why}", self.socket.display())))
    }
}

/// Connects again and again, and tells of what happens, for as long as it runs.
async fn keep_connected(socket: PathBuf, state: watch::Sender<State>, notifier: Notifier) {
    let mut wait = FIRST_RETRY;
    loop {
        let why = match UnixStream::connect(&socket).await {
            Ok(stream) => {
                let mut link = Link::new(stream);
                let caller = link.caller();
                let subscribed = {
                    let caller = caller.clone();
                    async move {
                        let subscribed = caller.call::<()>(method::SUBSCRIBE, &());
                        timeout(ANSWERS, subscribed)
                            .await
                            .unwrap_or_else(|_| Err(PartError::unavailable("it does not answer")))
                    }
                };
                tokio::pin!(subscribed);
                let mut is_subscribed = false;
                loop {
                    tokio::select! {
                        result = &mut subscribed, if !is_subscribed => match result {
                            Ok(()) => {
                                is_subscribed = true;
                                wait = FIRST_RETRY;
                                // Whatever was missed is seen by who looks again now.
                                state.send_replace(State::Up(caller.clone()));
                                notifier.notify();
                            }
                            Err(error) => break error.message,
                        },
                        incoming = link.next() => match incoming {
                            Some(Incoming::Notification { method, .. }) if method == method::CHANGED => {
                                notifier.notify();
                            }
                            Some(Incoming::Notification { .. } | Incoming::Request { .. }) => {}
                            None => break "the controller closed the connection".to_owned(),
                        },
                    }
                }
            }
            Err(error) => error.to_string(),
        };
        state.send_replace(State::Down(why));
        notifier.notify();
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_RETRY);
    }
}

#[async_trait]
impl Controller for Client {
    async fn observe(&self) -> Result<ControllerState, PartError> {
        self.call(method::OBSERVE, &()).await
    }

    async fn hotplug(&self, request: &HotplugRequest) -> Result<Function, PartError> {
        self.call(method::HOTPLUG, request).await
    }

    async fn unplug(&self, target: &Target) -> Result<(), PartError> {
        self.call(method::UNPLUG, &Unplug { target: target.clone() }).await
    }

    async fn modify(&self, target: &Target, change: &Change) -> Result<(), PartError> {
        self.call(method::MODIFY, &Modify { target: target.clone(), change: change.clone() }).await
    }

    fn events(&self) -> Events {
        self.notifier.events()
    }
}

#[async_trait]
impl Queues for Client {
    async fn queues(&self, target: &Target) -> Result<Vec<QueueState>, PartError> {
        self.call(method::QUEUES, &QueuesOf { target: target.clone() }).await
    }

    async fn moderate(&self, target: &Target, moderation: Moderation) -> Result<(), PartError> {
        self.call(method::MODERATE, &Moderate { target: target.clone(), moderation }).await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("socket", &self.socket).finish_non_exhaustive()
    }
}
