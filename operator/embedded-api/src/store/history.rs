//! The recent changes of one collection: what watches are fed from and old pages are rebuilt with.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Key, Object};

/// What an object became.
#[derive(Debug, Clone)]
pub(crate) enum After {
    /// The object now.
    Stored(Arc<Object>),
    /// The object is gone; its last state carries the revision of its removal.
    Gone(Arc<Object>),
}

/// One acknowledged change.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    pub(crate) before: Option<Arc<Object>>,
    pub(crate) after: After,
}

/// A bounded run of changes in order of revision.
#[derive(Debug)]
pub(crate) struct History {
    changes: VecDeque<Arc<Change>>,
    /// Changes up to and including this revision are no longer held.
    compacted: u64,
    limit: usize,
}

impl History {
    pub(crate) fn new(compacted: u64, limit: usize) -> Self {
        Self { changes: VecDeque::new(), compacted, limit }
    }

    pub(crate) fn push(&mut self, change: Arc<Change>) {
        self.changes.push_back(change);
        while self.changes.len() > self.limit {
            if let Some(dropped) = self.changes.pop_front() {
                self.compacted = dropped.revision;
            }
        }
    }

    /// The changes after `revision`, or `None` where some of them are no longer held.
    pub(crate) fn since(&self, revision: u64) -> Option<impl DoubleEndedIterator<Item = &Arc<Change>>> {
        if revision < self.compacted {
            return None;
        }
        let start = self.changes.partition_point(|change| change.revision <= revision);
        Some(self.changes.range(start..))
    }

    /// The oldest revision that can still be asked for.
    pub(crate) fn oldest(&self) -> u64 {
        self.compacted
    }
}
