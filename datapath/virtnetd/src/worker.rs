//! The worker: an engine over the device that its parent has. It ends with its parent, and keeps nothing.

use std::fmt;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::value::RawValue;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use virtnet_controller::conf::Conf;
use virtnet_controller::{
    DeviceEvent, DeviceModel, DeviceWatch, Emulation, Engine, Memory, Place, Prepared, SfKey, Stop,
};
use virtnet_model::{
    Change, Controller, ErrorKind, Events, Moderation, PartError, PfId, QueueState, SfNumber, Uplink, VfId,
};
use virtnet_rpc::{Caller, Fault, Incoming, Link, dispatch, method, raw, read};
use virtnet_telemetry::LogLevel;

use crate::wire::{self, DeviceCall, End, Keep, Kept, Start, Told, Watch, Watched};

/// How long a worker that has ended in good order waits for its parent to let it go.
const FAREWELL: Duration = Duration::from_secs(5);

/// The parent's end of the standard input, which is a socket to it.
///
/// # Errors
/// Where it is none: a worker is started by its parent only.
pub fn parent() -> anyhow::Result<UnixStream> {
    let what = "the standard input is no socket: `virtnetd worker` is started by virtnetd itself";
    let stream = std::io::stdin().as_fd().try_clone_to_owned().context(what)?;
    let stream = std::os::unix::net::UnixStream::from(stream);
    stream.peer_addr().context(what)?;
    stream.set_nonblocking(true).context(what)?;
    UnixStream::from_std(stream).context(what)
}

/// Works until the parent is gone or asks for the end.
pub async fn run(parent: UnixStream, log: LogLevel) {
    let mut link = Link::new(parent);
    let sender = link.sender();
    let device = Arc::new(RemoteDevice::new(link.caller()));
    let mut engine: Option<Arc<Engine<RemoteDevice>>> = None;
    let mut events: Option<Events> = None;
    let mut calls: FuturesUnordered<BoxFuture<'static, (u64, Answer)>> = FuturesUnordered::new();
    let (mut ending, mut ended) = (false, false);
    loop {
        tokio::select! {
            incoming = link.next() => match incoming {
                None => return,
                Some(Incoming::Notification { method, params }) if method == wire::EVENT => {
                    match read::<Told>(&method, &params) {
                        Ok(told) => device.deliver(told),
                        Err(fault) => {
                            tracing::error!("the parent is not understood: {fault}");
                            return;
                        }
                    }
                }
                Some(Incoming::Notification { .. }) => {}
                Some(Incoming::Request { id, method, params }) => match method.as_str() {
                    wire::PING => sender.answer(id, &raw(&()), None),
                    wire::CHECK => sender.answer(id, &check(&params), None),
                    wire::START => {
                        let started = start(&params, &log, &device);
                        match started {
                            Ok(started) => {
                                events = Some(started.events());
                                engine = Some(Arc::clone(&started));
                                calls.push(Box::pin(async move { (id, (taken_over(&started).await, false)) }));
                            }
                            Err(fault) => sender.answer(id, &Err(fault), None),
                        }
                    }
                    method::LOG => sender.answer(id, &set_log(&params, &log), None),
                    _ => {
                        ending |= method == wire::END;
                        let engine = engine.clone();
                        calls.push(Box::pin(async move { (id, answer(engine, &method, &params).await) }));
                    }
                },
            },
            Some((id, (result, is_end))) = calls.next() => {
                // The engine does one thing after another, so what comes after the end is not begun.
                let undone = ending && !is_end && matches!(&result, Err(fault) if fault.data == Some(ErrorKind::Unavailable));
                let result = if undone { Err(Fault::undone()) } else { result };
                sender.answer(id, &result, None);
                ended |= is_end;
            }
            Some(_) = next(&mut events) => sender.tell(method::CHANGED, &(), None),
            () = tokio::time::sleep(FAREWELL), if ended => return,
        }
    }
}

/// The answer to a request, and whether it was the last.
type Answer = (Result<Box<RawValue>, Fault>, bool);

fn start(
    params: &RawValue,
    log: &LogLevel,
    device: &Arc<RemoteDevice>,
) -> Result<Arc<Engine<RemoteDevice>>, Fault> {
    let Start { conf, log: level } = read(wire::START, params)?;
    if let Some(level) = level {
        log.set(&level).map_err(PartError::failed)?;
    }
    let conf =
        Conf::parse(&conf).map_err(|error| PartError::failed(format!("read virtnet.conf: {error}")))?;
    let memory = Arc::new(RemoteMemory(device.caller.clone()));
    Ok(Arc::new(Engine::start_with(Arc::clone(device), conf.engine, memory)))
}

/// Answers once the engine has taken the device over, or can say why it has not.
async fn taken_over(engine: &Engine<RemoteDevice>) -> Result<Box<RawValue>, Fault> {
    if let Err(error) = engine.observe().await {
        tracing::error!("{error}");
    }
    raw(&())
}

