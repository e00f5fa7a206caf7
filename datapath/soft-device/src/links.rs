//! Links: that of a function is up where its SF's representor is, as with an eswitch in hardware. [`follow`] follows representors.

use std::error::Error;
use std::sync::{Arc, Weak};

use futures::StreamExt;
use virtnet_controller::Place;
use virtnet_model::Links;

use crate::device::Shared;

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
            Err(error) => tracing::error!(%error, "links of functions can't follow their representors"),
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
        let bus = self.bus(place);
        if bus.as_ref().is_some_and(|bus| !bus.state().borrow().functions.contains_key(&place)) {
            // Nobody sees it. It is plugged with the link that it is to have then.
            return;
        }
        let up = self.table().tell_link(place);
        let set = match bus {
            // QEMU asks no back end for the link.
            Some(bus) => bus.set_link(place, up).await.map_err(Box::<dyn Error + Send + Sync>::from),
            None => function.set_link(up).await.map_err(Box::from),
        };
        match set {
            Ok(()) => tracing::info!(%place, up, "the link is as the representor"),
            Err(error) => tracing::warn!(%place, up, error, "setting the link as the representor"),
        }
        drop(function);
        self.look_at(place);
    }
}
