//! Which steps are under way, and which have ended so lately that what was observed may not show it yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::Uid;
use crate::key::Key;
use crate::plan::Part;

/// A lock on one part of one device, held from the start of a step until an observation that began after its end.
///
/// Without the second half, a plan from an observation that began before the step ended would ask for the step again.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    held: BTreeMap<Key, Held>,
    observations: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Running,
    /// Ended when this many observations had begun.
    Ended(u64),
}

impl Busy {
    /// An observation begins; the number is for [`Busy::observed`].
    pub(crate) fn begin_observation(&mut self) -> u64 {
        self.observations += 1;
        self.observations
    }

    /// The observation with this number is complete: steps that ended before it began are history.
    pub(crate) fn observed(&mut self, number: u64) {
        self.held.retain(|_, held| match held {
            Held::Running => true,
            Held::Ended(before) => *before >= number,
        });
    }

    /// A step starts.
    pub(crate) fn start(&mut self, key: Key) {
        self.held.insert(key, Held::Running);
    }

    /// A step ended, well or not.
    pub(crate) fn end(&mut self, key: Key) {
        self.held.insert(key, Held::Ended(self.observations));
    }

    /// Whether the part is held.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.held.contains_key(key)
    }

    /// What planning must leave alone.
    pub(crate) fn of_devices(&self) -> BTreeSet<(Uid, Part)> {
        self.held.keys().filter_map(Key::of_device).collect()
    }

    /// Whether something has ended that no observation shows yet.
    pub(crate) fn needs_observation(&self) -> bool {
        self.held.values().any(|held| matches!(held, Held::Ended(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_held_until_an_observation_that_began_after_its_end() {
        let mut busy = Busy::default();
        let key = Key::Device(Uid::from("u"), Part::Function);
        let first = busy.begin_observation();
        busy.start(key.clone());
        busy.end(key.clone());
        busy.observed(first);
        assert!(busy.contains(&key), "the first observation began before the step ended");
        assert!(busy.needs_observation());
        let second = busy.begin_observation();
        busy.observed(second);
        assert!(!busy.contains(&key));
    }
}
