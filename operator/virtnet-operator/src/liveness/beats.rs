//! [`Beats`]: when each agent's Lease was last seen to be renewed, by this operator's own clock: those of the agents may differ
//! from it and from one another.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use tokio::time::Instant;

/// How long a Lease holds that doesn't say, and how long one is awaited that is not there.
const DEFAULT: Duration = Duration::from_secs(40);

/// The renewals.
#[derive(Debug, Default)]
pub(crate) struct Beats {
    by_dpu: BTreeMap<String, Beat>,
    complete: bool,
}

#[derive(Debug)]
struct Beat {
    /// What the Lease says; `None`: there is none.
    renewed: Option<MicroTime>,
    /// When that was first seen.
    seen: Instant,
    holds: Duration,
    /// It was looked whether the watch is behind: the Lease is as it was.
    confirmed: bool,
}

impl Beats {
    /// Whether a first list was complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes in what the watch tells.
    pub(crate) fn apply(&mut self, event: Event<DeserializeGuard<Lease>>, now: Instant) {
        match event {
            Event::Init => {}
            Event::InitApply(guard) | Event::Apply(guard) => {
                if let Ok(lease) = guard.0 {
                    self.see(&lease.name_any(), Some(&lease), now);
                }
            }
            Event::InitDone => {
                self.complete = true;
                // While the watch was cut renewals may have been missed, or the API itself was away and nobody could renew.
                for beat in self.by_dpu.values_mut().filter(|beat| !beat.confirmed) {
                    beat.seen = now;
                }
            }
            Event::Delete(guard) => self.see(&guard.name_any(), None, now),
        }
    }

    /// The Lease of a DPU is so now.
    pub(crate) fn see(&mut self, dpu: &str, lease: Option<&Lease>, now: Instant) {
        let spec = lease.and_then(|lease| lease.spec.as_ref());
        let renewed = spec.and_then(|spec| spec.renew_time.clone());
        let seconds = spec.and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok());
        let holds = seconds.map_or(DEFAULT, Duration::from_secs);
        match self.by_dpu.get_mut(dpu) {
            Some(beat) if beat.renewed == renewed => {}
            _ => {
                let beat = Beat { renewed, seen: now, holds, confirmed: false };
                self.by_dpu.insert(dpu.to_owned(), beat);
            }
        }
    }

    /// It was looked past the watch: the Lease is so.
    pub(crate) fn looked(&mut self, dpu: &str, lease: Option<&Lease>, now: Instant) {
        let before = self.by_dpu.get(dpu).map(|beat| beat.seen);
        self.see(dpu, lease, now);
        if let Some(beat) = self.by_dpu.get_mut(dpu) {
            beat.confirmed = Some(beat.seen) == before;
        }
    }

    /// How the agent of a DPU is. One of which nothing was ever seen is awaited from now on.
    pub(crate) fn pulse(&mut self, dpu: &str, now: Instant) -> Pulse {
        let Some(beat) = self.by_dpu.get(dpu) else {
            self.see(dpu, None, now);
            return Pulse::Alive(now + DEFAULT);
        };
        let end = beat.seen + beat.holds;
        match beat.confirmed {
            _ if end > now => Pulse::Alive(end),
            true => Pulse::Silent,
            false => Pulse::Suspect,
        }
    }

    /// Forgets DPUs that nothing is known of any more.
    pub(crate) fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.by_dpu.retain(|dpu, beat| beat.renewed.is_some() || is_known(dpu));
    }
}

/// How an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// It lives, until then at least.
    Alive(Instant),
    /// Its Lease has expired as far as the watch told.
    Suspect,
    /// Its Lease has expired.
    Silent,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(second: u32) -> Lease {
        let spec =
            json!({"leaseDurationSeconds": 30, "renewTime": format!("2020-01-01T00:00:{second:02}.000000Z")});
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_expires_by_the_clock_of_who_watches() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut beats = Beats::default();
        beats.see("a", Some(&lease(0)), at(0));
        beats.see("a", Some(&lease(10)), at(20));
        // Told again, and not renewed.
        beats.see("a", Some(&lease(10)), at(40));
        assert_eq!(beats.pulse("a", at(49)), Pulse::Alive(at(50)));
        assert_eq!(beats.pulse("a", at(50)), Pulse::Suspect);
        beats.looked("a", Some(&lease(10)), at(50));
        assert_eq!(beats.pulse("a", at(50)), Pulse::Silent);
        beats.apply(Event::InitDone, at(55));
        assert_eq!(beats.pulse("a", at(55)), Pulse::Silent, "that is known for sure");
        beats.looked("a", Some(&lease(9)), at(60));
        assert_eq!(beats.pulse("a", at(60)), Pulse::Alive(at(90)), "whatever the agent's clock says");
        assert_eq!(beats.pulse("a", at(90)), Pulse::Suspect);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_not_there_is_awaited_and_a_watch_that_was_cut_blames_nobody() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut beats = Beats::default();
        assert_eq!(beats.pulse("b", at(0)), Pulse::Alive(at(40)));
        assert_eq!(beats.pulse("b", at(40)), Pulse::Suspect);
        beats.apply(Event::InitDone, at(41));
        assert_eq!(beats.pulse("b", at(41)), Pulse::Alive(at(81)));
        beats.looked("b", None, at(81));
        assert_eq!(beats.pulse("b", at(81)), Pulse::Silent);
    }
}
