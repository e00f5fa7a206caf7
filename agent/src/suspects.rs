//! Ports that look like orphans: removed only when a timer prompts a second look and they are orphans still.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use virtnet_model::{IfName, Owner};

/// Between the first sighting and the second.
const SECOND_LOOK: Duration = Duration::from_secs(5);

/// The suspects, each with when it may be looked at again. Empty at rest, and then no timer runs.
#[derive(Debug, Default)]
pub(crate) struct Suspects(BTreeMap<(IfName, Owner), Instant>);

impl Suspects {
    /// Takes in what an observation shows: new suspects wait, those that are none any more are cleared.
    pub(crate) fn seen(&mut self, now_suspect: BTreeSet<(IfName, Owner)>, now: Instant) {
        self.0.retain(|suspect, _| now_suspect.contains(suspect));
        for suspect in now_suspect {
            self.0.entry(suspect).or_insert(now + SECOND_LOOK);
        }
    }

    /// Those whose second look has come.
    pub(crate) fn ripe(&self, now: Instant) -> BTreeSet<(IfName, Owner)> {
        self.0.iter().filter(|(_, at)| **at <= now).map(|(suspect, _)| suspect.clone()).collect()
    }

    /// When the next second look is due.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        self.0.values().copied().filter(|at| *at > now).min()
    }
}
