//! What is known of the device: [`Table`]. Whatever changes it tells those who watch, in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use virtnet_controller::{
    DeviceEvent, DeviceState, DeviceWatch, Emulated, Emulation, Place, Profile, Sf, SfKey,
};
use virtnet_model::{IfName, Uplink};
use virtnet_qemu_host::Seen;
use virtnet_soft::{Function, State, Tap};

/// The back end of a function, and the task that follows its driver.
#[derive(Debug)]
pub(crate) struct BackEnd {
    pub(crate) function: Arc<Function>,
    pub(crate) follower: AbortHandle,
}

impl Drop for BackEnd {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// A function.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) emulated: Emulated,
    /// It is to go, and its guest has not let go of it yet.
    pub(crate) leaving: bool,
    /// Its driver was told that there is no link.
    pub(crate) down: bool,
}

/// An SF and its representor, which stays for as long as this is held.
#[derive(Debug)]
pub(crate) struct HeldSf {
    pub(crate) sf: Sf,
    pub(crate) tap: Arc<Tap>,
    /// The representor is up, as far as that has been seen.
    pub(crate) up: bool,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Table {
    profile: Profile,
    uplink_mtus: BTreeMap<Uplink, u32>,
    functions: BTreeMap<Place, Held>,
    /// What is behind functions that have an SF; of VFs, also of those that no guest has made.
    back_ends: BTreeMap<Place, BackEnd>,
    sfs: BTreeMap<SfKey, HeldSf>,
    watchers: Vec<mpsc::UnboundedSender<DeviceEvent>>,
}

impl Table {
    pub(crate) fn new(profile: Profile, uplink_mtus: BTreeMap<Uplink, u32>) -> Self {
        Self {
            profile,
            uplink_mtus,
            functions: BTreeMap::new(),
            back_ends: BTreeMap::new(),
            sfs: BTreeMap::new(),
            watchers: Vec::new(),
        }
    }

    pub(crate) fn watch(&mut self) -> DeviceWatch {
        let (sender, events) = mpsc::unbounded_channel();
        self.watchers.push(sender);
        let functions = self.functions.iter().map(|(place, held)| (*place, held.emulated.clone())).collect();
        let sfs = self.sfs.iter().map(|(key, held)| (*key, held.sf.clone())).collect();
        let state = DeviceState {
            profile: self.profile.clone(),
            uplink_mtus: self.uplink_mtus.clone(),
            functions,
            sfs,
        };
        DeviceWatch { state, events }
    }

    fn emit(&mut self, event: &DeviceEvent) {
        self.watchers.retain(|watcher| watcher.send(event.clone()).is_ok());
    }

    pub(crate) fn has_uplink(&self, uplink: Uplink) -> bool {
        self.uplink_mtus.contains_key(&uplink)
    }

    pub(crate) fn sf(&self, key: SfKey) -> Option<&HeldSf> {
        self.sfs.get(&key)
    }

    /// The function behind which an SF is.
    pub(crate) fn user_of(&self, key: SfKey) -> Option<Place> {
        let uses =
            |held: &Held| held.emulated.emulation.as_ref().and_then(|emulation| emulation.sf) == Some(key);
        self.functions.iter().find(|(_, held)| uses(held)).map(|(place, _)| *place)
    }

    pub(crate) fn add_sf(&mut self, key: SfKey, held: HeldSf) {
        let event = DeviceEvent::Sf(key, Some(held.sf.clone()));
        self.sfs.insert(key, held);
        self.emit(&event);
    }

    pub(crate) fn remove_sf(&mut self, key: SfKey) {
        self.sfs.remove(&key);
        self.emit(&DeviceEvent::Sf(key, None));
    }

    pub(crate) fn function(&self, place: Place) -> Option<&Held> {
        self.functions.get(&place)
    }

    /// The places that have something behind them.
    pub(crate) fn back_ends(&self) -> Vec<Place> {
        self.back_ends.keys().copied().collect()
    }

    /// What is behind a place.
    pub(crate) fn back_end(&self, place: Place) -> Option<&Arc<Function>> {
        self.back_ends.get(&place).map(|back_end| &back_end.function)
    }

    /// Puts something behind a place, or nothing.
    pub(crate) fn set_back_end(&mut self, place: Place, back_end: Option<BackEnd>) {
        match back_end {
            Some(back_end) => self.back_ends.insert(place, back_end),
            None => self.back_ends.remove(&place),
        };
    }

