//! Faults around every effect of the agent, on the DPU and on the API, decided by a seed: failures before an effect,
//! failures after it (it happened, and the agent is told that it did not), and the agent's death before or after it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;
use virtnet_agent::Parts;
use virtnet_model::{
    Change, Controller, ControllerState, EswitchPort, Events, Firmware, FirmwareState, FirmwareValues,
    Function, Host, HostState, HotplugRequest, IfName, Link, LinkChange, Links, PartError, PfId, SubFunction,
    Switch, SwitchChange, SwitchState, Target,
};

use crate::api_faults::Lag;

/// Decides at every effect what befalls it, and keeps the trace.
#[derive(Clone)]
pub struct Faults(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    killed: Notify,
    /// Told when the API goes out of reach: watches end then.
    cut: Notify,
}

struct State {
    rng: ChaCha8Rng,
    /// In how many of 1000 effects a failure is made; 0: faults are over.
    failures: u32,
    /// At which effects the agent dies, before (even) or after (odd) it: `2 * effect + side`.
    deaths: Vec<u64>,
    effects: u64,
    trace: Vec<String>,
    started: tokio::time::Instant,
    /// Until when the API answers the agent with 503.
    api_out: Option<tokio::time::Instant>,
    /// How many of the next reads of a single object fail.
    reads_to_lose: u32,
    /// Until when an agent can't be expected to have told what is so.
    disturbed: tokio::time::Instant,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faults")
    }
}

impl Faults {
    /// Faults of this seed: `failures` of 1000 effects fail, and the agent dies at each of `deaths`.
    pub fn new(seed: u64, failures: u32, deaths: Vec<u64>) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                rng: ChaCha8Rng::seed_from_u64(seed),
                failures,
                deaths,
                effects: 0,
                trace: Vec::new(),
                started: tokio::time::Instant::now(),
                api_out: None,
                reads_to_lose: 0,
                disturbed: tokio::time::Instant::now(),
            }),
            killed: Notify::new(),
            cut: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more faults from here on.
    pub fn end(&self) {
        let mut state = self.state();
        state.failures = 0;
        state.deaths.clear();
        state.api_out = None;
        state.reads_to_lose = 0;
    }

    /// The API is out of the agent's reach for this long: watches end, and every request is answered with 503.
    pub fn api_is_out(&self, duration: Duration) {
        let mut state = self.state();
        let until = tokio::time::Instant::now() + duration;
        state.api_out = Some(until);
        // Watches and writes are taken up again with waits that have doubled up to the time they were out.
        state.disturbed = state.disturbed.max(until + 2 * duration + Duration::from_secs(5));
        drop(state);
        self.0.cut.notify_waiters();
    }

    /// Whether the API is out of the agent's reach now.
    pub fn is_api_out(&self) -> bool {
        self.state().api_out.is_some_and(|until| tokio::time::Instant::now() < until)
    }

    /// The next reads of a single object, this many, fail.
    pub fn lose_reads(&self, count: u32) {
        self.state().reads_to_lose = count;
    }

    /// Whether this read of a single object fails.
    pub fn loses_read(&self) -> bool {
        let mut state = self.state();
        if state.reads_to_lose > 0 {
            state.reads_to_lose -= 1;
            return true;
        }
        let failures = state.failures;
        failures > 0 && state.rng.random_range(0..1000) < failures
    }

    /// Whether the agent was hindered so lately that it can't be expected to have told what is so: it died, or the API was
    /// out of reach. Where single effects fail ([`Faults::new`]) it may always have been.
    pub fn is_disturbed(&self) -> bool {
        let state = self.state();
        state.failures > 0 || tokio::time::Instant::now() < state.disturbed
    }

    /// Returns when the API next goes out of reach.
    pub async fn cut(&self) {
        self.0.cut.notified().await;
    }

    /// Returns when the agent is to die: whoever runs it drops it then.
    pub async fn death(&self) {
        self.0.killed.notified().await;
    }

    /// Writes a line to the trace.
    pub fn note(&self, what: impl fmt::Display) {
        let mut state = self.state();
        let at = state.started.elapsed().as_millis();
        state.trace.push(format!("{at} {what}"));
    }

    /// The trace so far.
    pub fn trace(&self) -> Vec<String> {
        self.state().trace.clone()
    }

    /// How often the agent died.
    pub fn deaths(&self) -> usize {
        self.state().trace.iter().filter(|line| line.contains("the agent dies")).count()
    }

    /// How many effects there were.
    pub fn effects(&self) -> u64 {
        self.state().effects
    }

    /// How the next watch lags, unless faults are over.
    pub fn watch(&self) -> Option<Lag> {
        let mut state = self.state();
        (state.failures > 0).then(|| Lag {
            each: Duration::from_millis(state.rng.random_range(0..400)),
            whole: Duration::from_millis(state.rng.random_range(500..60_000)),
        })
    }

    /// Surrounds an effect. `Err` before: it does not take place; after: it did.
    pub async fn around<T, E>(
        &self,
        what: impl fmt::Display,
        fail: impl Fn(&str) -> E,
        effect: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let (number, fails) = {
            let mut state = self.state();
            let number = state.effects;
            state.effects += 1;
            let failures = state.failures;
            let dice = state.rng.random_range(0..1000);
            let side = state.rng.next_u32() % 2;
            (number, (dice < failures).then_some(side))
        };
        self.note(format_args!("{number} {what}"));
        self.die_at(2 * number).await;
        if fails == Some(0) {
            self.note(format_args!("{number} fails before"));
            return Err(fail("a fault before the effect"));
        }
        let result = effect.await;
        self.die_at(2 * number + 1).await;
        if fails == Some(1) && result.is_ok() {
            self.note(format_args!("{number} fails after"));
            return Err(fail("a fault after the effect"));
        }
        result
    }

    async fn die_at(&self, moment: u64) {
        let dies = {
            let mut state = self.state();
            let dies = state.deaths.contains(&moment);
            state.deaths.retain(|death| *death != moment);
            if dies {
                // The next starts within a few seconds, and has to read everything first.
                let until = tokio::time::Instant::now() + Duration::from_secs(8);
                state.disturbed = state.disturbed.max(until);
            }
            dies
        };
        if dies {
            self.note(format_args!("the agent dies at {moment}"));
            self.0.killed.notify_one();
            pending::<()>().await;
        }
    }

    /// The parts of a DPU with these faults around their effects. Observing has none.
    pub fn over(&self, parts: &Parts) -> Parts {
        let Parts { controller, switch, links, firmware, host } = parts.clone();
        let faults = || self.clone();
        Parts {
            controller: Arc::new(Faulty { inner: controller, faults: faults() }),
            switch: Arc::new(Faulty { inner: switch, faults: faults() }),
            links: Arc::new(Faulty { inner: links, faults: faults() }),
            firmware: Arc::new(Faulty { inner: firmware, faults: faults() }),
            host: Arc::new(Faulty { inner: host, faults: faults() }),
        }
    }
}

