//! A controller offered on a unix socket: [`Server`].

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use virtnet_model::{Events, HotplugRequest, PartError, Queues};

use crate::link::{Incoming, Link};
use crate::message::Fault;
use crate::method::{self, Moderate, Modify, QueuesOf, Unplug};

/// Requests of one connection that are under way or whose answers were not read; it is read from again when there is room.
const IN_FLIGHT: u32 = 16;
/// Bytes of the longest line that a client may send. Requests are short.
const REQUEST_MAX: usize = 64 << 10;
/// Connections at once; who comes then waits.
const CONNECTIONS: usize = 128;
/// How long no connection is taken after one could not be.
const PAUSE: Duration = Duration::from_millis(200);

/// Who is at the other end of a connection, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// The process; `None` where it is of another PID namespace.
    pub pid: Option<i32>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "uid {} (process {pid})", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

/// Methods beyond those of a controller.
#[async_trait]
pub trait Extra: Send + Sync + fmt::Debug + 'static {
    /// Answers a request; [`Fault::no_such_method`] where it has no such method.
    async fn call(&self, method: &str, params: &RawValue) -> Result<Box<RawValue>, Fault>;
}

/// Offers a controller to whoever may connect.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    controller: Arc<dyn Queues>,
    extra: Arc<dyn Extra>,
}

impl Server {
    /// On a socket that listens.
    pub fn new(listener: UnixListener, controller: Arc<dyn Queues>, extra: Arc<dyn Extra>) -> Self {
        Self { listener, controller, extra }
    }

    /// Serves for as long as it is polled. Dropping it closes all connections.
    pub async fn serve(self) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        let (controller, extra) = (Arc::clone(&self.controller), Arc::clone(&self.extra));
                        connections.spawn(async move {
                            if let Err(error) = serve_one(stream, controller, extra).await {
                                tracing::warn!(%error, "a connection could not be served");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::error!(%error, "no connection could be taken; it is tried again");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// One connection until its end.
async fn serve_one(stream: UnixStream, controller: Arc<dyn Queues>, extra: Arc<dyn Extra>) -> io::Result<()> {
    let credentials = stream.peer_cred()?;
    let peer = Peer { uid: credentials.uid(), pid: credentials.pid() };
    let mut link = Link::with_lines_of(stream, REQUEST_MAX);
    let sender = link.sender();
    let room = Arc::new(Semaphore::new(IN_FLIGHT as usize));
    let telling = Arc::new(Semaphore::new(1));
    let mut events: Option<Events> = None;
    let mut calls: FuturesUnordered<BoxFuture<'_, _>> = FuturesUnordered::new();
    let mut asks = true;
    loop {
        tokio::select! {
            (permit, incoming) = next(&room, &mut link), if asks => match incoming {
                // Who asks no more may still wait for answers, and what was asked is done and logged, whoever waits for it.
                None => asks = false,
                Some(Incoming::Request { id, method, params: _ }) if method == method::SUBSCRIBE => {
                    events = Some(controller.events());
                    sender.answer(id, &raw(&()), permit);
                }
                Some(Incoming::Request { id, method, params }) => {
                    let (controller, extra) = (&controller, &extra);
                    calls.push(Box::pin(async move {
                        let answer = dispatch(&**controller, Some(peer), &method, &params).await;
                        let answer = match answer {
                            Some(answer) => answer,
                            None => extra.call(&method, &params).await,
                        };
                        (id, permit, answer)
                    }));
                }
                Some(Incoming::Notification { method, .. }) => {
                    tracing::debug!(method, %peer, "nothing is to be told to a controller");
                }
            },
            Some((id, permit, result)) = calls.next() => sender.answer(id, &result, permit),
            told = changed(&telling, &mut events), if asks => match told {
                Some(permit) => sender.tell(method::CHANGED, &(), permit),
                // Whoever waits for changes had better ask another controller.
                None => return Ok(()),
            },
            else => break,
        }
    }
    // All are back when the last answer was written, or nobody is left to read it.
    let _all = room.acquire_many(IN_FLIGHT).await;
    Ok(())
}

/// The next that comes in, once there is room for it.
async fn next(room: &Arc<Semaphore>, link: &mut Link) -> (Option<OwnedSemaphorePermit>, Option<Incoming>) {
    // The semaphore is never closed.
    let permit = Arc::clone(room).acquire_owned().await.ok();
    (permit, link.next().await)
}

/// Resolves when there is something to tell and what was told before was written; `None`: there will be nothing more.
async fn changed(
    telling: &Arc<Semaphore>,
    events: &mut Option<Events>,
) -> Option<Option<OwnedSemaphorePermit>> {
    let Some(events) = events else { return std::future::pending().await };
    let permit = Arc::clone(telling).acquire_owned().await.ok();
    events.next().await.map(|_| permit)
}

/// Asks a controller by the name of the method; `None`: it is none of a controller's. Who asks for a change is logged, where it
/// is known.
pub async fn dispatch(
    controller: &dyn Queues,
    by: Option<Peer>,
    method: &str,
    params: &RawValue,
) -> Option<Result<Box<RawValue>, Fault>> {
    let answer = async {
        match method {
            method::OBSERVE => return Ok(Some(raw(&controller.observe().await?)?)),
            method::HOTPLUG => {
                let request: HotplugRequest = read(method, params)?;
                let made = controller.hotplug(&request).await;
                log(by, &format!("hot-plug {}", request.mac), made.as_ref().err());
                return Ok(Some(raw(&made?)?));
            }
            method::UNPLUG => {
                let Unplug { target } = read(method, params)?;
                let done = controller.unplug(&target).await;
                log(by, &format!("unplug {target}"), done.as_ref().err());
                done?;
            }
            method::MODIFY => {
                let Modify { target, change } = read(method, params)?;
                let done = controller.modify(&target, &change).await;
                log(by, &format!("modify {target}: {change}"), done.as_ref().err());
                done?;
            }
            method::QUEUES => {
                let QueuesOf { target } = read(method, params)?;
                return Ok(Some(raw(&controller.queues(&target).await?)?));
            }
            method::MODERATE => {
                let Moderate { target, moderation } = read(method, params)?;
                let done = controller.moderate(&target, moderation).await;
                log(by, &format!("moderate {target}: {moderation:?}"), done.as_ref().err());
                done?;
            }
            _ => return Ok(None),
        }
        raw(&()).map(Some)
    };
    answer.await.transpose()
}

/// Who did what, for whoever wants to know later.
fn log(by: Option<Peer>, what: &str, error: Option<&PartError>) {
    let Some(by) = by else { return };
    match error {
        None => tracing::info!(%by, "{what}"),
        Some(error) => tracing::info!(%by, "{error}"),
    }
}

/// The parameters of a method.
///
/// # Errors
/// What is wrong with them.
pub fn read<T: DeserializeOwned>(method: &str, params: &RawValue) -> Result<T, Fault> {
    serde_json::from_str(params.get()).map_err(|error| Fault::bad_params(method, &error))
}

/// An answer.
///
/// # Errors
/// Where it has no JSON.
pub fn raw(value: &impl Serialize) -> Result<Box<RawValue>, Fault> {
    to_raw_value(value).map_err(|error| PartError::failed(format!("the answer has no JSON: {error}")).into())
}
