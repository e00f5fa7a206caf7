//! The trait [`Links`]: the representor netdevs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use async_trait::async_trait;

use crate::{Events, IfName, Mac, Mtu, PartError, SubFunction};

/// A netdev as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of it, which is never another's in the same namespace.
    pub index: u32,
    /// `phys_port_name`, where the driver gives one. A TAP that stands for a representor where there is no hardware has
    /// what the driver would give, see [`crate::phys_port_name_of`].
    pub phys_port_name: Option<String>,
    /// `phys_switch_id`, where the driver gives one.
    pub phys_switch_id: Option<String>,
    /// IFF_UP.
    pub up: bool,
    /// MTU in bytes; any value that the kernel allows.
    pub mtu: u32,
    /// Its address, where that is a unicast one of 48 bits.
    pub address: Option<Mac>,
    /// How many hold it promiscuous, as Open vSwitch does with a system netdev that it has as a port; `None`: not told.
    pub promiscuity: Option<u32>,
    /// Further names of it.
    pub alternative_names: BTreeSet<String>,
}

impl Link {
    /// Whether this, found under the name of that SF's representor, is its representor: name and `phys_port_name` must
    /// agree before it may be touched.
    pub fn represents(&self, sf: &SubFunction) -> bool {
        self.phys_port_name.as_ref() == Some(&sf.phys_port_name())
    }

    /// Why it is not that SF's representor, as half a sentence.
    pub fn mismatch(&self, sf: &SubFunction) -> String {
        let found = self.phys_port_name.as_deref().unwrap_or("not set");
        format!("its phys_port_name is {found}, that of SF {} is {}", sf.number, sf.phys_port_name())
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
