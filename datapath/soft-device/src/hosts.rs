//! What hosts and drivers do by themselves, taken in: [`follow`], [`follow_driver`].

use std::sync::{Arc, Weak};

use tokio::sync::watch;
use virtnet_controller::Place;
use virtnet_qemu_host::{BusEvent, BusWatch, Connection, Seen};
use virtnet_soft::State;

use crate::device::Shared;
use crate::links;

/// Takes in what is seen on a host's bus, until the device ends.
pub(crate) async fn follow(shared: Weak<Shared>, host: String, watch: BusWatch) {
    let BusWatch { state, mut events } = watch;
    {
        let Some(shared) = shared.upgrade() else { return };
        for (place, seen) in &state.functions {
            take_in(&shared, *place, Some(seen));
        }
    }
    while let Some(event) = events.recv().await {
        let Some(shared) = shared.upgrade() else { return };
        match event {
            BusEvent::Function(place, seen) => take_in(&shared, place, seen.as_deref()),
            BusEvent::Connection(Connection::Up { version }) => {
                tracing::info!(host, version, "the host can be reached");
                came(&shared, &host);
            }
            BusEvent::Connection(Connection::Down { why, gone }) => {
                tracing::warn!(host, why, gone, "the host can't be reached");
            }
        }
    }
}

fn take_in(shared: &Arc<Shared>, place: Place, seen: Option<&Seen>) {
    let held = shared.table().function(place).is_some();
    match (place, seen) {
        (Place::Slot(slot), Some(seen)) if !held && seen.ours => {
            // It may be one that is just being plugged here, which whoever has the right to the slot knows.
            let shared = Arc::clone(shared);
            tokio::spawn(async move { shared.take_out_left(slot).await });
        }
        (Place::Vf(..), _) => {
            let shared = Arc::clone(shared);
            tokio::spawn(async move { shared.look_at_vf(place).await });
        }
        _ => shared.look_at(place),
    }
    match (place, seen) {
        (Place::Slot(slot), None) if held => plug_anew(shared, slot),
        // QEMU has made it with a link.
        (Place::Static(_), Some(_)) => links::set(shared, place),
        _ => {}
    }
}

/// Whoever has the right to the slot is first to say whether it is to be in there.
fn plug_anew(shared: &Arc<Shared>, slot: u16) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move { shared.plug_anew(slot).await });
}

/// A QEMU was started, or can be asked again: what is to be in its slots is put there where it is not, and links are as they are to be.
fn came(shared: &Arc<Shared>, host: &str) {
    let Some(config) = shared.config.hosts.get(host) else { return };
    for slot in config.slots.keys().copied() {
        plug_anew(shared, slot);
        links::set(shared, Place::Slot(slot));
    }
    for pf in config.static_pfs.keys().copied() {
        for place in shared.config.vfs_of(pf).chain([Place::Static(pf)]) {
            links::set(shared, place);
        }
    }
}

/// Takes in what the driver of a function does, for as long as there is the function.
pub(crate) async fn follow_driver(shared: Weak<Shared>, place: Place, mut state: watch::Receiver<State>) {
    let mut fault = None;
    loop {
        let now = state.borrow_and_update().clone();
        {
            let Some(shared) = shared.upgrade() else { return };
            if now.fault != fault {
                if let Some(why) = &now.fault {
                    tracing::warn!(%place, why, refused = now.refused, "a front end or its driver does what it may not");
                }
                fault.clone_from(&now.fault);
            }
            shared.look_at(place);
            if let Some(bus) = shared.bus(place) {
                // Of a driver that comes or goes QEMU tells nothing.
                bus.look();
            }
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}
