//! What is known of the host: [`HostState`], and [`changes`] from one to the next.

use std::collections::BTreeMap;
use std::fmt;

use virtnet_controller::Place;
use virtnet_model::{Bdf, Features, Mac, Mtu};

/// Whether QEMU can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It can.
    Up {
        /// Its version.
        version: String,
    },
    /// It can't.
    Down {
        /// Why, for a person.
        why: String,
        /// Nobody listens on its socket: the guest is off, and its functions are nowhere.
        gone: bool,
    },
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { version } => write!(f, "QEMU {version}"),
            Self::Down { why, gone: true } => write!(f, "no QEMU: {why}"),
            Self::Down { why, gone: false } => write!(f, "QEMU can't be asked: {why}"),
        }
    }
}

/// What the guest's driver has set by the control queue (virtio 1.2, section 5.1.6.5), as `query-rx-filter` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RxFilter {
    /// The address that the driver uses. A guest may set what it likes, so that this may be none that [`Mac`] takes.
    pub mac: Option<Mac>,
    /// It wants every frame.
    pub promiscuous: bool,
    /// It wants every frame to a group.
    pub all_multicast: bool,
    /// The VLANs that it wants; `None`: all.
    pub vlans: Option<Vec<u16>>,
}

/// A function that is to be unplugged and that the guest still has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unplugging {
    /// How often the guest was asked.
    pub asked: u32,
    /// Why it refused when it last did, or why it could not be asked.
    pub refused: Option<String>,
}

/// A function that the guest can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its id in QEMU.
    pub id: String,
    /// This crate plugged it, in this process or an earlier one.
    pub ours: bool,
    /// Its address in the guest; `None` until the guest has numbered its bus.
    pub bdf: Option<Bdf>,
    /// Legacy drivers can use it too: it is 1af4:1000, not 1af4:1041.
    pub transitional: Option<bool>,
    /// The MAC address that it was made with.
    pub mac: Option<Mac>,
    /// The MTU that it was made with, in bytes; `None`: it offers none.
    pub mtu: Option<Mtu>,
    /// MSI-X vectors, the configuration vector included.
    pub vectors: Option<u16>,
    /// Descriptors a receive queue.
    pub queue_size: Option<u16>,
    /// The features that it was made to offer, as far as its back end has them. Asked of VFs alone: of the others they are
    /// known to whoever configured them.
    pub features: Option<Features>,
    /// The link as it was last set; `None`: not by this process. QEMU can't be asked.
    pub up: Option<bool>,
    /// What its driver has set; `None` where that is not known.
    pub filter: Option<RxFilter>,
    /// It is to go.
    pub unplugging: Option<Unplugging>,
}

/// All that is known of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostState {
    /// Whether it can be asked. While it can't and is not gone, the functions are those last seen.
    pub connection: Connection,
    /// The functions that the guest can see: what is in the slots, the static PFs, and the VFs that it has enabled
    /// and given to a driver.
    pub functions: BTreeMap<Place, Seen>,
}

/// Something of the host is now so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusEvent {
    /// The connection to QEMU.
    Connection(Connection),
    /// The function at this place; `None`: gone.
    Function(Place, Option<Box<Seen>>),
}

impl HostState {
    /// Of a host that nobody has asked yet.
    pub(crate) fn new() -> Self {
        let why = "not connected yet".to_owned();
        Self { connection: Connection::Down { why, gone: false }, functions: BTreeMap::new() }
    }

    /// Takes what was observed. What can't be observed stays as it is known of the same function.
    pub(crate) fn observed(&mut self, version: &str, mut functions: BTreeMap<Place, Seen>) {
        for (place, seen) in &mut functions {
            if let Some(old) = self.functions.get(place).filter(|old| old.id == seen.id) {
                seen.up = old.up;
                seen.unplugging.clone_from(&old.unplugging);
            }
        }
        self.connection = Connection::Up { version: version.to_owned() };
        self.functions = functions;
    }

