//! The effects that a simulated DPU has, by name: to be slowed down, to fail, to be counted, and to be watched.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use virtnet_model::{ErrorKind, PartError};

/// Everything that changes a part of the DPU, as a client of a part asks for it or, from [`Effect::CreateSf`] on, as
/// the controller asks the device for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// [`virtnet_model::Controller::hotplug`].
    Hotplug,
    /// [`virtnet_model::Controller::unplug`].
    Unplug,
    /// [`virtnet_model::Controller::modify`].
    Modify,
    /// [`virtnet_model::Switch::apply`]: a transaction.
    SwitchApply,
    /// [`virtnet_model::Links::set`].
    LinkSet,
    /// [`virtnet_model::Firmware::set`].
    FirmwareSet,
    /// [`virtnet_model::Host::set_num_vfs`].
    SetNumVfs,
    /// [`virtnet_controller::DeviceModel::create_sf`].
    CreateSf,
    /// [`virtnet_controller::DeviceModel::destroy_sf`].
    DestroySf,
    /// [`virtnet_controller::DeviceModel::plug`].
    DevicePlug,
    /// [`virtnet_controller::DeviceModel::unplug`].
    DeviceUnplug,
    /// [`virtnet_controller::DeviceModel::configure`].
    DeviceConfigure,
    /// [`virtnet_controller::DeviceModel::moderate`].
    DeviceModerate,
}

impl Effect {
    /// Every effect.
    pub const ALL: [Self; 13] = [
        Self::Hotplug,
        Self::Unplug,
        Self::Modify,
        Self::SwitchApply,
        Self::LinkSet,
        Self::FirmwareSet,
        Self::SetNumVfs,
        Self::CreateSf,
        Self::DestroySf,
        Self::DevicePlug,
        Self::DeviceUnplug,
        Self::DeviceConfigure,
        Self::DeviceModerate,
    ];
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// On which side of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum When {
    /// It has not happened.
    Before,
    /// It has happened, and its caller does not know yet.
    After,
}

/// A part whose state is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// [`virtnet_model::Controller`].
    Controller,
    /// [`virtnet_model::Switch`].
    Switch,
    /// [`virtnet_model::Links`].
    Links,
    /// [`virtnet_model::Firmware`].
    Firmware,
    /// [`virtnet_model::Host`].
    Host,
}

/// Called on both sides of each effect, on the task that asks for it.
///
/// An await point follows each call before anything else happens, so a hook that aborts the asking task stops it
/// exactly there. An effect that is refused has no [`When::After`].
pub type Hook = Arc<dyn Fn(Effect, When) + Send + Sync>;

/// What shall fail, first queued first.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    effects: BTreeMap<(Effect, When), VecDeque<ErrorKind>>,
    observes: BTreeMap<Part, u32>,
}

impl Faults {
    pub(crate) fn queue(&mut self, effect: Effect, when: When, kind: ErrorKind, count: usize) {
        self.effects.entry((effect, when)).or_default().extend(std::iter::repeat_n(kind, count));
    }

    pub(crate) fn queue_observe(&mut self, part: Part, count: u32) {
        *self.observes.entry(part).or_default() += count;
    }

    pub(crate) fn take(&mut self, effect: Effect, when: When) -> Result<(), PartError> {
        let Some(kind) = self.effects.get_mut(&(effect, when)).and_then(VecDeque::pop_front) else {
            return Ok(());
        };
        let side = match when {
            When::Before => "before",
            When::After => "after",
        };
        Err(PartError { kind, message: format!("simulated failure {side} {effect}"), source: None })
    }

    pub(crate) fn take_observe(&mut self, part: Part) -> Result<(), PartError> {
        match self.observes.get_mut(&part) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Err(PartError::unavailable(format!("simulated failure to observe the {part:?}")))
            }
            _ => Ok(()),
        }
    }
}

/// How often something happened since the DPU was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Effects that took place.
    pub effects: BTreeMap<Effect, u64>,
    /// Ports that a transaction made, changed or removed.
    pub port_changes: u64,
    /// Observations, by part.
    pub observes: BTreeMap<Part, u64>,
}

impl Counters {
    /// How often this effect took place.
    pub fn of(&self, effect: Effect) -> u64 {
        self.effects.get(&effect).copied().unwrap_or(0)
    }
}
