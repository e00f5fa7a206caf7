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
/// A Lease that seems to have expired is looked at this often.
const LOOKS: Duration = Duration::from_secs(10);
/// For so long it must be seen to be as it was: where the API itself was away, agents renew their Leases within this time.
const PROOF: Duration = Duration::from_secs(20);
/// How long that is good for, and how often it is proved anew meanwhile.
const GOOD: Duration = Duration::from_secs(60);
const ANEW: Duration = Duration::from_secs(30);

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
    /// When it was looked past the watch, first and last, with the Lease as it was and no look in between that failed.
    looks: Option<(Instant, Instant)>,
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
                self.cut(now);
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
                let beat = Beat { renewed, seen: now, holds, looks: None };
                self.by_dpu.insert(dpu.to_owned(), beat);
            }
        }
    }

    /// The watch was cut: renewals may have been missed, or the API itself was away and nobody could renew. What was proved past
    /// the watch stands.
    pub(crate) fn cut(&mut self, now: Instant) {
        for beat in self.by_dpu.values_mut().filter(|beat| beat.looks.is_none()) {
            beat.seen = now;
        }
    }

    /// It was looked past the watch: the Lease is so.
    pub(crate) fn looked(&mut self, dpu: &str, lease: Option<&Lease>, now: Instant) {
        self.see(dpu, lease, now);
        if let Some(beat) = self.by_dpu.get_mut(dpu)
            && beat.seen + beat.holds <= now
        {
            beat.looks = Some((beat.looks.map_or(now, |(first, _)| first), now));
        }
    }

    /// It could not be looked.
    pub(crate) fn not_looked(&mut self, dpu: &str) {
        if let Some(beat) = self.by_dpu.get_mut(dpu) {
            beat.looks = None;
        }
    }

    /// What the Lease of a DPU said when it was last seen.
    pub(crate) fn renewed(&self, dpu: &str) -> Option<&MicroTime> {
        self.by_dpu.get(dpu)?.renewed.as_ref()
    }

    /// How the agent of a DPU is. One of which nothing was ever seen is awaited from now on.
    pub(crate) fn pulse(&mut self, dpu: &str, now: Instant) -> Pulse {
        let Some(beat) = self.by_dpu.get(dpu) else {
            self.see(dpu, None, now);
            return Pulse::Alive(now + DEFAULT);
        };
        let end = beat.seen + beat.holds;
        match beat.looks {
            _ if end > now => Pulse::Alive(end),
            Some((first, last)) if last >= first + PROOF && now < last + GOOD => Pulse::Silent(last + ANEW),
            Some((_, last)) => Pulse::Suspect(last + LOOKS),
            None => Pulse::Suspect(now),
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
    /// Its Lease seems to have expired; it is to be looked at then.
    Suspect(Instant),
    /// Its Lease has expired; it is to be looked at again then.
    Silent(Instant),
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
    async fn a_lease_expires_by_the_clock_of_who_watches_and_that_is_proved() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut beats = Beats::default();
        beats.see("a", Some(&lease(0)), at(0));
        beats.see("a", Some(&lease(10)), at(20));
        // Told again, and not renewed.
        beats.see("a", Some(&lease(10)), at(40));
        assert_eq!(beats.pulse("a", at(49)), Pulse::Alive(at(50)));
        assert_eq!(beats.pulse("a", at(50)), Pulse::Suspect(at(50)));
        beats.looked("a", Some(&lease(10)), at(50));
        assert_eq!(
            beats.pulse("a", at(50)),
            Pulse::Suspect(at(60)),
            "one look after an outage proves nothing"
        );
        beats.looked("a", Some(&lease(10)), at(60));
        beats.looked("a", Some(&lease(10)), at(70));
        assert_eq!(beats.pulse("a", at(70)), Pulse::Silent(at(100)));
        beats.cut(at(75));
        assert_eq!(beats.pulse("a", at(75)), Pulse::Silent(at(100)), "that is known for sure");
        assert_eq!(beats.pulse("a", at(130)), Pulse::Suspect(at(80)), "but not for ever");
        beats.looked("a", Some(&lease(9)), at(131));
        assert_eq!(beats.pulse("a", at(131)), Pulse::Alive(at(161)), "whatever the agent's clock says");
        assert_eq!(beats.pulse("a", at(161)), Pulse::Suspect(at(161)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_that_was_away_blames_nobody() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut beats = Beats::default();
        assert_eq!(beats.pulse("b", at(0)), Pulse::Alive(at(40)), "one that is not there is awaited");
        beats.apply(Event::InitDone, at(30));
        assert_eq!(beats.pulse("b", at(40)), Pulse::Alive(at(70)));
        beats.looked("b", None, at(70));
        beats.not_looked("b");
        beats.looked("b", None, at(90));
        assert_eq!(beats.pulse("b", at(90)), Pulse::Suspect(at(100)), "it was away in between");
        beats.looked("b", Some(&lease(1)), at(100));
        assert_eq!(beats.pulse("b", at(100)), Pulse::Alive(at(130)));
    }
}
