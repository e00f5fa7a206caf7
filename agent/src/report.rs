//! When a status is written: readiness at once, everything else once it has lasted.
//!
//! Ready is written at once where the host's driver is up, and else after a second: a host that has just given a function
//! its address is about to bind a driver, and that would be a second write. A state under a second old is not written, so
//! that what passes by itself leaves no trace. One that the agent is itself about to end is given longer, so that a
//! thousand functions coming up are a thousand writes and not two; but a Ready that is no longer so is never left longer
//! than that second, unless the object is being deleted, which everybody sees.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use virtnet_crds::conditions::READY;
use virtnet_crds::{Reason, VirtnetDeviceStatus};

use crate::desired::{Device, Uid};
use crate::plan::Stand;

/// How long a state lasts before it is written.
const SETTLED: Duration = Duration::from_secs(1);
/// How long one lasts that the agent is working on.
const WORKING: Duration = Duration::from_secs(5);
/// However often a state changes, one that differs from what the object says is written after this long.
const RESTLESS: Duration = Duration::from_secs(10);
/// The longest that is waited after a write that failed.
const LONGEST: Duration = Duration::from_secs(60);

/// Since when each device's state has differed from what its object says.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    differing: BTreeMap<Uid, Differing>,
    /// Devices of which a write began that says that the DPU refuses them, and none since that says otherwise was
    /// acknowledged: whatever came of it, their objects may say so.
    refused: BTreeSet<Uid>,
}

#[derive(Debug)]
struct Differing {
    /// Since when the object has said something else.
    first: Instant,
    /// The state, as its reason; `None`: Ready.
    state: Option<Reason>,
    /// Since when it has been this state.
    since: Instant,
    /// Since when the object has said Ready of what is not.
    untrue: Option<Instant>,
    /// The write that failed last.
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    /// The version of the object that was to be written. Another one is tried at once.
    version: Option<String>,
    attempts: u32,
    again_at: Instant,
    /// The API did not say that it won't have it.
    unanswered: bool,
}

impl Reports {
    /// Whether to write this status now, in place of what the object has in this version of it; where it is yet to last,
    /// until when.
    pub(crate) fn judge(
        &mut self,
        uid: &Uid,
        version: Option<&str>,
        written: &VirtnetDeviceStatus,
        status: &VirtnetDeviceStatus,
        overall: &Stand,
        now: Instant,
    ) -> Verdict {
        // A write that was not answered may have had its effect and may not: only another one settles it.
        let is_settled = status.refusal().is_some() || !self.refused.contains(uid);
        if written == status && is_settled {
            self.differing.remove(uid);
            return Verdict::Same;
        }
        let (state, wait) = match overall {
            Stand::Ready if status.host.as_ref().is_some_and(|host| host.driver.is_some()) => {
                (None, Duration::ZERO)
            }
            // The host has just enumerated it, and its driver is about to bind.
            Stand::Ready => (None, SETTLED),
            // The function is not plugged before this is written.
            Stand::Not(reason, _) if reason.is_working() && (written.refusal().is_some() || !is_settled) => {
                (Some(*reason), Duration::ZERO)
            }
            Stand::Not(reason, _) if reason.is_working() => (Some(*reason), WORKING),
            Stand::Not(reason, _) => (Some(*reason), SETTLED),
        };
        let differing = self.differing.entry(uid.clone()).or_insert(Differing {
            first: now,
            state,
            since: now,
            untrue: None,
            failure: None,
        });
        if differing.state != state {
            (differing.state, differing.since) = (state, now);
        }
        // That it is being deleted its metadata tell as well.
        let is_untrue = is_ready(written) && state.is_some_and(|reason| reason != Reason::Deleting);
        differing.untrue = is_untrue.then(|| differing.untrue.unwrap_or(now));
        let untrue = differing.untrue.map(|since| since + SETTLED);
        let lasted = (differing.since + wait).min(differing.first + RESTLESS);
        let held = differing.failure.as_ref().filter(|failure| failure.version.as_deref() == version);
        let due =
            untrue.map_or(lasted, |at| at.min(lasted)).max(held.map_or(now, |failure| failure.again_at));
        if due <= now { Verdict::Write } else { Verdict::Wait(due) }
    }

    /// The status was written: what differs from now on has yet to last. The API is there, so what was not written for want
    /// of an answer waits no longer: a Ready that is no longer so may be among it. Says whether there is such.
    pub(crate) fn written(&mut self, uid: &Uid, status: &VirtnetDeviceStatus, now: Instant) -> bool {
        self.differing.remove(uid);
        if status.refusal().is_none() {
            self.refused.remove(uid);
        }
        let failures = self.differing.values_mut().filter_map(|differing| differing.failure.as_mut());
        let waiting = failures.filter(|failure| failure.unanswered && failure.again_at > now);
        waiting.map(|failure| failure.again_at = now).count() > 0
    }

