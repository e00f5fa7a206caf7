//! [`Taps`]: TAP netdevs that stand for representors where there is no hardware.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tun_rs::{DeviceBuilder, Layer, SyncDevice};
use virtnet_model::{IfName, Netdevs};

use crate::namespace::Namespace;

/// TAPs by name. Each lives as long as it is kept here: Open vSwitch that has one as a port stays on the dead device when
/// it is made again under the same name (the userspace datapath), so it is kept for the function's whole life.
#[derive(Debug)]
pub struct Taps {
    namespace: Option<Arc<Namespace>>,
    open: Mutex<BTreeMap<IfName, Tap>>,
}

/// An open TAP.
struct Tap(#[expect(dead_code, reason = "the netdev is gone when it is dropped")] SyncDevice);

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tap")
    }
}

impl Taps {
    /// None yet. They are to be made in this namespace; `None`: in that of whoever makes them.
    pub fn new(namespace: Option<Arc<Namespace>>) -> Self {
        Self { namespace, open: Mutex::default() }
    }
}

impl Netdevs for Taps {
    /// Makes a TAP, down, with the kernel's MTU and an address of its own.
    ///
    /// # Errors
    /// Where the name is taken, or the kernel does not permit it: /dev/net/tun and CAP_NET_ADMIN are needed.
    fn appear(&self, name: &IfName) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let build = || DeviceBuilder::new().name(name.as_str()).layer(Layer::L2).enable(false).build_sync();
        let device = match &self.namespace {
            Some(namespace) => namespace.run(build)??,
            None => build()?,
        };
        open.insert(name.clone(), Tap(device));
        Ok(())
    }

    fn vanish(&self, name: &IfName) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}