#[derive(Debug)]
struct Faulty<T: ?Sized> {
    faults: Faults,
    inner: Arc<T>,
}

fn unavailable(why: &str) -> PartError {
    PartError::unavailable(why)
}

#[async_trait]
impl Controller for Faulty<dyn Controller> {
    async fn observe(&self) -> Result<ControllerState, PartError> {
        self.inner.observe().await
    }
    async fn hotplug(&self, request: &HotplugRequest) -> Result<Function, PartError> {
        let what = format!("hotplug {}", request.mac);
        self.faults.around(what, unavailable, self.inner.hotplug(request)).await
    }
    async fn unplug(&self, target: &Target) -> Result<(), PartError> {
        self.faults.around(format!("unplug {target}"), unavailable, self.inner.unplug(target)).await
    }
    async fn modify(&self, target: &Target, change: &Change) -> Result<(), PartError> {
        let what = format!("modify {target}: {change}");
        self.faults.around(what, unavailable, self.inner.modify(target, change)).await
    }
    fn events(&self) -> Events {
        self.inner.events()
    }
}

#[async_trait]
impl Switch for Faulty<dyn Switch> {
    async fn observe(&self) -> Result<SwitchState, PartError> {
        self.inner.observe().await
    }
    async fn apply(&self, changes: &[SwitchChange]) -> Result<Vec<Result<(), PartError>>, PartError> {
        let names: Vec<_> = changes
            .iter()
            .map(|change| match change {
                SwitchChange::AddBridge { name, .. } => format!("+bridge {name}"),
                SwitchChange::RemovePort { name, .. } => format!("-{name}"),
                SwitchChange::SetPort { name, .. } => format!("+{name}"),
            })
            .collect();
        let what = format!("switch {}", names.join(" "));
        self.faults.around(what, unavailable, self.inner.apply(changes)).await
    }
    fn events(&self) -> Events {
        self.inner.events()
    }
}

#[async_trait]
impl Links for Faulty<dyn Links> {
    async fn observe(&self) -> Result<BTreeMap<IfName, Link>, PartError> {
        self.inner.observe().await
    }
    async fn set(&self, representor: &SubFunction, change: LinkChange) -> Result<(), PartError> {
        let what = format!("link {} {change}", representor.representor);
        self.faults.around(what, unavailable, self.inner.set(representor, change)).await
    }
    fn events(&self) -> Events {
        self.inner.events()
    }
}

#[async_trait]
impl Firmware for Faulty<dyn Firmware> {
    async fn observe(&self) -> Result<BTreeMap<EswitchPort, FirmwareState>, PartError> {
        self.inner.observe().await
    }
    async fn set(&self, port: EswitchPort, values: &FirmwareValues) -> Result<(), PartError> {
        self.faults.around(format!("firmware {port}"), unavailable, self.inner.set(port, values)).await
    }
    fn events(&self) -> Events {
        self.inner.events()
    }
}

#[async_trait]
impl Host for Faulty<dyn Host> {
    async fn observe(&self) -> Result<HostState, PartError> {
        self.inner.observe().await
    }
    async fn set_num_vfs(&self, pf: PfId, num_vfs: u16) -> Result<(), PartError> {
        let what = format!("sriov_numvfs of PF {pf}: {num_vfs}");
        self.faults.around(what, unavailable, self.inner.set_num_vfs(pf, num_vfs)).await
    }
    fn events(&self) -> Events {
        self.inner.events()
    }
}
