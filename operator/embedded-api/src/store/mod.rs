//! The versioned store: what is acknowledged, its recent history, and the one writer that changes both.
//!
//! All writes pass through one task (`writer`), which takes what waits, runs it, hands the result to the disk as
//! one batch, and only then shows it to readers and answers. Readers therefore never see what a crash could undo.

mod disk;
mod file;
mod history;
mod state;
mod txn;
mod writer;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;
use tokio::sync::watch;

pub use disk::{Batch, Disk, DiskError, Loaded, MemoryDisk, Row};
pub use file::FileDisk;
pub(crate) use history::{After, Change};
pub(crate) use state::State;
pub(crate) use txn::Txn;
pub(crate) use writer::Writer;

use crate::object;

/// Where an object lives: the collection's storage name, the namespace (empty for cluster scope) and the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) storage: Arc<str>,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// An object as stored: immutable once made, shared by readers, watchers and history.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) value: Value,
    pub(crate) revision: u64,
    pub(crate) uid: String,
    /// Uids of `metadata.ownerReferences`, kept apart because deletion asks every object for them.
    pub(crate) owners: Vec<String>,
}

impl Object {
    /// Wraps a value which carries `revision` as its resource version.
    pub(crate) fn new(value: Value, revision: u64) -> Self {
        let uid = object::uid(&value).to_owned();
        let owners = object::owner_uids(&value);
        Self { value, revision, uid, owners }
    }
}

/// The part of the store that readers share with the writer.
pub(crate) struct Store {
    state: RwLock<State>,
    revision: watch::Sender<u64>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("revision", &*self.revision.borrow()).finish_non_exhaustive()
    }
}

impl Store {
    pub(crate) fn new(state: State) -> Self {
        let revision = watch::Sender::new(state.revision());
        Self { state: RwLock::new(state), revision }
    }

    /// Looks at the state; `look` must be short, for it holds up the writer.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows a durable batch to readers.
    fn publish(&self, revision: u64, changes: Vec<Change>) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).publish(revision, changes);
        self.revision.send_replace(revision);
    }

    /// Tells of each new revision.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}
