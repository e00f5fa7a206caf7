//! When a step that failed is tried again: back-off per device and part, bounded, forgotten when the spec changes.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use virtnet_crds::Reason;

use crate::desired::{Device, Uid};
use crate::plan::Part;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// A device, or the DPU itself, and the part of it that a step changes.
type Key = (Option<Uid>, Part);

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
    /// Notes a failure; `device` is `None` for a step of the DPU itself. Says whether it is news: the first, or another
    /// message than the last.
    pub(crate) fn failed(
        &mut self,
        device: Option<&Device>,
        part: Part,
        now: Instant,
        reason: Reason,
        message: String,
    ) -> bool {
        let key = (device.map(|device| device.uid.clone()), part);
        let generation = device.map(|device| device.generation);
        let before = self.failures.get(&key).filter(|failure| failure.generation == generation);
        let attempts = before.map_or(0, |failure| failure.attempts).saturating_add(1);
        let news = before.is_none_or(|failure| failure.message != message);
        let wait = FIRST.saturating_mul(1 << (attempts - 1).min(6)).min(LONGEST);
        self.failures.insert(
            key,
            Failure { generation, attempts, again_at: now + wait, due_unseen: true, reason, message },
        );
        news
    }

    /// Notes a success.
    pub(crate) fn succeeded(&mut self, uid: Option<&Uid>, part: Part) {
        self.failures.remove(&(uid.cloned(), part));
    }

    /// Forgets failures of devices that are gone or whose spec is another.
    pub(crate) fn prune(&mut self, devices: &BTreeMap<Uid, Device>) {
        self.failures.retain(|(uid, _), failure| match uid {
            None => true,
            Some(uid) => devices.get(uid).map(|device| device.generation) == failure.generation,
        });
    }

    /// What of devices is not to be tried yet.
    pub(crate) fn held(&self, now: Instant) -> BTreeMap<(Uid, Part), (Reason, String)> {
        self.waiting(now)
            .filter_map(|((uid, part), failure)| {
                Some(((uid.clone()?, *part), (failure.reason, failure.message.clone())))
            })
            .collect()
    }

    /// Whether a step of the DPU itself is not to be tried yet.
    pub(crate) fn holds_dpu(&self, part: Part, now: Instant) -> bool {
        self.waiting(now).any(|((uid, failed), _)| uid.is_none() && *failed == part)
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
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_a_minute_and_a_success_forgets() {
        let mut retries = Retries::default();
        let mut waits = Vec::new();
        for _ in 0..9 {
            let now = Instant::now();
            let news = retries.failed(None, Part::Dpu, now, Reason::StepFailed, "no".into());
            waits.push((retries.next(now).unwrap() - now).as_secs());
            assert_eq!(news, waits.len() == 1);
            assert!(retries.holds_dpu(Part::Dpu, now));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        retries.succeeded(None, Part::Dpu);
        assert_eq!(retries.next(Instant::now()), None);
    }
}