fn check(params: &RawValue) -> Result<Box<RawValue>, Fault> {
    let text: String = read(wire::CHECK, params)?;
    Conf::parse(&text).map_err(|error| PartError::failed(format!("read virtnet.conf: {error}")))?;
    raw(&())
}

fn set_log(params: &RawValue, log: &LogLevel) -> Result<Box<RawValue>, Fault> {
    let filter: String = read(method::LOG, params)?;
    log.set(&filter).map_err(PartError::failed)?;
    raw(&())
}

async fn answer(engine: Option<Arc<Engine<RemoteDevice>>>, method: &str, params: &RawValue) -> Answer {
    let Some(engine) = engine else {
        return (Err(PartError::unavailable(format!("{method}: the worker was not started")).into()), false);
    };
    if method == wire::END {
        let end = async {
            let End { with_service } = read(method, params)?;
            engine.stop(if with_service { Stop::Service } else { Stop::Restart }).await?;
            raw(&())
        };
        return (end.await, true);
    }
    if method == wire::UPDATING {
        let set = async {
            engine.set_updating(read(method, params)?).await?;
            raw(&())
        };
        return (set.await, false);
    }
    let answer = dispatch(&*engine, None, method, params).await;
    (answer.unwrap_or_else(|| Err(Fault::no_such_method(method))), false)
}

async fn next(events: &mut Option<Events>) -> Option<virtnet_model::Changed> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

/// The device, which the parent has.
pub(crate) struct RemoteDevice {
    caller: Caller,
    watch: Mutex<CurrentWatch>,
}

/// The watch that events belong to.
#[derive(Default)]
struct CurrentWatch {
    number: u64,
    events: Option<mpsc::UnboundedSender<DeviceEvent>>,
}

impl RemoteDevice {
    fn new(caller: Caller) -> Self {
        Self { caller, watch: Mutex::default() }
    }

    fn watch_now(&self) -> std::sync::MutexGuard<'_, CurrentWatch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes on what the parent told. Answers that came after it are read after this.
    fn deliver(&self, told: Told) {
        let mut watch = self.watch_now();
        if told.watch != watch.number {
            return;
        }
        match (told.event, &watch.events) {
            (Some(event), Some(events)) => {
                // An engine that has lost its session begins a watch of its own.
                let _ = events.send(event);
            }
            _ => watch.events = None,
        }
    }

    async fn call(&self, call: DeviceCall) -> Result<(), PartError> {
        self.caller.call(wire::DEVICE, &call).await
    }
}

#[async_trait]
impl DeviceModel for RemoteDevice {
    async fn watch(&self) -> Result<DeviceWatch, PartError> {
        let (sender, events) = mpsc::unbounded_channel();
        let number = {
            let mut watch = self.watch_now();
            *watch = CurrentWatch { number: watch.number + 1, events: Some(sender) };
            watch.number
        };
        let state: Watched = self.caller.call(wire::WATCH, &Watch { number }).await?;
        Ok(DeviceWatch { state, events })
    }

    async fn create_sf(&self, uplink: Uplink, number: SfNumber) -> Result<(), PartError> {
        self.call(DeviceCall::CreateSf(uplink, number)).await
    }

    async fn destroy_sf(&self, sf: SfKey) -> Result<(), PartError> {
        self.call(DeviceCall::DestroySf(sf)).await
    }

    async fn plug(&self, slot: u16, emulation: &Emulation) -> Result<(), PartError> {
        self.call(DeviceCall::Plug(slot, emulation.clone())).await
    }

    async fn unplug(&self, slot: u16) -> Result<(), PartError> {
        self.call(DeviceCall::Unplug(slot)).await
    }

    async fn configure(&self, place: Place, emulation: &Emulation) -> Result<(), PartError> {
        self.call(DeviceCall::Configure(place, emulation.clone())).await
    }

    async fn queues(&self, place: Place) -> Result<Vec<QueueState>, PartError> {
        self.caller.call(wire::QUEUES, &place).await
    }

    async fn moderate(&self, place: Place, moderation: Moderation) -> Result<(), PartError> {
        self.call(DeviceCall::Moderate(place, moderation)).await
    }
}

impl fmt::Debug for RemoteDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteDevice").finish_non_exhaustive()
    }
}

/// What the parent keeps for the next worker.
#[derive(Debug)]
struct RemoteMemory(Caller);

#[async_trait]
impl Memory for RemoteMemory {
    async fn recall(&self) -> Result<Prepared, PartError> {
        let Kept(prepared) = self.0.call(wire::RECALL, &()).await?;
        Ok(prepared)
    }

    async fn keep(&self, pf: PfId, vf: VfId, change: &Change) -> Result<(), PartError> {
        self.0.call(wire::KEEP, &Keep { pf, vf, change: change.clone() }).await
    }
}