    /// A function is there that was not.
    pub(crate) fn add(&mut self, place: Place, held: Held) {
        let event = DeviceEvent::Function(place, Some(held.emulated.clone()));
        self.functions.insert(place, held);
        self.emit(&event);
    }

    /// A function is not there any more. Whoever watches is told.
    pub(crate) fn remove(&mut self, place: Place) {
        if self.functions.remove(&place).is_some() {
            self.emit(&DeviceEvent::Function(place, None));
        }
    }

    /// Takes in which representors are up: the functions of those that were not, or are not any more.
    pub(crate) fn see_links(&mut self, up: impl Fn(&IfName) -> bool) -> Vec<Place> {
        let mut changed = Vec::new();
        for (key, held) in &mut self.sfs {
            let up = up(&held.sf.representor);
            if std::mem::replace(&mut held.up, up) != up {
                changed.push(*key);
            }
        }
        changed.into_iter().filter_map(|key| self.user_of(key)).collect()
    }

    /// Whether the driver of a function with this SF is to see a link.
    pub(crate) fn is_up(&self, sf: Option<SfKey>) -> bool {
        sf.and_then(|key| self.sf(key)).is_some_and(|held| held.up)
    }

    /// The link that a function's driver is to see.
    pub(crate) fn link(&self, place: Place) -> bool {
        self.is_up(self.functions.get(&place).and_then(|held| held.emulated.emulation.as_ref()?.sf))
    }

    /// The link that a function's driver is to see, which it is told now.
    pub(crate) fn tell_link(&mut self, place: Place) -> bool {
        let up = self.link(place);
        self.set_down(place, !up);
        up
    }

    /// Says whether a function's driver was told that there is no link; what was said before.
    pub(crate) fn set_down(&mut self, place: Place, down: bool) -> bool {
        self.functions.get_mut(&place).is_some_and(|held| std::mem::replace(&mut held.down, down))
    }

    /// Takes in what is seen of a function on its bus, where it has one, and of its driver (`by_socket`: by that alone).
    pub(crate) fn see(
        &mut self,
        place: Place,
        bus: Option<Option<&Seen>>,
        driver: Option<&State>,
        by_socket: bool,
    ) {
        let down = self.functions.get(&place).is_some_and(|held| held.down);
        self.edit(place, |emulated| {
            if let Some(seen) = bus {
                see_bus(emulated, seen);
            }
            if let Some(state) = driver {
                see_driver(emulated, state, by_socket, down);
            }
        });
    }

    /// Takes the back end of a function, to be closed: nothing that its driver does is taken in any more.
    pub(crate) fn take_back_end(&mut self, place: Place) -> Option<BackEnd> {
        self.back_ends.remove(&place)
    }

    pub(crate) fn set_leaving(&mut self, place: Place, leaving: bool) {
        if let Some(held) = self.functions.get_mut(&place) {
            held.leaving = leaving;
        }
    }

    /// Changes what is known of a function, and tells it where it is another then.
    pub(crate) fn edit(&mut self, place: Place, edit: impl FnOnce(&mut Emulated)) {
        let Some(held) = self.functions.get_mut(&place) else { return };
        let before = held.emulated.clone();
        edit(&mut held.emulated);
        if held.emulated != before {
            let event = DeviceEvent::Function(place, Some(held.emulated.clone()));
            self.emit(&event);
        }
    }

    /// A function has another back end, and these settings.
    pub(crate) fn configured(&mut self, place: Place, emulation: &Emulation, back_end: Option<BackEnd>) {
        self.set_back_end(place, back_end);
        self.edit(place, |emulated| emulated.emulation = Some(emulation.clone()));
    }
}

/// Takes in what a back end has seen of its driver. Behind a socket, nothing else tells whether a machine has the function. Where there is
/// no link (`down`), QEMU says to back ends that there is no driver: who had the function is taken to have it still.
pub(crate) fn see_driver(emulated: &mut Emulated, state: &State, by_socket: bool, down: bool) {
    if !(down && emulated.driver.in_use) {
        emulated.driver.in_use = state.in_use;
        emulated.negotiated.clone_from(&state.negotiated);
    }
    if by_socket && emulated.bdf.is_none() {
        emulated.driver.seen = state.connected;
    }
}

/// Takes in what is seen of a function on a host's bus.
pub(crate) fn see_bus(emulated: &mut Emulated, seen: Option<&Seen>) {
    emulated.bdf = seen.and_then(|seen| seen.bdf);
    emulated.driver.seen = emulated.bdf.is_some();
    emulated.driver.in_use &= seen.is_some();
}
