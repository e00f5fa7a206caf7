//! [`Taps`]: TAP netdevs that stand for representors where there is no hardware.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tun_rs::{DeviceBuilder, Layer, SyncDevice};
use virtnet_model::{IfName, Netdevs};

use crate::namespace::Namespace;

/// TAPs by name. Each lives as long as it is kept here: Open vSwitch that has one as a port stays on the dead device when
/// it is made again under the same name (the userspace datapath), so it is kept for the function's whole life.
pub struct Taps {
    namespace: Option<Arc<Namespace>>,
    open: Mutex<BTreeMap<IfName, Arc<SyncDevice>>>,
}

impl Taps {
    /// None yet. They are to be made in this namespace; `None`: in that of whoever makes them.
    pub fn new(namespace: Option<Arc<Namespace>>) -> Self {
        Self { namespace, open: Mutex::default() }
    }

    /// The other end of a TAP: what is sent there is received by the netdev, and the other way round. It keeps the netdev.
    pub fn end(&self, name: &IfName) -> Option<Arc<SyncDevice>> {
        self.open().get(name).cloned()
    }

    /// Makes a TAP and lets it go again.
    ///
    /// # Errors
    /// Where none can be made.
    pub fn try_out(&self) -> io::Result<()> {
        let name = "virtnet-trial".parse().map_err(io::Error::other)?;
        self.appear(&name)?;
        self.vanish(&name);
        Ok(())
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<IfName, Arc<SyncDevice>>> {
        // A thread that panicked was between two calls of it: the map is whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Netdevs for Taps {
    /// Makes a TAP, down, with the kernel's MTU and an address of its own.
    ///
    /// # Errors
    /// Where the name is taken, or the kernel does not permit it: /dev/net/tun and CAP_NET_ADMIN are needed.
    fn appear(&self, name: &IfName) -> io::Result<()> {
        let mut open = self.open();
        if open.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let build = || DeviceBuilder::new().name(name.as_str()).layer(Layer::L2).enable(false).build_sync();
        let device = match &self.namespace {
            Some(namespace) => namespace.run(build)??,
            None => build()?,
        };
        open.insert(name.clone(), Arc::new(device));
        Ok(())
    }

    fn vanish(&self, name: &IfName) {
        self.open().remove(name);
    }
}

impl std::fmt::Debug for Taps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.open().keys()).finish()
    }
}
