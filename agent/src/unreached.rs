//! Parts of a DPU that nothing reaches from here: [`Unreached`] firmware, and a host that is somebody else's.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::StreamExt;
use virtnet_model::{
    EswitchPort, Events, Firmware, FirmwareState, FirmwareValues, Host, HostState, PartError, PfId,
};

/// What is not reached: nothing is known of it, nothing happens there that could be told, and a person does what is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unreached;

#[async_trait]
impl Firmware for Unreached {
    async fn observe(&self) -> Result<BTreeMap<EswitchPort, FirmwareState>, PartError> {
        Ok(BTreeMap::new())
    }

    async fn set(&self, port: EswitchPort, values: &FirmwareValues) -> Result<(), PartError> {
        let values: Vec<_> = values.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Err(PartError::failed(format!(
            "set the firmware of {port}: nothing reaches it from here: set {} with mlxconfig and cold boot",
            values.join(" ")
        )))
    }

    fn events(&self) -> Events {
        futures::stream::pending().boxed()
    }
}

#[async_trait]
impl Host for Unreached {
    async fn observe(&self) -> Result<HostState, PartError> {
        Ok(HostState::default())
    }

    async fn set_num_vfs(&self, pf: PfId, num_vfs: u16) -> Result<(), PartError> {
        Err(PartError::failed(format!(
            "make {num_vfs} VFs of PF {pf}: the host is not reached from here: write {num_vfs} to sriov_numvfs of that \
             function there"
        )))
    }

    fn events(&self) -> Events {
        futures::stream::pending().boxed()
    }
}
