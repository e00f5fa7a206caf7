//! The trait [`Host`]: the machine that the functions appear in, as far as a DPU can reach it.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

use crate::{Events, PartError, PfId};

/// Whether the host runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostPower {
    /// It can't be known from here.
    #[default]
    Unknown,
    /// It is off.
    Off,
    /// It is booting: its buses are not enumerated yet.
    Booting,
    /// Its operating system runs.
    Running,
}

/// What is known of the host at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// Whether it runs.
    pub power: HostPower,
    /// `sriov_numvfs` of each static PF that it has enumerated.
    pub num_vfs: BTreeMap<PfId, u16>,
}

/// The host, through whatever reaches it. A DPU alone can't change its host; where nothing reaches it, `set_num_vfs` is
/// refused and the person at the host does it.
#[async_trait]
pub trait Host: Send + Sync + fmt::Debug {
    /// Power and SR-IOV.
    async fn observe(&self) -> Result<HostState, PartError>;

    /// Writes `sriov_numvfs` of a static PF. Going from one number to another that isn't 0 goes by way of 0, as the
    /// kernel demands, and so removes the VFs that are there.
    async fn set_num_vfs(&self, pf: PfId, num_vfs: u16) -> Result<(), PartError>;

    /// The host goes on, off, boots, or its SR-IOV changes.
    fn events(&self) -> Events;
}
