//! A DPU whose virtio-net controller is a service of its own: [`ControllerKind`] says which, [`Parts::of_service`] are the hands on it.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use virtnet_netlink::{NetlinkLinks, Representors};
use virtnet_ovsdb::{Address, OvsSwitch};
use virtnet_rpc::{Client, DEFAULT_SOCKET};

use crate::{Parts, Unreached};

/// Which controller is meant, as arguments have it: `sim`, or `unix:` and the path of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerKind {
    /// The simulation, in memory: its functions are gone when the agent stops.
    Sim,
    /// A service of its own, at this socket.
    Unix(PathBuf),
}

impl FromStr for ControllerKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Ok(Self::Unix(path.into())),
            None if text == "sim" => Ok(Self::Sim),
            _ => Err(format!("say sim, or unix: and the path of a socket, such as unix:{DEFAULT_SOCKET}")),
        }
    }
}

impl Parts {
    /// A service, the Open vSwitch whose database is there, and the netdevs of the calling thread's network namespace. What can't be
    /// reached yet is tried again by its part itself.
    ///
    /// # Errors
    /// Where the sockets of rtnetlink can't be had.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub fn of_service(
        controller: Arc<Client>,
        database: Address,
        representors: Representors,
    ) -> io::Result<Self> {
        Ok(Self {
            controller,
            switch: Arc::new(OvsSwitch::connect(database)),
            links: Arc::new(NetlinkLinks::open(representors)?),
            firmware: Arc::new(Unreached),
            host: Arc::new(Unreached),
        })
    }
}
