//! The [`World`]: a DPU and its host at one moment, and what is about to happen to them. Each of its parts has a module
//! of its own that adds the part's steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;
use virtnet_controller::{Place, SfKey, UplinkMode};
use virtnet_model::{EswitchPort, FirmwareState, IfName, Link, Netdevs, PartError};

use crate::config::SimConfig;
use crate::device::Device;
use crate::effect::{Counters, Effect, Faults, Part};
use crate::host::HostWorld;
use crate::switch::SwitchWorld;

/// Something that will happen by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The host's buses are enumerated, if it is still this boot.
    HostBooted(u64),
    /// A running host finds a function.
    Enumerate(Place),
    /// The host's driver takes a function.
    Probe(Place),
    /// An SF's representor appears.
    NetdevAppears(SfKey),
    /// udev gives it its name.
    NetdevRenamed(SfKey),
    /// The DPU's kernel and Open vSwitch run.
    DpuBooted,
    /// Open vSwitch runs.
    OvsStarted,
    /// A controller starts.
    ControllerStarts,
    /// The controller's socket answers again.
    ControllerReachable,
}

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) config: SimConfig,
    pub(crate) firmware: BTreeMap<EswitchPort, FirmwareState>,
    pub(crate) device: Device,
    pub(crate) host: HostWorld,
    pub(crate) links: BTreeMap<IfName, Link>,
    /// The present name of each SF's representor.
    pub(crate) netdevs: BTreeMap<SfKey, IfName>,
    pub(crate) switch: SwitchWorld,
    pub(crate) faults: Faults,
    pub(crate) counters: Counters,
    /// The DPU's own operating system runs.
    pub(crate) dpu_up: bool,
    /// The controller's socket answers.
    pub(crate) controller_reachable: bool,
    /// Who makes real netdevs of the representors.
    pub(crate) real_netdevs: Option<Arc<dyn Netdevs>>,
    rng: ChaCha8Rng,
    agenda: BTreeMap<(Instant, u64), Action>,
    scheduled: u64,
    agenda_changed: bool,
    touched: BTreeSet<Part>,
}

impl World {
    /// A DPU that has just booted; its host is off.
    pub(crate) fn new(config: SimConfig) -> Self {
        let firmware = config
            .firmware
            .values()
            .iter()
            .map(|(port, values)| {
                (*port, FirmwareState { current: values.clone(), next_boot: values.clone() })
            })
            .collect();
        let mut world = Self {
            firmware,
            device: Device::new(config.bonded.unwrap_or(config.engine.uplinks == UplinkMode::Lag)),
            host: HostWorld::new(config.autoprobe),
            links: BTreeMap::new(),
            netdevs: BTreeMap::new(),
            switch: SwitchWorld::new(config.bridges.clone()),
            faults: Faults::default(),
            counters: Counters::default(),
            dpu_up: true,
            controller_reachable: true,
            real_netdevs: None,
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            agenda: BTreeMap::new(),
            scheduled: 0,
            agenda_changed: false,
            touched: BTreeSet::new(),
            config,
        };
        world.add_uplink_netdevs();
        world.make_static_pfs();
        world
    }

    /// Says that observers of this part should look again.
    pub(crate) fn touch(&mut self, part: Part) {
        self.touched.insert(part);
    }

    pub(crate) fn take_touched(&mut self) -> (BTreeSet<Part>, bool) {
        (std::mem::take(&mut self.touched), std::mem::take(&mut self.agenda_changed))
    }

    /// Puts something on the agenda. What is due at the same moment happens in the order of these calls.
    pub(crate) fn schedule(&mut self, after: Duration, action: Action) {
        self.scheduled += 1;
        self.agenda.insert((Instant::now() + after, self.scheduled), action);
        self.agenda_changed = true;
    }

    /// When the next thing is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.agenda.keys().next().map(|(due, _)| *due)
    }

    /// Takes the next thing off the agenda, if it is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Action> {
        let entry = self.agenda.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// Lets something happen. What concerns the controller's process is not the world's.
    pub(crate) fn act(&mut self, action: &Action) {
        match action {
            Action::HostBooted(boot) => self.host_booted(*boot),
            Action::Enumerate(place) => self.enumerate(*place),
            Action::Probe(place) => self.probe(*place),
            Action::NetdevAppears(sf) => self.netdev_appears(*sf),
            Action::NetdevRenamed(sf) => self.netdev_renamed(*sf),
            Action::DpuBooted => self.dpu_booted(),
            Action::OvsStarted => self.ovs_started(),
            Action::ControllerReachable => {
                self.controller_reachable = true;
                self.touch(Part::Controller);
            }
            Action::ControllerStarts => {}
        }
    }

    /// How long an effect takes, this time.
    pub(crate) fn latency(&mut self, effect: Effect) -> Duration {
        let base = self.config.timing.latency.get(&effect).copied().unwrap_or_default();
        let jitter = self.config.timing.jitter_percent;
        if base.is_zero() || jitter == 0 {
            return base;
        }
        base + base * self.rng.random_range(0..=jitter) / 100
    }

    /// An error while the DPU has no running operating system.
    pub(crate) fn reachable(&self, doing: &str) -> Result<(), PartError> {
        if self.dpu_up {
            return Ok(());
        }
        Err(PartError::unavailable(format!("{doing}: the DPU is not up")))
    }

    /// Power off and on: what is not in non-volatile memory is gone, and the firmware's next values are in force.
    pub(crate) fn power_cycle(&mut self) {
        self.dpu_up = false;
        self.controller_reachable = true;
        self.host_off();
        for state in self.firmware.values_mut() {
            state.current.clone_from(&state.next_boot);
        }
        self.agenda.clear();
        self.device.power_cycle();
        let netdevs: Vec<_> = self.netdevs.keys().copied().collect();
        for netdev in netdevs {
            self.netdev_vanishes(netdev);
        }
        self.links.clear();
        self.switch_off();
        self.add_uplink_netdevs();
        self.make_static_pfs();
        for part in [Part::Controller, Part::Switch, Part::Links, Part::Firmware, Part::Host] {
            self.touch(part);
        }
        self.schedule(self.config.timing.dpu_boot, Action::DpuBooted);
        self.schedule(
            self.config.timing.dpu_boot + self.config.timing.controller_start,
            Action::ControllerStarts,
        );
        self.host_boot();
    }

    fn dpu_booted(&mut self) {
        self.dpu_up = true;
        self.ovs_started();
        for part in [Part::Links, Part::Firmware] {
            self.touch(part);
        }
    }
}
