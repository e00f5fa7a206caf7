//! The trait [`Memory`]: what a controller must know after a restart that no device tells.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use virtnet_model::{Change, PartError, PfId, VfId};

/// Settings that were accepted for VFs that the host has not made yet.
pub type Prepared = BTreeMap<(PfId, VfId), Change>;

/// Keeps for the next controller what this one was told and the device does not show.
#[async_trait]
pub trait Memory: Send + Sync + fmt::Debug + 'static {
    /// What is kept.
    async fn recall(&self) -> Result<Prepared, PartError>;

    /// Keeps the settings of a VF in place of those that were kept before; an empty change: none. It is kept when this
    /// returns.
    async fn keep(&self, pf: PfId, vf: VfId, change: &Change) -> Result<(), PartError>;
}

/// Keeps nothing: a controller that is started again knows what the device shows, and what is prepared must be said again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgetful;

#[async_trait]
impl Memory for Forgetful {
    async fn recall(&self) -> Result<Prepared, PartError> {
        Ok(Prepared::new())
    }

    async fn keep(&self, _: PfId, _: VfId, _: &Change) -> Result<(), PartError> {
        Ok(())
    }
}
