//! The device's side of the connection to a worker: [`attend`].

use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::timeout;
use virtnet_controller::{DeviceEvent, DeviceWatch};
use virtnet_model::PartError;
use virtnet_rpc::{Fault, Incoming, Link, Sender, method, raw, read};

use super::Shared;
use crate::wire::{self, DeviceCall, Keep, Kept, Told, Watch};

/// What came of a request of the worker.
enum Done {
    /// An answer.
    Answer(Result<Box<RawValue>, Fault>),
    /// A watch begins, whose state is the answer.
    Watch(u64, DeviceWatch),
}

/// The watch of the worker.
struct Watching {
    number: u64,
    events: mpsc::UnboundedReceiver<DeviceEvent>,
}

/// Does what the worker asks of the device, and tells it of what happens there, until the connection is gone.
///
/// What is under way then has `last` to come to its end, and is given up where it does not.
///
/// A request's events are told before its answer, as [`virtnet_controller::DeviceModel`] has it.
pub(super) async fn attend(mut link: Link, shared: &Shared, last: Duration) {
    let sender = link.sender();
    let mut watching: Option<Watching> = None;
    let mut calls: FuturesUnordered<BoxFuture<'_, (u64, Done)>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            event = next(&mut watching) => tell(&sender, &mut watching, event),
            Some((id, done)) = calls.next() => {
                while let Some(event) = watching.as_mut().and_then(|watching| watching.events.try_recv().ok()) {
                    tell(&sender, &mut watching, Some(event));
                }
                match done {
                    Done::Answer(answer) => sender.answer(id, &answer, None),
                    Done::Watch(number, DeviceWatch { state, events }) => {
                        watching = Some(Watching { number, events });
                        sender.answer(id, &raw(&state), None);
                    }
                }
            }
            incoming = link.next() => match incoming {
                None => break,
                Some(Incoming::Request { id, method, params }) => {
                    calls.push(Box::pin(async move { (id, call(shared, &method, &params).await) }));
                }
                Some(Incoming::Notification { method, .. }) if method == method::CHANGED => {
                    shared.notifier.notify();
                }
                Some(Incoming::Notification { .. }) => {}
            },
        }
    }
    // The device is left in the middle of nothing.
    let rest = async { while calls.next().await.is_some() {} };
    if timeout(last, rest).await.is_err() {
        tracing::error!("what a worker asked of the device has not come to its end within {last:?}");
    }
}

async fn next(watching: &mut Option<Watching>) -> Option<DeviceEvent> {
    match watching {
        Some(watching) => watching.events.recv().await,
        None => std::future::pending().await,
    }
}

/// Tells the worker an event, or that there are no more.
fn tell(sender: &Sender, watching: &mut Option<Watching>, event: Option<DeviceEvent>) {
    let Some(Watching { number, .. }) = watching else { return };
    let ended = event.is_none();
    sender.tell(wire::EVENT, &Told { watch: *number, event }, None);
    if ended {
        *watching = None;
    }
}

async fn call(shared: &Shared, method: &str, params: &RawValue) -> Done {
    if method == wire::WATCH {
        let watch = async {
            let Watch { number } = read(method, params)?;
            Ok((number, shared.device.watch().await?))
        };
        return match watch.await {
            Ok((number, watch)) => Done::Watch(number, watch),
            Err(fault) => Done::Answer(Err(fault)),
        };
    }
    Done::Answer(answer(shared, method, params).await)
}

async fn answer(shared: &Shared, method: &str, params: &RawValue) -> Result<Box<RawValue>, Fault> {
    match method {
        wire::DEVICE => operate(shared, read(method, params)?).await?,
        wire::QUEUES => return raw(&shared.device.queues(read(method, params)?).await?),
        wire::RECALL => return raw(&Kept(shared.store.vfs_to_come())),
        wire::KEEP => {
            let Keep { pf, vf, change } = read(method, params)?;
            keep(shared.store.keep_vf(pf, vf, change));
        }
        _ => return Err(Fault::no_such_method(method)),
    }
    raw(&())
}

/// What can't be kept for the next start is kept for the next worker all the same.
pub(super) fn keep(kept: std::io::Result<()>) {
    if let Err(error) = kept {
        tracing::error!(%error, "the settings of VFs to come are lost should this process be killed");
    }
}

async fn operate(shared: &Shared, call: DeviceCall) -> Result<(), PartError> {
    let device = &shared.device;
    let operation = shared.condition.begin(call.to_string());
    let result = match call {
        DeviceCall::CreateSf(uplink, number) => device.create_sf(uplink, number).await,
        DeviceCall::DestroySf(sf) => device.destroy_sf(sf).await,
        DeviceCall::Plug(slot, emulation) => device.plug(slot, &emulation).await,
        DeviceCall::Unplug(slot) => device.unplug(slot).await,
        DeviceCall::Configure(place, emulation) => device.configure(place, &emulation).await,
        DeviceCall::Moderate(place, moderation) => device.moderate(place, moderation).await,
    };
    operation.ended();
    result
}
