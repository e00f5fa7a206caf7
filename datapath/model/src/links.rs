//! The trait [`Links`]: the representor netdevs.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

use crate::{Events, IfName, Mtu, PartError, SubFunction};

/// A netdev as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// `phys_port_name`, where the driver gives one.
    pub phys_port_name: Option<String>,
    /// `phys_switch_id`, where the driver gives one.
    pub phys_switch_id: Option<String>,
    /// IFF_UP.
    pub up: bool,
    /// MTU in bytes; any value that the kernel allows.
    pub mtu: u32,
}

impl Link {
    /// Whether this is the representor of that SF: name and `phys_port_name` must agree before it may be touched.
    pub fn represents(&self, sf: &SubFunction) -> bool {
        self.phys_port_name.as_deref() == Some(sf.phys_port_name().as_str())
    }
}

/// What to set on a netdev. `None` leaves a setting as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Admin state.
    pub up: Option<bool>,
    /// MTU.
    pub mtu: Option<Mtu>,
}

impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { up, mtu } = self;
        let up = up.map(|up| if up { "up" } else { "down" }.to_owned());
        let mtu = mtu.map(|mtu| format!("MTU {mtu}"));
        let parts: Vec<_> = up.into_iter().chain(mtu).collect();
        f.write_str(&parts.join(", "))
    }
}

/// The netdevs of the DPU.
#[async_trait]
pub trait Links: Send + Sync + fmt::Debug {
    /// The netdevs by name. Others than representors may be among them.
    async fn observe(&self) -> Result<BTreeMap<IfName, Link>, PartError>;

    /// Sets admin state and MTU of an SF's representor, in one request. Refused where the netdev is not there or its
    /// `phys_port_name` is another's.
    async fn set(&self, representor: &SubFunction, change: LinkChange) -> Result<(), PartError>;

    /// Netdevs come, go and change.
    fn events(&self) -> Events;
}
