//! Links: that of a function is up where its SF's representor is, as with an eswitch in hardware. [`follow`] follows representors.

use std::error::Error;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use virtnet_controller::Place;
use virtnet_model::Links;

use crate::device::Shared;

/// How long after a look at the netdevs that failed the next one is taken.
const RETRY: Duration = Duration::from_secs(1);

/// Has the link of each function be as its representor is, whenever a netdev changes, until the device ends.
pub(crate) async fn follow(shared: Weak<Shared>, links: impl Links) {
    // Those that come before the first look are none too many.
    let mut events = links.events();
    loop {
        let netdevs = links.observe().await;
        let Some(shared) = shared.upgrade() else { return };
        match netdevs {
            Ok(netdevs) => {
                let changed = shared
                    .table()
                    .see_links(|representor| netdevs.get(representor).is_some_and(|link| link.up));
                for place in changed {
                    set(&shared, place);
                }
            }
            Err(error) => {
                tracing::error!(%error, "links of functions can't follow their representors");
                drop(shared);
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        drop(shared);
        if events.next().await.is_none() {
            return;
        }
    }
}

/// Has the link of a function be what it is to be once nothing else is done to it: what is plugged meanwhile may be plugged with the
/// link of before.
pub(crate) fn set(shared: &Arc<Shared>, place: Place) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move { shared.set_link(place).await });
}

impl Shared {
    async fn set_link(&self, place: Place) {
        let _right = self.change(place).await;
        let Some(function) = self.table().back_end(place).map(Arc::clone) else { return };
        let up = self.table().link(place);
        let Some(bus) = self.bus(place) else {
            if let Err(error) = function.set_link(up).await {
                tracing::warn!(%place, up, error = &error as &dyn Error, "setting the link as the representor");
            }
            return;
        };
        // Where nobody sees it it is plugged with the link that it is to have then.
        let seen = bus.state().borrow().functions.get(&place).map(|seen| seen.up);
        if seen.is_none_or(|seen| seen == Some(up)) {
            return;
        }
        // From before QEMU takes the link away until it has given it back, back ends are told that there is no driver.
        let before = self.table().set_down(place, true);
        match bus.set_link(place, up).await {
            Ok(()) => {
                tracing::info!(%place, up, "the link is as the representor");
                self.table().set_down(place, !up);
            }
            Err(error) => {
                tracing::warn!(%place, up, error = &error as &dyn Error, "setting the link as the representor");
                self.table().set_down(place, before);
            }
        }
        drop(function);
        self.look_at(place);
    }
}
