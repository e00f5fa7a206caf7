//! When a step that failed is tried again: back-off per device and part, bounded, forgotten when the spec changes.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use virtnet_crds::Reason;

use crate::desired::{Device, Uid};
use crate::key::Key;
use crate::plan::Part;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// The failures that are waited out.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    failures: BTreeMap<Key, Failure>,
}

#[derive(Debug)]
struct Failure {
    generation: Option<i64>,
    attempts: u32,
    again_at: Instant,
    /// Nobody was told yet that its time has come.
    due_unseen: bool,
    reason: Reason,
    message: String,
}

impl Retries {
    /// Notes a failure; `generation` is that of the spec that the step is for. Says whether it is news: the first, or for another
    /// reason or with another message than the last.
    pub(crate) fn failed(
        &mut self,
        key: Key,
        generation: Option<i64>,
        now: Instant,
        reason: Reason,
        message: String,
    ) -> bool {
        let before = self.failures.get(&key).filter(|failure| failure.generation == generation);
        let attempts = before.map_or(0, |failure| failure.attempts).saturating_add(1);
        let news = before.is_none_or(|failure| failure.reason != reason || failure.message != message);
        let wait = FIRST.saturating_mul(1 << (attempts - 1).min(6)).min(LONGEST);
        let again_at = now + wait;
        self.failures
            .insert(key, Failure { generation, attempts, again_at, due_unseen: true, reason, message });
        news
    }

    /// How many failures in a row there were.
    pub(crate) fn attempts(&self, key: &Key) -> u32 {
        self.failures.get(key).map_or(0, |failure| failure.attempts)
    }

    /// Notes a success.
    pub(crate) fn succeeded(&mut self, key: &Key) {
        self.failures.remove(key);
    }

    /// Forgets failures of devices that are gone, and of what another spec wanted, a device's or that of the Dpu.
    pub(crate) fn prune(&mut self, devices: &BTreeMap<Uid, Device>, dpu: Option<i64>) {
        self.failures.retain(|key, failure| match key {
            Key::Device(uid, _) => devices.get(uid).map(|device| device.generation) == failure.generation,
            Key::Bridge(_) | Key::Vfs(_) | Key::Firmware(_) => dpu == failure.generation,
            Key::Orphan(_) | Key::Switch => true,
        });
    }

    /// What of devices is not to be tried yet.
    pub(crate) fn held(&self, now: Instant) -> BTreeMap<(Uid, Part), (Reason, String)> {
        self.waiting(now)
            .filter_map(|(key, failure)| Some((key.of_device()?, (failure.reason, failure.message.clone()))))
            .collect()
    }

    /// Whether a step with this key is not to be tried yet.
    pub(crate) fn holds(&self, key: &Key, now: Instant) -> bool {
        self.failures.get(key).is_some_and(|failure| failure.again_at > now)
    }

    /// Whether something has become due since this was last asked.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let due = |failure: &&mut Failure| failure.due_unseen && failure.again_at <= now;
        self.failures.values_mut().filter(due).map(|failure| failure.due_unseen = false).count() > 0
    }

    /// When the next one is to be tried again.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        self.waiting(now).map(|(_, failure)| failure.again_at).min()
    }

    fn waiting(&self, now: Instant) -> impl Iterator<Item = (&Key, &Failure)> {
        self.failures.iter().filter(move |(_, failure)| failure.again_at > now)
    }
}

#[cfg(test)]
mod tests {
    use virtnet_model::EswitchPort;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_a_minute_and_a_success_forgets() {
        let mut retries = Retries::default();
        let key = Key::Switch;
        let mut waits = Vec::new();
        for _ in 0..9 {
            let now = Instant::now();
            let news = retries.failed(key.clone(), None, now, Reason::StepFailed, "no".into());
            assert_eq!(retries.attempts(&key) as usize, waits.len() + 1);
            waits.push((retries.next(now).unwrap() - now).as_secs());
            assert_eq!(news, waits.len() == 1);
            assert!(retries.holds(&key, now));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        retries.succeeded(&key);
        assert_eq!(retries.next(Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_spec_of_the_dpu_wanted_is_forgotten() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        let key = Key::Firmware(EswitchPort::P0);
        retries.failed(key.clone(), Some(1), now, Reason::StepFailed, "no".into());
        retries.prune(&BTreeMap::new(), Some(1));
        assert!(retries.holds(&key, now));
        retries.prune(&BTreeMap::new(), Some(2));
        assert!(!retries.holds(&key, now));
    }
}