    /// QEMU can't be asked any more.
    pub(crate) fn lost(&mut self, why: String, gone: bool) {
        self.connection = Connection::Down { why, gone };
        if gone {
            self.functions.clear();
        }
        // Another QEMU may answer next, whose functions begin with their links up.
        for seen in self.functions.values_mut() {
            seen.up = None;
        }
    }
}

/// What makes the new state of the old one: first whether it is known, then functions that went, then the others.
pub(crate) fn changes(old: &HostState, new: &HostState) -> Vec<BusEvent> {
    let connection = (old.connection != new.connection).then(|| BusEvent::Connection(new.connection.clone()));
    let gone = old.functions.keys().filter(|place| !new.functions.contains_key(place));
    let gone = gone.map(|place| BusEvent::Function(*place, None));
    let others = new.functions.iter().filter(|(place, seen)| old.functions.get(place) != Some(seen));
    let others = others.map(|(place, seen)| BusEvent::Function(*place, Some(Box::new(seen.clone()))));
    connection.into_iter().chain(gone).chain(others).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn seen(id: &str) -> Seen {
        Seen {
            id: id.to_owned(),
            ours: true,
            bdf: Bdf::from_raw(0x100),
            transitional: Some(false),
            mac: "02:00:00:00:00:01".parse().ok(),
            mtu: None,
            vectors: Some(4),
            queue_size: Some(256),
            features: None,
            up: None,
            filter: None,
            unplugging: None,
        }
    }

    fn up(functions: &[(u16, Seen)]) -> HostState {
        let mut state = HostState::new();
        let functions = functions.iter().map(|(slot, seen)| (Place::Slot(*slot), seen.clone())).collect();
        state.observed("11.1.3", functions);
        state
    }

    #[test]
    fn a_link_is_set_anew_after_the_connection_was_lost() {
        let mut state = up(&[(0, Seen { up: Some(false), ..seen("a") })]);
        state.lost("it was".to_owned(), false);
        state.observed("11.1.3", [(Place::Slot(0), seen("a"))].into());
        assert_eq!(state.functions[&Place::Slot(0)].up, None);
    }

    #[test]
    fn removals_are_told_before_what_is_there() {
        let old = up(&[(0, seen("a")), (1, seen("b"))]);
        let changed = Seen { bdf: None, ..seen("b") };
        let new = up(&[(1, changed.clone()), (2, seen("c"))]);
        assert_eq!(
            changes(&old, &new),
            [
                BusEvent::Function(Place::Slot(0), None),
                BusEvent::Function(Place::Slot(1), Some(Box::new(changed))),
                BusEvent::Function(Place::Slot(2), Some(Box::new(seen("c")))),
            ]
        );
        assert_eq!(changes(&new, &new), []);
    }

    #[test]
    fn what_is_set_here_stays_with_its_function_and_no_other() {
        let mut state = up(&[(0, Seen { up: Some(false), ..seen("a") })]);
        let waiting = Some(Unplugging { asked: 2, refused: None });
        state.functions.get_mut(&Place::Slot(0)).unwrap().unplugging.clone_from(&waiting);
        state.observed("11.1.3", [(Place::Slot(0), seen("a"))].into());
        let known = &state.functions[&Place::Slot(0)];
        assert_eq!((known.up, &known.unplugging), (Some(false), &waiting));
        state.observed("11.1.3", [(Place::Slot(0), seen("b"))].into());
        let other = &state.functions[&Place::Slot(0)];
        assert_eq!((other.up, &other.unplugging), (None, &None));
    }

    #[test]
    fn a_guest_that_is_gone_has_no_functions_and_one_that_is_silent_has_those_last_seen() {
        let old = up(&[(0, seen("a"))]);
        let mut silent = old.clone();
        silent.lost("QEMU closed it".to_owned(), false);
        assert_eq!(silent.functions.len(), 1);
        assert_eq!(changes(&old, &silent), [BusEvent::Connection(silent.connection.clone())]);
        let mut gone = silent.clone();
        gone.lost("nobody listens".to_owned(), true);
        assert_eq!(
            changes(&silent, &gone),
            [BusEvent::Connection(gone.connection.clone()), BusEvent::Function(Place::Slot(0), None)]
        );
    }
}
