//! What the server acknowledged: for tests and for whoever must know who writes how often.

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// One acknowledged write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// `create`, `update`, `patch`, `apply`, `delete` or `deletecollection`.
    pub verb: &'static str,
    /// The field manager: as the request names it, else the beginning of its user agent.
    pub manager: String,
    /// The whole user agent.
    pub user_agent: String,
    /// API group, empty for the core group.
    pub group: String,
    /// Plural name of the resource.
    pub resource: String,
    /// Namespace, empty for cluster scope.
    pub namespace: String,
    /// Name of the object; empty for `deletecollection`.
    pub name: String,
    /// `status`, `scale`, or empty.
    pub subresource: &'static str,
    /// False where the request changed nothing, and so stored nothing.
    pub changed: bool,
}

/// Is told of each write after it became durable and before it is answered. Dry runs are not writes.
pub trait Audit: Send + Sync + fmt::Debug {
    /// Takes note of one write. Must not block.
    fn wrote(&self, write: Write);
}

/// Keeps every write, for tests.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Vec<Write>>);

impl Recorder {
    /// The writes so far, which are forgotten with this.
    pub fn take(&self) -> Vec<Write> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Audit for Recorder {
    fn wrote(&self, write: Write) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(write);
    }
}
