//! The seam to the disk: what is loaded at the start, and how a batch is made durable.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

/// One object on disk, or its absence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// `storage/namespace/name`; storage names hold no slash beyond the one after the group.
    pub key: String,
    /// The object as JSON; `None` removes it.
    pub value: Option<Vec<u8>>,
}

/// Writes that become durable together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The revision of the last change in the batch.
    pub revision: u64,
    /// The final state of each object touched.
    pub rows: Vec<Row>,
}

/// All that was durable when the store was opened.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The last revision given out.
    pub revision: u64,
    /// Each object's key and JSON.
    pub rows: Vec<(String, Vec<u8>)>,
}

/// A failure to read or to write the state.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// One process at a time can have the state open.
    #[error("opening {place}: another process has it open; stop that one or use another state directory")]
    InUse {
        /// A path.
        place: String,
    },
    /// Anything else.
    #[error("{operation} {place}: the state on disk is as it was before; check space and permissions there")]
    Failed {
        /// What was being done, such as `opening`.
        operation: &'static str,
        /// To what: a path.
        place: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Keeps batches.
#[async_trait]
pub trait Disk: Send + Sync + fmt::Debug {
    /// Everything durable. Called once, before any commit.
    async fn load(&self) -> Result<Loaded, DiskError>;

    /// Makes a batch durable: once it returns `Ok`, the batch survives a loss of power.
    async fn commit(&self, batch: Batch) -> Result<(), DiskError>;
}

/// A disk in memory, for tests and simulation: what was committed is there when it is opened again.
#[derive(Debug, Default)]
pub struct MemoryDisk(Mutex<(u64, BTreeMap<String, Vec<u8>>)>);

#[async_trait]
impl Disk for MemoryDisk {
    async fn load(&self) -> Result<Loaded, DiskError> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Loaded { revision: held.0, rows: held.1.clone().into_iter().collect() })
    }

    async fn commit(&self, batch: Batch) -> Result<(), DiskError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.0 = batch.revision;
        for row in batch.rows {
            match row.value {
                Some(value) => held.1.insert(row.key, value),
                None => held.1.remove(&row.key),
            };
        }
        Ok(())
    }
}
