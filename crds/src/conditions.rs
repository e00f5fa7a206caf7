//! Types of conditions, and the merge of what is found now with what was written before.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::common::Conditions;
use crate::reasons::{Outlook, Reason};

/// The device was given a DPU. Present only where binding fails.
pub const BOUND: &str = "Bound";
/// The function is as wanted and the host has it.
pub const FUNCTION_READY: &str = "FunctionReady";
/// The representor is as wanted.
pub const REPRESENTOR_READY: &str = "RepresentorReady";
/// The port is as wanted and attached.
pub const PORT_READY: &str = "PortReady";
/// All is as wanted.
pub const READY: &str = "Ready";
/// kstatus: it is not as wanted yet and goes on by itself. Present only while True.
pub const RECONCILING: &str = "Reconciling";
/// kstatus: it does not go on before a person changes the spec. Present only while True.
pub const STALLED: &str = "Stalled";
/// Of a Dpu: firmware values are those wanted.
pub const FIRMWARE_CONFIGURED: &str = "FirmwareConfigured";
/// Of a Dpu: values for the next cold boot differ from those in force.
pub const REBOOT_REQUIRED: &str = "RebootRequired";
/// Of a Dpu: the controller must be restarted.
pub const RESTART_REQUIRED: &str = "RestartRequired";
/// Of a Dpu: a live update of the controller is running.
pub const UPDATING: &str = "Updating";

/// The types that agents write, of devices and of Dpus. Conditions of other types are others'.
const AGENTS: [&str; 10] = [
    FUNCTION_READY,
    REPRESENTOR_READY,
    PORT_READY,
    READY,
    RECONCILING,
    STALLED,
    FIRMWARE_CONFIGURED,
    REBOOT_REQUIRED,
    RESTART_REQUIRED,
    UPDATING,
];

/// Whether it is an agent's to say, and to take back.
#[must_use]
pub fn is_agents(condition: &Condition) -> bool {
    AGENTS.contains(&condition.type_.as_str())
}

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It can not be known.
    Unknown,
}

impl Status {
    const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition as found now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its type.
    pub type_: &'static str,
    /// Whether it holds.
    pub status: Status,
    /// Why.
    pub reason: Reason,
    /// Why, in words for people.
    pub message: String,
}

impl Finding {
    /// A condition that is True where the reason's outlook is [`Outlook::Ready`], and False elsewhere.
    #[must_use]
    pub fn new(type_: &'static str, reason: Reason, message: impl Into<String>) -> Self {
        let status = if reason.outlook() == Outlook::Ready { Status::True } else { Status::False };
        Self { type_, status, reason, message: message.into() }
    }

    /// `Reconciling` or `Stalled` as the overall reason demands; none where all is ready.
    #[must_use]
    pub fn kstatus(overall: Reason, message: &str) -> Option<Self> {
        let type_ = match overall.outlook() {
            Outlook::Ready => return None,
            Outlook::Working | Outlook::Waiting => RECONCILING,
            Outlook::Stalled => STALLED,
        };
        Some(Self { type_, status: Status::True, reason: overall, message: message.to_owned() })
    }
}

/// The conditions to write: those found, each with the time since which it has had its status. A type that is not found
/// any more goes. Ordered as found.
#[must_use]
pub fn merge(before: &[Condition], found: Vec<Finding>, generation: i64, now: &Time) -> Conditions {
    found
        .into_iter()
        .map(|Finding { type_, status, reason, message }| {
            let since = before
                .iter()
                .find(|condition| condition.type_ == type_ && condition.status == status.as_str())
                .map_or_else(|| now.clone(), |condition| condition.last_transition_time.clone());
            Condition {
                type_: type_.to_owned(),
                status: status.as_str().to_owned(),
                reason: reason.as_str().to_owned(),
                message,
                observed_generation: Some(generation),
                last_transition_time: since,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let first = merge(&[], vec![Finding::new(READY, Reason::Creating, "a")], 1, &at(1));
        let second = merge(&first, vec![Finding::new(READY, Reason::HostOff, "b")], 2, &at(2));
        assert_eq!(second[0].last_transition_time, at(1), "still False");
        assert_eq!((second[0].reason.as_str(), second[0].observed_generation), ("HostOff", Some(2)));
        let third = merge(&second, vec![Finding::new(READY, Reason::Ready, "c")], 2, &at(3));
        assert_eq!(third[0].last_transition_time, at(3));
    }

    #[test]
    fn what_is_no_longer_found_goes() {
        let stalled = Finding::kstatus(Reason::MtuFixed, "m").unwrap();
        assert_eq!(stalled.type_, STALLED);
        let before = merge(&[], vec![stalled], 1, &at(1));
        assert!(
            merge(&before, Finding::kstatus(Reason::Ready, "").into_iter().collect(), 1, &at(2)).is_empty()
        );
    }

    #[test]
    fn waiting_and_working_are_reconciling() {
        for reason in Reason::ALL {
            let kstatus = Finding::kstatus(*reason, "").map(|finding| finding.type_);
            let expected = match reason.outlook() {
                Outlook::Ready => None,
                Outlook::Working | Outlook::Waiting => Some(RECONCILING),
                Outlook::Stalled => Some(STALLED),
            };
            assert_eq!(kstatus, expected, "{reason}");
        }
    }
}
