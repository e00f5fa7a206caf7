//! What is remembered of the MACs that devices declare: which of them nobody else of the fleet had, and which are waited for.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use tokio::sync::oneshot;
use virtnet_model::Mac;

use crate::desired::{Device, Uid};
use crate::plan::Free;

/// How many that have a MAC are watched at once. Those who wait for others are served by retries alone.
const WATCHED: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Macs {
    free: BTreeMap<Uid, Free>,
    /// MACs that were another's.
    lost: BTreeMap<Uid, Mac>,
    /// Devices that wait for one to give a MAC up. Dropping the sender ends the wait.
    waiting: BTreeMap<Uid, (Mac, oneshot::Sender<()>)>,
}

impl Macs {
    /// What planning is told.
    pub(crate) fn free(&self) -> &BTreeMap<Uid, Free> {
        &self.free
    }

    /// Devices whose MAC was another's when it was last looked for.
    pub(crate) fn lost(&self) -> BTreeSet<Uid> {
        self.lost.keys().cloned().collect()
    }

    /// The MAC is another's.
    pub(crate) fn is_lost(&mut self, uid: &Uid, mac: Mac) {
        self.lost.insert(uid.clone(), mac);
    }

    /// Nobody else had the MAC.
    pub(crate) fn is_free(&mut self, uid: &Uid, free: Free) {
        self.waiting.remove(uid);
        self.lost.remove(uid);
        self.free.insert(uid.clone(), free);
    }

    /// The device waits for this. What is returned ends with it, or when the device waits no longer; `None` where it waits
    /// already, or too many do.
    pub(crate) fn wait(
        &mut self,
        uid: &Uid,
        mac: Mac,
        given_up: BoxFuture<'static, ()>,
    ) -> Option<BoxFuture<'static, ()>> {
        self.free.remove(uid);
        if self.waiting.contains_key(uid) || self.waiting.len() >= WATCHED {
            return None;
        }
        let (sender, ended) = oneshot::channel();
        self.waiting.insert(uid.clone(), (mac, sender));
        Some(
            async move {
                match select(given_up, ended).await {
                    Either::Left(_) | Either::Right(_) => {}
                }
            }
            .boxed(),
        )
    }

    /// The device waits no longer.
    pub(crate) fn waits_no_longer(&mut self, uid: &Uid) {
        self.waiting.remove(uid);
    }

    /// Forgets what is of devices that are gone, or that want another MAC, or that lost their note: then another may have
    /// noted it since.
    pub(crate) fn prune(&mut self, devices: &BTreeMap<Uid, Device>) {
        self.free.retain(|uid, free| {
            devices.get(uid).is_some_and(|device| {
                device.wanted_mac() == Some(free.mac) && (!free.noted || device.macs.contains(&free.mac))
            })
        });
        let wants =
            |uid: &Uid, mac| devices.get(uid).is_some_and(|device: &Device| device.wanted_mac() == Some(mac));
        self.lost.retain(|uid, mac| wants(uid, *mac));
        self.waiting.retain(|uid, (mac, _)| wants(uid, *mac));
    }
}
