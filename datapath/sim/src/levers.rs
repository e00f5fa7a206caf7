//! The levers of a [`Sim`]: what hardware, the host, people and other applications do to a DPU.

use std::time::Duration;

use futures::StreamExt;
use virtnet_controller::{EngineConfig, SfKey, Stop};
use virtnet_model::{
    Bdf, BridgeName, Controller, ErrorKind, EswitchPort, Function, HotplugRequest, IfName, Link, Mac,
    PartError, PfId, Port, QueueSize, SfNumber, SubFunction, Uplink,
};

use crate::effect::{Counters, Effect, Hook, Part, When};
use crate::queues::Misuse;
use crate::sim::Sim;
use crate::world::Action;

/// Power.
impl Sim {
    /// Switches the host on; it runs [`crate::Timing::host_boot`] later.
    pub fn boot_host(&self) {
        self.shared().with(crate::world::World::host_boot);
    }

    /// Shuts the host down. VFs are gone, PFs stay without an address.
    pub fn shut_down_host(&self) {
        self.shared().with(crate::world::World::host_off);
    }

    /// A warm reboot: hot-plugged functions stay, VFs are gone, and so is `sriov_numvfs`.
    pub fn reboot_host(&self) {
        self.shared().with(|world| {
            world.host_off();
            world.host_boot();
        });
    }

    /// Takes power from host and DPU and gives it back: functions and SFs are gone, the firmware's next values are in
    /// force, Open vSwitch's database stays. Answers when both begin to boot.
    pub async fn power_cycle(&self) {
        self.process().stop();
        self.shared().with(crate::world::World::power_cycle);
        // The stopped controller's task ends here at the latest.
        tokio::task::yield_now().await;
    }
}

/// Drivers and SR-IOV, as a person at the host has them. Each fails as the host's file would.
impl Sim {
    /// `echo BDF > /sys/bus/pci/drivers/virtio-pci/unbind`. A static PF's VFs go with its driver.
    pub fn unbind(&self, bdf: Bdf) -> Result<(), PartError> {
        self.shared().with(|world| world.unbind(bdf))
    }

    /// `echo BDF > /sys/bus/pci/drivers/virtio-pci/bind`.
    pub fn bind(&self, bdf: Bdf) -> Result<(), PartError> {
        self.shared().with(|world| world.bind(bdf))
    }

    /// Whether drivers bind by themselves to functions that appear from now on.
    pub fn set_autoprobe(&self, autoprobe: bool) {
        self.shared().with(|world| world.host.autoprobe = autoprobe);
    }

    /// `echo N > sriov_numvfs` of a static PF: from one number to another only by way of 0.
    pub fn write_num_vfs(&self, pf: PfId, num_vfs: u16) -> Result<(), PartError> {
        self.shared().with(|world| world.write_num_vfs(pf, num_vfs))
    }

    /// So many packets of so many bytes each, the Ethernet header included, go through a queue that the driver has set up.
    pub fn traffic(&self, bdf: Bdf, queue: u16, bytes: u32, packets: u32) -> Result<(), PartError> {
        self.shared().with(|world| world.traffic(bdf, queue, bytes, packets))
    }

    /// The driver does something wrong with a queue that it has set up, so many times.
    pub fn misuse(&self, bdf: Bdf, queue: u16, misuse: Misuse, times: u32) -> Result<(), PartError> {
        self.shared().with(|world| world.misuse(bdf, queue, misuse, times))
    }

    /// The virtual machine that has the function begins to be moved, or has been.
    pub fn set_migrating(&self, bdf: Bdf, migrating: bool) -> Result<(), PartError> {
        self.shared().with(|world| {
            let place = world.at(bdf)?;
            world.edit_function(place, |emulated| emulated.migrating = migrating);
            Ok(())
        })
    }

    /// Whether the driver of the function over this SF sees its link up.
    pub fn carrier(&self, sf: &SubFunction) -> bool {
        self.shared().with(|world| world.carrier(sf.port, sf))
    }
}

/// Open vSwitch, as a person or another application has it.
impl Sim {
    /// Takes a port away. False: there was none.
    pub fn delete_port(&self, name: &IfName) -> bool {
        self.shared().with(|world| world.delete_port(name))
    }

    /// Makes a port, or replaces one. Its number and error are vswitchd's to set.
    pub fn put_port(&self, name: &IfName, port: Port) {
        self.shared().with(|world| world.put_port(name, Port { ofport: None, error: None, ..port }));
    }

    /// Changes a port. False: there is none.
    pub fn edit_port(&self, name: &IfName, edit: impl FnOnce(&mut Port)) -> bool {
        self.shared().with(|world| match world.switch.ports.get(name).cloned() {
            Some(mut port) => {
                edit(&mut port);
                world.put_port(name, port);
                true
            }
            None => false,
        })
    }

    /// Makes a bridge.
    pub fn add_bridge(&self, bridge: BridgeName) {
        self.shared().with(|world| {
            world.switch.bridges.insert(bridge);
            world.touch(Part::Switch);
        });
    }

    /// Takes a bridge away with its ports.
    pub fn delete_bridge(&self, bridge: &BridgeName) {
        self.shared().with(|world| world.delete_bridge(bridge));
    }