    /// This version of the object was not written; `unanswered`, unless the API refused it. Says whether that is the first
    /// time in a row.
    pub(crate) fn failed(
        &mut self,
        uid: &Uid,
        version: Option<String>,
        unanswered: bool,
        now: Instant,
    ) -> bool {
        let Some(differing) = self.differing.get_mut(uid) else { return true };
        let attempts = differing.failure.as_ref().map_or(0, |failure| failure.attempts).saturating_add(1);
        let wait = Duration::from_secs(1 << (attempts - 1).min(6)).min(LONGEST);
        differing.failure = Some(Failure { version, attempts, again_at: now + wait, unanswered });
        attempts == 1
    }

    /// This status is about to be written.
    pub(crate) fn begin(&mut self, uid: &Uid, status: &VirtnetDeviceStatus) {
        if status.refusal().is_some() {
            self.refused.insert(uid.clone());
        }
    }

    /// The devices whose objects say, or may say, that the DPU refuses them.
    pub(crate) fn refused(&self, devices: &BTreeMap<Uid, Device>) -> BTreeSet<Uid> {
        let told = devices.values().filter(|device| device.refused).map(|device| &device.uid);
        told.chain(&self.refused).cloned().collect()
    }

    /// Forgets devices that are gone.
    pub(crate) fn retain(&mut self, exists: impl Fn(&Uid) -> bool) {
        self.refused.retain(&exists);
        self.differing.retain(|uid, _| exists(uid));
    }
}

/// Whether a status says Ready.
pub(crate) fn is_ready(status: &VirtnetDeviceStatus) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == READY && condition.status == "True")
}

