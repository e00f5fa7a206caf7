//! The trait [`Firmware`]: non-volatile settings as `mlxconfig` shows and sets them.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

use crate::{EswitchPort, Events, PartError};

/// Values of one port's device by key, such as `PF_TOTAL_SF` → `508`.
pub type FirmwareValues = BTreeMap<String, String>;

/// The settings of one port's device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirmwareState {
    /// In force since the last cold boot.
    pub current: FirmwareValues,
    /// In force from the next cold boot on.
    pub next_boot: FirmwareValues,
}

/// The DPU's firmware configuration.
#[async_trait]
pub trait Firmware: Send + Sync + fmt::Debug {
    /// All known values, by port.
    async fn observe(&self) -> Result<BTreeMap<EswitchPort, FirmwareState>, PartError>;

    /// Sets values for the next boot. An unknown key or a value out of range changes nothing.
    async fn set(&self, port: EswitchPort, values: &FirmwareValues) -> Result<(), PartError>;

    /// Values change, now or for the next boot.
    fn events(&self) -> Events;
}
