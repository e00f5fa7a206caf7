//! The task that keeps a connection to QEMU, and observes whenever something happened that may have changed what is there.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};
use virtnet_controller::Place;
use virtnet_qmp::{Event, Events, Qmp};

use crate::appear::{Appearance, Writes};
use crate::bus::Shared;
use crate::operate::whole;
use crate::state::Unplugging;

/// Between two attempts at a QEMU that is there and can't be asked: another client has its monitor, or it makes no sense. No event
/// tells that this has ended. It doubles up to the last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// The same where the socket was just made: QEMU listens on it in the next moment, and no event tells that either. So often, and
/// then an event is waited for.
const LISTENS_SOON: u32 = 8;
/// Never returns.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let mut pause = AGAIN.0;
    let mut absent = 0;
    loop {
        // Before the socket is looked for, so that nothing is missed in between.
        let appearance = Appearance::of(&shared.config.qmp);
        let gone = match Qmp::connect(&shared.config.qmp).await {
            Ok((qmp, events)) => {
                absent = 0;
                let version = qmp.version().to_owned();
                info!(version, socket = %shared.config.qmp.display(), "connected to QEMU");
                let why = session(&shared, qmp, events, &mut pause).await;
                shared.connection(None);
                info!(socket = %shared.config.qmp.display(), "QEMU can't be asked any more: {why}");
                shared.update(|state| state.lost(why, false));
                // Whether it is gone the next attempt tells.
                None
            }
            Err(error) => {
                let gone = error.is_absent();
                shared.update(|state| state.lost(whole(&error), gone));
                Some((gone, error))
            }
        };
        match (gone, appearance) {
            (None, _) => sleep(pause).await,
            (Some((true, _)), Ok(mut appearance)) => {
                absent += 1;
                if absent <= LISTENS_SOON && is_there(&shared) {
                    sleep(AGAIN.0 * absent).await;
                } else {
                    appearance.change().await;
                    absent = 0;
                }
                continue;
            }
            (Some((true, _)), Err(error)) => {
                warn!(%error, "QEMU's socket can't be waited for by inotify and is tried again by the clock");
                sleep(pause).await;
            }
            (Some((false, _)), _) => sleep(pause).await,
        }
        pause = (pause * 2).min(AGAIN.1);
    }
}

fn is_there(shared: &Shared) -> bool {
    shared.config.qmp.exists()
}

/// One connection, from its beginning to its end. Why it ended.
async fn session(shared: &Shared, qmp: Qmp, mut events: Events, pause: &mut Duration) -> String {
    let mut writes = match trace(shared) {
        Ok(writes) => writes,
        Err(error) => return error,
    };
    shared.connection(Some(qmp));
    loop {
        match shared.observe().await {
            Ok(()) => *pause = AGAIN.0,
            // The connection's end says more, where that was it.
            Err(error) => return events.ended().map_or_else(|| whole(&error), |why| why.to_string()),
        }
        if let Some(ended) = something(shared, &mut events, writes.as_mut()).await {
            return ended;
        }
    }
}

/// Waits for something that makes it worth while to observe. `Some`: the connection has ended, for this.
async fn something(shared: &Shared, events: &mut Events, writes: Option<&mut Writes>) -> Option<String> {
    let written = async {
        match writes {
            Some(writes) => writes.next().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(written);
    loop {
        tokio::select! {
            event = events.next() => match event {
                None => {
                    let why = events.ended();
                    return Some(why.map_or_else(|| "it ended".to_owned(), |why| why.to_string()));
                }
                Some(event) if take(shared, &event) => return None,
                Some(_) => {}
            },
            () = &mut written => return None,
            () = shared.look.notified() => return None,
        }
    }
}

/// Takes an event in. Whether it may have changed what there is to be seen.
fn take(shared: &Shared, event: &Event) -> bool {
    tracing::debug!("QEMU tells: {event}");
    match event.name.as_str() {
        // Of a device's parts there are events too, without an id.
        "DEVICE_DELETED" => event.text("device").is_some(),
        // After a reset nothing has an address, and VFs are gone.
        "NIC_RX_FILTER_CHANGED"
        | "RESET"
        | "RESUME"
        | "NETDEV_VHOST_USER_CONNECTED"
        | "NETDEV_VHOST_USER_DISCONNECTED" => true,
        "DEVICE_UNPLUG_GUEST_ERROR" => {
            refused(shared, event);
            false
        }
        _ => false,
    }
}

/// The guest refuses to let a function go.
fn refused(shared: &Shared, event: &Event) {
    let Some(id) = event.text("device") else { return };
    shared.update(|state| {
        for (place, seen) in &mut state.functions {
            if seen.id == id && matches!(place, Place::Slot(_)) {
                let Unplugging { asked, refused: _ } = seen.unplugging.take().unwrap_or_default();
                let refused = Some("the guest refused to let it go".to_owned());
                seen.unplugging = Some(Unplugging { asked, refused });
            }
        }
    });
}

/// Watches what tells of VFs, where there is a log in which it does.
fn trace(shared: &Shared) -> Result<Option<Writes>, String> {
    let Some(path) = &shared.config.trace else { return Ok(None) };
    match Writes::to(path) {
        Ok(writes) => Ok(Some(writes)),
        Err(error) => Err(format!(
            "QEMU's log {} can't be watched: {error}: start it with -D of that path and -trace enable=pci_update_mappings_*",
            path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HostConfig;
    use crate::state::tests::seen;

    fn event(name: &str, data: serde_json::Value) -> Event {
        Event { name: name.to_owned(), data }
    }

    #[tokio::test]
    async fn a_guest_that_refuses_is_reported_for_the_function_that_it_keeps() {
        let config = HostConfig {
            qmp: "/run/qmp".into(),
            slots: [(0, "rp0".to_owned()), (1, "rp1".to_owned())].into(),
            static_pfs: [].into(),
            trace: None,
        };
        let shared = Shared::new(config);
        let there = [(Place::Slot(0), seen("virtnet-s0")), (Place::Slot(1), seen("virtnet-s1"))];
        shared.update(|state| state.observed("11.1.3", there.into()));
        let refused = serde_json::json!({"device": "virtnet-s1", "path": "/machine/peripheral/virtnet-s1"});
        assert!(!take(&shared, &event("DEVICE_UNPLUG_GUEST_ERROR", refused)), "nothing new is to be seen");
        let state = shared.state.borrow().clone();
        assert_eq!(state.functions[&Place::Slot(0)].unplugging, None);
        let unplugging = state.functions[&Place::Slot(1)].unplugging.clone();
        assert!(unplugging.is_some_and(|unplugging| unplugging.refused.is_some()));
    }

    #[tokio::test]
    async fn only_what_may_have_changed_something_is_looked_at() {
        let config = HostConfig { qmp: "/q".into(), slots: [].into(), static_pfs: [].into(), trace: None };
        let shared = Shared::new(config);
        let path = "/machine/peripheral/virtnet-s1/virtio-backend";
        assert!(!take(&shared, &event("DEVICE_DELETED", serde_json::json!({"path": path}))), "a part of one");
        assert!(take(&shared, &event("DEVICE_DELETED", serde_json::json!({"device": "virtnet-s1"}))));
        assert!(take(&shared, &event("RESET", serde_json::json!({"guest": true}))));
        assert!(!take(&shared, &event("RTC_CHANGE", serde_json::json!({"offset": 1}))));
    }
}
