//! Ports that look like orphans, or like those of netdevs that are gone: removed only when a timer prompts a second look
//! and they still do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use virtnet_model::{IfName, Owner};

/// Between the first sighting and the second.
const SECOND_LOOK: Duration = Duration::from_secs(5);

/// The suspects. Empty at rest, and then no timer runs.
#[derive(Debug, Default)]
pub(crate) struct Suspects(BTreeMap<(IfName, Owner), Sighting>);

#[derive(Debug)]
struct Sighting {
    /// When it may be looked at again.
    again_at: Instant,
    /// Nobody was told yet that its time has come.
    due_unseen: bool,
}

impl Suspects {
    /// Takes in what an observation shows: new suspects wait, those that are none any more are cleared.
    pub(crate) fn seen(&mut self, now_suspect: BTreeSet<(IfName, Owner)>, now: Instant) {
        self.0.retain(|suspect, _| now_suspect.contains(suspect));
        for suspect in now_suspect {
            self.0.entry(suspect).or_insert(Sighting { again_at: now + SECOND_LOOK, due_unseen: true });
        }
    }

    /// Those whose second look has come.
    pub(crate) fn ripe(&self, now: Instant) -> BTreeSet<(IfName, Owner)> {
        self.0
            .iter()
            .filter(|(_, sighting)| sighting.again_at <= now)
            .map(|(suspect, _)| suspect.clone())
            .collect()
    }

    /// Whether a second look has become due since this was last asked. One whose removal fails stays ripe, and is looked
    /// at again when that is tried again.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let due = |sighting: &&mut Sighting| sighting.due_unseen && sighting.again_at <= now;
        self.0.values_mut().filter(due).map(|sighting| sighting.due_unseen = false).count() > 0
    }

    /// When the next second look is due.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|sighting| sighting.again_at).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_suspect_is_due_once_and_ripe_until_it_is_none_any_more() {
        let start = Instant::now();
        let owner = Owner { dpu: "dpu-0".into(), device: "default/web".into(), uid: "u".into() };
        let suspect = ("en3f0pf0sf2000".parse::<IfName>().unwrap(), owner);
        let mut suspects = Suspects::default();
        suspects.seen([suspect.clone()].into(), start);
        assert!(suspects.ripe(start).is_empty() && !suspects.take_due(start));
        let second = suspects.next(start).unwrap();
        suspects.seen([suspect.clone()].into(), second);
        assert!(suspects.take_due(second));
        assert!(!suspects.take_due(second), "it would wake the loop for as long as its removal fails");
        assert_eq!(suspects.ripe(second), [suspect].into());
        assert_eq!(suspects.next(second), None);
        suspects.seen(BTreeSet::new(), second);
        assert!(suspects.ripe(second).is_empty());
    }
}
