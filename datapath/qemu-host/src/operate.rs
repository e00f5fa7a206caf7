//! What is done to a host: the steps of a plan in order, undone where one fails.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};
use virtnet_controller::{Place, Settings};
use virtnet_model::{PartError, Refusal};
use virtnet_qmp::{Qmp, QmpError};

use crate::bus::Shared;
use crate::config::Backend;
use crate::observe::{ObserveError, chardevs};
use crate::plan::{self, Step, Unfit};
use crate::state::{Seen, Unplugging};

/// How long a guest that was asked to let a function go is given before it is asked again: first so long (Linux itself waits five
/// seconds for a second thought, and takes a second request within that for one), then twice as long each time, up to the last.
const AGAIN: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(60));

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The host has no such slot.
    #[error("the host has no slot {0}: its configuration names those that it has")]
    NoSuchSlot(u16),
    /// There is a function in it.
    #[error("slot {slot} is taken by {by:?}")]
    Taken {
        /// The slot.
        slot: u16,
        /// The id of what is in it.
        by: String,
    },
    /// Somebody else put it there.
    #[error("{by:?} in slot {slot} was not plugged by this service, and is not its to take out")]
    Foreign {
        /// The slot.
        slot: u16,
        /// The id of what is in it.
        by: String,
    },
    /// There is no function.
    #[error("there is no function at {0}")]
    NoFunction(Place),
    /// QEMU presents no such function.
    #[error("QEMU can't present the function")]
    Unfit(#[from] Unfit),
    /// QEMU can't be asked.
    #[error("the host can't be reached: {0}")]
    Down(String),
    /// A step failed. Those before it were undone.
    #[error("{step}")]
    Step {
        /// What was being done.
        step: String,
        /// Why it failed.
        #[source]
        source: QmpError,
    },
    /// What is there could not be asked for.
    #[error("looking at what the host has")]
    Observe(#[from] ObserveError),
    /// It was there and is not any more.
    #[error("the function in slot {0} was plugged and is gone already")]
    Vanished(u16),
    /// The guest did not let it go.
    #[error("the guest has kept the function in slot {slot} for {} s, asked {asked} times{}", waited.as_secs(), reason(refused.as_ref()))]
    Kept {
        /// The slot.
        slot: u16,
        /// How often it was asked.
        asked: u32,
        /// For how long.
        waited: Duration,
        /// Why it refused when it last did.
        refused: Option<String>,
    },
    /// The program ends.
    #[error("the service is ending")]
    Ended,
}

fn reason(refused: Option<&String>) -> String {
    refused
        .map_or_else(|| ": is its driver or its kernel stuck?".to_owned(), |refused| format!(": {refused}"))
}

impl From<BusError> for PartError {
    fn from(error: BusError) -> Self {
        let message = error.to_string();
        let part = match &error {
            BusError::Taken { .. } | BusError::NoSuchSlot(_) => Self::refused(Refusal::NoFreeSlot, message),
            BusError::NoFunction(_) => Self::refused(Refusal::NoSuchFunction, message),
            BusError::Foreign { .. } => Self::refused(Refusal::NotHotPlugged, message),
            BusError::Unfit(Unfit::Features(_) | Unfit::Legacy) => {
                Self::refused(Refusal::FeatureUnsupported, message)
            }
            BusError::Down(_) | BusError::Ended => Self::unavailable(message),
            BusError::Unfit(Unfit::QueueSize(_))
            | BusError::Step { .. }
            | BusError::Observe(_)
            | BusError::Vanished(_)
            | BusError::Kept { .. } => Self::failed(message),
        };
        part.caused_by(error)
    }
}

/// Does a step. What is so already is well.
async fn take(qmp: &Qmp, step: &Step) -> Result<(), BusError> {
    let (command, arguments) = step.command();
    match qmp.execute(command, arguments).await {
        Err(error) if error.refused().is_some_and(|refused| step.is_done(refused)) => Ok(()),
        Err(source) => Err(BusError::Step { step: step.to_string(), source }),
        Ok(_) => Ok(()),
    }
}

/// Removes what is behind a slot that has no function.
pub(crate) async fn clear(qmp: &Qmp, slot: u16) -> Result<(), BusError> {
    let names = plan::Names::of(slot);
    let there = |chardevs: &BTreeSet<String>| chardevs.contains(&names.chardev);
    for step in plan::clear(slot) {
        // A netdev takes its connection with it.
        if !there(&chardevs(qmp).await?) {
            return Ok(());
        }
        take(qmp, &step).await?;
        info!("{step}");
    }
    Ok(())
}

/// What is in a slot, as last observed.
fn in_slot(shared: &Shared, slot: u16) -> Option<Seen> {
    shared.state.borrow().functions.get(&Place::Slot(slot)).cloned()
}

pub(crate) async fn plug(
    shared: &Shared,
    slot: u16,
    settings: &Settings,
    backend: &Backend,
    up: bool,
) -> Result<Seen, BusError> {
    let _changing = shared.slot(slot)?.lock().await;
    plug_into(shared, slot, settings, backend, up).await
}

async fn plug_into(
    shared: &Shared,
    slot: u16,
    settings: &Settings,
    backend: &Backend,
    up: bool,
) -> Result<Seen, BusError> {
    let port = shared.config.slots.get(&slot).ok_or(BusError::NoSuchSlot(slot))?;
    let steps = plan::plug(slot, port, settings, backend, up)?;
    let qmp = shared.qmp()?;
    let left_behind = shared.observe_with(&qmp).await?;
    if let Some(seen) = in_slot(shared, slot) {
        return Err(BusError::Taken { slot, by: seen.id });
    }
    if left_behind.contains(&slot) {
        clear(&qmp, slot).await?;
    }
    for step in &steps {
        if let Err(error) = take(&qmp, step).await {
            // Where that fails too the connection has gone, and what is left is found with the next one.
            if let Err(undoing) = undo(&qmp, slot, step).await {
                warn!(slot, error = %undoing, "undoing what a plug has left");
            }
            return Err(error);
        }
        info!("{step}");
    }
    shared.observe_with(&qmp).await?;
    shared.update(|state| {
        if let Some(seen) = state.functions.get_mut(&Place::Slot(slot)) {
            seen.up = Some(up);
        }
    });
    in_slot(shared, slot).ok_or(BusError::Vanished(slot))
}

/// Takes back what steps of a plug have made, where this one failed.
async fn undo(qmp: &Qmp, slot: u16, failed: &Step) -> Result<(), BusError> {
    if matches!(failed, Step::SetLink { .. }) {
        // The device is there, and the guest may have it. Once it has let go, what is behind it is found left behind.
        return take(qmp, &Step::DeleteDevice { id: plan::Names::of(slot).device }).await;
    }
    clear(qmp, slot).await
}

/// How it ended to wait for a guest.
enum Waited {
    Gone,
    Again,
    OverLong,
}

pub(crate) async fn unplug(shared: &Shared, slot: u16, patience: Duration) -> Result<(), BusError> {
    let _changing = shared.slot(slot)?.lock().await;
    take_out(shared, slot, patience).await
}

async fn take_out(shared: &Shared, slot: u16, patience: Duration) -> Result<(), BusError> {
    let begun = Instant::now();
    let deadline = begun + patience;
    let mut pause = AGAIN.0;
    let place = Place::Slot(slot);
    let mut states = shared.state.subscribe();
    shared.observe_with(&shared.qmp()?).await?;
    let mut asked = 0;
    loop {
        let found = in_slot(shared, slot);
        match found {
            None => break,
            Some(seen) if !seen.ours => return Err(BusError::Foreign { slot, by: seen.id }),
            Some(_) => {}
        }
        asked += 1;
        let step = Step::DeleteDevice { id: Shared::device(slot) };
        let refused = match shared.qmp() {
            Ok(qmp) => take(&qmp, &step).await.err().map(|error| whole(&error)),
            Err(error) => Some(error.to_string()),
        };
        info!(asked, refused, "{step}");
        shared.update(|state| {
            if let Some(seen) = state.functions.get_mut(&place) {
                // What it said when it was asked before holds until it says something else.
                let known = seen.unplugging.take().and_then(|unplugging| unplugging.refused);
                seen.unplugging = Some(Unplugging { asked, refused: refused.or(known) });
            }
        });
        let until = deadline.min(Instant::now() + pause);
        pause = (pause * 2).min(AGAIN.1);
        let gone = states.wait_for(|state| !state.functions.contains_key(&place));
        let waited = match timeout_at(until, gone).await {
            Ok(_) => Waited::Gone,
            Err(_) if until == deadline => Waited::OverLong,
            Err(_) => Waited::Again,
        };
        match waited {
            Waited::Gone => break,
            Waited::Again => {}
            Waited::OverLong => {
                let refused = in_slot(shared, slot).and_then(|seen| seen.unplugging?.refused);
                return Err(BusError::Kept { slot, asked, waited: begun.elapsed(), refused });
            }
        }
    }
    // With the guest what was behind the function is gone too.
    match shared.qmp() {
        Ok(qmp) => clear(&qmp, slot).await,
        Err(_) => Ok(()),
    }
}

/// An error with its causes on one line.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

pub(crate) async fn replace(
    shared: &Shared,
    slot: u16,
    settings: &Settings,
    backend: &Backend,
    up: bool,
    patience: Duration,
) -> Result<Seen, BusError> {
    let _changing = shared.slot(slot)?.lock().await;
    let port = shared.config.slots.get(&slot).ok_or(BusError::NoSuchSlot(slot))?;
    // A function is not taken out for what can't take its place.
    plan::plug(slot, port, settings, backend, up)?;
    take_out(shared, slot, patience).await?;
    plug_into(shared, slot, settings, backend, up).await
}

pub(crate) async fn set_link(shared: &Shared, place: Place, up: bool) -> Result<(), BusError> {
    let known = |shared: &Shared| shared.state.borrow().functions.get(&place).map(|seen| seen.id.clone());
    let id = known(shared).filter(|id| !id.is_empty()).ok_or(BusError::NoFunction(place))?;
    let step = Step::SetLink { id: id.clone(), up };
    take(&shared.qmp()?, &step).await?;
    info!("{step}");
    shared.update(|state| {
        if let Some(seen) = state.functions.get_mut(&place).filter(|seen| seen.id == id) {
            seen.up = Some(up);
        }
    });
    Ok(())
}
