//! When a status is written: readiness at once, everything else once it has lasted.
//!
//! A state under a second old is not written, so that what passes by itself leaves no trace; a state that the agent is
//! itself about to end is given longer, so that a thousand functions coming up are a thousand writes and not two.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use virtnet_crds::VirtnetDeviceStatus;

use crate::desired::Uid;
use crate::plan::Stand;

/// How long a state lasts before it is written.
const SETTLED: Duration = Duration::from_secs(1);
/// How long one lasts that the agent is working on.
const WORKING: Duration = Duration::from_secs(5);

/// Since when each device's state has differed from what its object says.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    differing: BTreeMap<Uid, Instant>,
}

impl Reports {
    /// Whether to write this status now, in place of what the object has; where it is yet to last, until when.
    pub(crate) fn judge(
        &mut self,
        uid: &Uid,
        written: &VirtnetDeviceStatus,
        status: &VirtnetDeviceStatus,
        overall: &Stand,
        now: Instant,
    ) -> Verdict {
        if written == status {
            self.differing.remove(uid);
            return Verdict::Same;
        }
        let since = *self.differing.entry(uid.clone()).or_insert(now);
        let wait = match overall {
            Stand::Ready => Duration::ZERO,
            Stand::Not(reason, _) if reason.is_working() => WORKING,
            Stand::Not(..) => SETTLED,
        };
        if since + wait <= now { Verdict::Write } else { Verdict::Wait(since + wait) }
    }

    /// Forgets devices that are gone.
    pub(crate) fn retain(&mut self, exists: impl Fn(&Uid) -> bool) {
        self.differing.retain(|uid, _| exists(uid));
    }
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
