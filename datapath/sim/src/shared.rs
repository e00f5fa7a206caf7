//! What all parts of a simulated DPU share: the world behind its lock, the event streams, and the way in for effects.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use virtnet_controller::Notifier;
use virtnet_model::{Events, PartError};

use crate::effect::{Effect, Hook, Part, When};
use crate::world::World;

/// The world and who is told of it. The lock is never held across an await.
pub(crate) struct Shared {
    world: Mutex<World>,
    hook: Mutex<Option<Hook>>,
    notifiers: BTreeMap<Part, Notifier>,
    /// Wakes the clock: the agenda may have something earlier.
    pub(crate) agenda: Arc<Notify>,
}

impl Shared {
    pub(crate) fn new(world: World) -> Self {
        let parts = [Part::Controller, Part::Switch, Part::Links, Part::Firmware, Part::Host];
        Self {
            world: Mutex::new(world),
            hook: Mutex::new(None),
            notifiers: parts.into_iter().map(|part| (part, Notifier::new())).collect(),
            agenda: Arc::new(Notify::new()),
        }
    }

    /// One step of the world. Those whose part changed are told when it is complete.
    pub(crate) fn with<T>(&self, step: impl FnOnce(&mut World) -> T) -> T {
        // A step that panicked fails its test anyway; other parts may still want to look.
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = step(&mut world);
        let (touched, agenda) = world.take_touched();
        drop(world);
        for part in touched {
            self.notify(part);
        }
        if agenda {
            self.agenda.notify_one();
        }
        answer
    }

    pub(crate) fn notify(&self, part: Part) {
        if let Some(notifier) = self.notifiers.get(&part) {
            notifier.notify();
        }
    }

    pub(crate) fn events(&self, part: Part) -> Events {
        match self.notifiers.get(&part) {
            Some(notifier) => notifier.events(),
            None => Box::pin(futures::stream::empty()),
        }
    }

    pub(crate) fn set_hook(&self, hook: Option<Hook>) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = hook;
    }

    /// Reads the world for an observer.
    pub(crate) fn observe<T>(
        &self,
        part: Part,
        read: impl FnOnce(&mut World) -> Result<T, PartError>,
    ) -> Result<T, PartError> {
        self.with(|world| {
            *world.counters.observes.entry(part).or_default() += 1;
            world.faults.take_observe(part)?;
            if part != Part::Host {
                world.reachable("observe")?;
            }
            read(world)
        })
    }

    /// Lets an effect happen, with all that can happen to it.
    pub(crate) async fn perform<T>(
        &self,
        effect: Effect,
        step: impl FnOnce(&mut World) -> Result<T, PartError>,
    ) -> Result<T, PartError> {
        self.before(effect).await?;
        let answer = self.with(step)?;
        self.after(effect).await?;
        Ok(answer)
    }

    /// What comes before an effect: the hook, its latency, a queued failure.
    pub(crate) async fn before(&self, effect: Effect) -> Result<(), PartError> {
        self.call_hook(effect, When::Before).await;
        let latency = self.with(|world| world.latency(effect));
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        self.with(|world| world.faults.take(effect, When::Before))
    }

    /// What comes after it: the count, the hook, a queued failure.
    pub(crate) async fn after(&self, effect: Effect) -> Result<(), PartError> {
        self.with(|world| *world.counters.effects.entry(effect).or_default() += 1);
        self.call_hook(effect, When::After).await;
        self.with(|world| world.faults.take(effect, When::After))
    }

    async fn call_hook(&self, effect: Effect, when: When) {
        let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(hook) = hook {
            hook(effect, when);
            // A task that the hook aborted ends here.
            tokio::task::yield_now().await;
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