    /// Stops Open vSwitch; it is back [`crate::Timing::ovs_start`] later, with every port numbered anew.
    pub fn restart_ovs(&self) {
        self.shared().with(crate::world::World::restart_ovs);
    }

    /// Waits until a port is there and attached, at most for `limit`.
    pub async fn wait_for_port(&self, name: &IfName, limit: Duration) -> Result<(), PartError> {
        let attached =
            |world: &mut crate::world::World| world.switch.ports.get(name).is_some_and(Port::is_attached);
        let mut events = self.shared().events(Part::Switch);
        let wait = async {
            while !self.shared().with(attached) {
                if events.next().await.is_none() {
                    break;
                }
            }
        };
        tokio::time::timeout(limit, wait)
            .await
            .map_err(|error| PartError::failed(format!("wait for port {name}")).caused_by(error))
    }
}

/// Netdevs and the device's ports, as a person has them.
impl Sim {
    /// Changes a netdev. False: there is none.
    pub fn edit_link(&self, name: &IfName, edit: impl FnOnce(&mut Link)) -> bool {
        self.shared().with(|world| world.edit_link(name, edit))
    }

    /// Sets the MTU in bytes of p0, p1 or the bond; the controller then wants a restart.
    pub fn set_uplink_mtu(&self, uplink: Uplink, mtu: u32) {
        self.shared().with(|world| world.set_uplink_mtu(uplink, mtu));
    }

    /// Makes one bond of p0 and p1, or takes it apart. The controller sees it, and goes on as it was started.
    pub fn set_bonded(&self, bonded: bool) {
        self.shared().with(|world| world.set_bonded(bonded));
    }

    /// Another application makes an SF.
    pub fn add_foreign_sf(&self, uplink: Uplink, number: SfNumber) -> Result<(), PartError> {
        self.shared().with(|world| world.create_sf(uplink, number, true))
    }

    /// Another application's SF goes.
    pub fn remove_foreign_sf(&self, port: EswitchPort, number: SfNumber) -> Result<(), PartError> {
        self.shared().with(|world| world.destroy_sf(SfKey { port, number }))
    }
}

/// The controller's process.
impl Sim {
    /// Kills the controller wherever it is; another starts [`crate::Timing::controller_start`] later.
    pub fn restart_controller(&self) {
        self.process().stop();
        self.shared()
            .with(|world| world.schedule(world.config.timing.controller_start, Action::ControllerStarts));
    }

    /// Ends the controller in good order; it stays away until [`Sim::start_controller`].
    pub async fn stop_controller(&self, stop: Stop) -> Result<(), PartError> {
        let stopped = self.process().engine("stop the controller")?.stop(stop).await;
        self.process().stop();
        stopped
    }

    /// Starts the controller with a configuration, in place of any that runs.
    pub fn start_controller(&self, config: EngineConfig) {
        self.shared().with(|world| world.config.engine = config);
        self.process().start();
    }

    /// The controller runs on, and its socket does not answer for a while.
    pub fn cut_off_controller(&self, duration: Duration) {
        self.shared().with(|world| {
            world.controller_reachable = false;
            world.touch(Part::Controller);
            world.schedule(duration, Action::ControllerReachable);
        });
    }

    /// A live update of the controller begins or ends.
    pub async fn set_updating(&self, updating: bool) -> Result<(), PartError> {
        self.process().engine("set the state of the live update")?.set_updating(updating).await
    }

    /// Somebody hot-plugs a function with the command line: on the first uplink that there is, with defaults.
    pub async fn plug_foreign(&self, mac: Mac) -> Result<Function, PartError> {
        let engine = self.process().engine("hot-plug")?;
        let limits = engine.observe().await?.limits;
        let request = HotplugRequest {
            uplink: limits.uplinks.first().copied().unwrap_or_default(),
            ..HotplugRequest::new(mac, 1, QueueSize::DEFAULT.min(limits.max_queue_size))
        };
        engine.hotplug(&request).await
    }
}

/// What happens to effects.
impl Sim {
    /// The next `count` times, this effect fails on that side of it, as something that is tried again later.
    pub fn fail_next(&self, effect: Effect, when: When, count: usize) {
        self.fail_next_as(effect, when, ErrorKind::Failed, count);
    }

    /// As [`Sim::fail_next`], with a kind of error.
    pub fn fail_next_as(&self, effect: Effect, when: When, kind: ErrorKind, count: usize) {
        self.shared().with(|world| world.faults.queue(effect, when, kind, count));
    }

    /// The next `count` observations of a part fail.
    pub fn fail_observe(&self, part: Part, count: u32) {
        self.shared().with(|world| world.faults.queue_observe(part, count));
    }

    /// From now on an effect takes this long.
    pub fn set_latency(&self, effect: Effect, latency: Duration) {
        self.shared().with(|world| world.config.timing.latency.insert(effect, latency));
    }

    /// Calls this on both sides of every effect, in place of an earlier hook.
    pub fn set_hook(&self, hook: Option<Hook>) {
        self.shared().set_hook(hook);
    }

    /// What happened since the DPU was made.
    pub fn counters(&self) -> Counters {
        self.shared().with(|world| world.counters.clone())
    }
}