/// What to do about a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The object says so already.
    Same,
    /// Write it.
    Write,
    /// Look again then.
    Wait(Instant),
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use virtnet_crds::HostStatus;
    use virtnet_crds::conditions::{FUNCTION_READY, Finding, merge};

    use super::*;

    fn status(generation: i64, driver: Option<&str>) -> VirtnetDeviceStatus {
        let host = Some(HostStatus { driver: driver.map(str::to_owned), seen: true });
        VirtnetDeviceStatus { observed_generation: generation, host, ..VirtnetDeviceStatus::default() }
    }

    fn not(reason: Reason) -> Stand {
        Stand::Not(reason, String::new())
    }

    #[test]
    fn readiness_is_written_at_once_and_what_passes_is_not() {
        let (mut reports, uid, start) = (Reports::default(), Uid::from("u"), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let (old, new, up) = (VirtnetDeviceStatus::default(), status(1, None), status(1, Some("virtio-pci")));
        let mut judge = |status: &_, stand: &_, now| reports.judge(&uid, None, &old, status, stand, now);
        assert_eq!(judge(&new, &not(Reason::Creating), at(0)), Verdict::Wait(at(5000)));
        assert_eq!(
            judge(&new, &not(Reason::WaitingForHost), at(4000)),
            Verdict::Wait(at(5000)),
            "another state"
        );
        assert_eq!(
            judge(&new, &Stand::Ready, at(4100)),
            Verdict::Wait(at(5100)),
            "its driver is about to bind"
        );
        assert_eq!(judge(&up, &Stand::Ready, at(4200)), Verdict::Write);
        assert_eq!(judge(&old, &Stand::Ready, at(4300)), Verdict::Same);
    }

    #[test]
    fn a_state_that_lasts_is_written_and_so_is_one_that_never_does() {
        let (mut reports, uid, start) = (Reports::default(), Uid::from("u"), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let (old, new) = (VirtnetDeviceStatus::default(), status(1, None));
        let mut judge = |stand: &_, now| reports.judge(&uid, None, &old, &new, stand, now);
        assert_eq!(judge(&not(Reason::HostOff), at(0)), Verdict::Wait(at(1000)));
        assert_eq!(judge(&not(Reason::HostOff), at(1000)), Verdict::Write);
        reports.retain(|_| false);
        let mut judge = |stand: &_, now| reports.judge(&uid, None, &old, &new, stand, now);
        for moment in (0..10_000).step_by(300) {
            let stand = not(if moment % 600 == 0 { Reason::Creating } else { Reason::HostOff });
            assert!(matches!(judge(&stand, at(moment)), Verdict::Wait(_)), "{moment}");
        }
        assert_eq!(judge(&not(Reason::Creating), at(10_000)), Verdict::Write, "restless for ten seconds");
        reports.written(&uid, &new, at(10_000));
        let verdict = reports.judge(&uid, None, &old, &new, &not(Reason::HostOff), at(10_100));
        assert_eq!(verdict, Verdict::Wait(at(11_100)), "once in ten seconds, not from then on at every turn");
    }

    #[test]
    fn a_ready_that_is_no_longer_so_is_taken_back_after_a_second() {
        let (mut reports, uid, start) = (Reports::default(), Uid::from("u"), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let ready = Finding::new(READY, Reason::Ready, "as declared");
        let epoch = Time(jiff::Timestamp::UNIX_EPOCH);
        let old = VirtnetDeviceStatus { conditions: merge(&[], vec![ready], 1, &epoch), ..status(1, None) };
        let new = status(1, None);
        let mut judge = |stand: &_, now| reports.judge(&uid, None, &old, &new, stand, now);
        assert_eq!(judge(&not(Reason::Applying), at(0)), Verdict::Wait(at(1000)));
        assert_eq!(judge(&not(Reason::HostOff), at(600)), Verdict::Wait(at(1000)), "another, and no truer");
        assert_eq!(judge(&Stand::Ready, at(800)), Verdict::Wait(at(1800)), "and back");
        assert_eq!(judge(&not(Reason::Applying), at(900)), Verdict::Wait(at(1900)));
        assert_eq!(judge(&not(Reason::Applying), at(1900)), Verdict::Write);
    }

    #[test]
    fn a_version_that_was_not_written_is_tried_less_and_less_often_and_another_at_once() {
        let (mut reports, uid, start) = (Reports::default(), Uid::from("u"), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (old, new) = (VirtnetDeviceStatus::default(), status(1, Some("virtio-pci")));
        let judge = |reports: &mut Reports, version, now| {
            reports.judge(&uid, Some(version), &old, &new, &Stand::Ready, now)
        };
        assert_eq!(judge(&mut reports, "7", at(0)), Verdict::Write);
        assert!(reports.failed(&uid, Some("7".into()), true, at(0)));
        assert_eq!(judge(&mut reports, "7", at(0)), Verdict::Wait(at(1)));
        assert_eq!(judge(&mut reports, "8", at(0)), Verdict::Write);
        let mut now = 1;
        for wait in [2, 4, 8, 16, 32, 60, 60] {
            assert!(!reports.failed(&uid, Some("7".into()), true, at(now)));
            assert_eq!(judge(&mut reports, "7", at(now)), Verdict::Wait(at(now + wait)));
            now += wait;
        }
    }

    #[test]
    fn a_status_that_is_written_ends_the_waits_of_those_that_had_no_answer() {
        let (mut reports, start) = (Reports::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (old, new) = (VirtnetDeviceStatus::default(), status(1, Some("virtio-pci")));
        let [unanswered, refused, written] = ["unanswered", "refused", "written"].map(Uid::from);
        let judge =
            |reports: &mut Reports, uid, now| reports.judge(uid, Some("7"), &old, &new, &Stand::Ready, now);
        for uid in [&unanswered, &refused, &written] {
            assert_eq!(judge(&mut reports, uid, at(0)), Verdict::Write);
        }
        reports.failed(&unanswered, Some("7".into()), true, at(0));
        reports.failed(&refused, Some("7".into()), false, at(0));
        assert!(reports.written(&written, &new, at(0)));
        assert_eq!(judge(&mut reports, &unanswered, at(0)), Verdict::Write);
        assert_eq!(judge(&mut reports, &refused, at(0)), Verdict::Wait(at(1)));
        assert!(!reports.written(&written, &new, at(0)), "nothing waits for the API");
    }

    #[test]
    fn that_a_device_is_no_longer_refused_is_written_at_once_and_until_it_is_acknowledged() {
        let (mut reports, uid, now) = (Reports::default(), Uid::from("u"), Instant::now());
        let epoch = Time(jiff::Timestamp::UNIX_EPOCH);
        let none = VirtnetDeviceStatus::default();
        let said = |reason| {
            let finding = Finding::new(FUNCTION_READY, reason, "m");
            VirtnetDeviceStatus { conditions: merge(&[], vec![finding], 1, &epoch), ..none.clone() }
        };
        let (full, creating) = (said(Reason::NoFreeSlot), said(Reason::Creating));
        let devices = BTreeMap::new();
        let judge = |reports: &mut Reports, version, before: &_, after: &_| {
            reports.judge(&uid, Some(version), before, after, &not(Reason::Creating), now)
        };
        assert_eq!(judge(&mut reports, "7", &full, &creating), Verdict::Write);
        reports.begin(&uid, &full);
        reports.failed(&uid, Some("7".into()), true, now);
        assert_eq!(reports.refused(&devices), BTreeSet::from([uid.clone()]), "it may have been written");
        assert_eq!(judge(&mut reports, "8", &creating, &creating), Verdict::Write, "which is not seen yet");
        reports.written(&uid, &creating, now);
        assert_eq!(reports.refused(&devices), BTreeSet::new());
        assert_eq!(judge(&mut reports, "9", &creating, &creating), Verdict::Same);
    }
}
