//! What is shown of an object: pure. The shapes here are what the page's script reads, so a field that is not shown is not here.

mod device;
mod dpu;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;
use virtnet_crds::conditions::{READY, STALLED};
use virtnet_crds::{FunctionType, Outlook, Reason};

pub(crate) use device::DeviceView;
pub(crate) use dpu::DpuView;

/// How something stands. The page gives each a colour, a sign and a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it is wanted.
    Ready,
    /// Not yet, and it goes on by itself.
    Reconciling,
    /// Not before a person changes the spec.
    Stalled,
    /// Nobody has said, or whoever would know is silent.
    Unknown,
}

impl State {
    /// What one condition says of its part. The table of reasons tells whether somebody is at work on it; a reason that
    /// is not in it is that of another version, which is believed to be.
    fn of(condition: &Condition) -> Self {
        match condition.status.as_str() {
            "True" => Self::Ready,
            "False" => {
                let reason = Reason::ALL.iter().find(|reason| reason.as_str() == condition.reason);
                match reason.map(|reason| reason.outlook()) {
                    Some(Outlook::Stalled) => Self::Stalled,
                    Some(Outlook::Ready | Outlook::Working | Outlook::Waiting) | None => Self::Reconciling,
                }
            }
            _ => Self::Unknown,
        }
    }
}

/// How an object stands as a whole, and why.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Standing<'a> {
    state: State,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

impl<'a> Standing<'a> {
    /// What the conditions of a status say that is about this generation, or about an older one.
    fn of(conditions: &'a [Condition], is_current: bool) -> Self {
        let Some(ready) = find(conditions, READY) else {
            return Self { state: State::Unknown, reason: "", message: "no agent has looked at it yet" };
        };
        let stalled = find(conditions, STALLED).filter(|stalled| is_current && stalled.status == "True");
        if let Some(Condition { reason, message, .. }) = stalled {
            // Also of one whose agent is silent: the spec is as wrong as it was.
            return Self { state: State::Stalled, reason, message };
        }
        let Condition { reason, message, .. } = ready;
        match State::of(ready) {
            // What was said of an older spec does not hold of this one.
            State::Ready | State::Reconciling | State::Stalled if !is_current => {
                let message = "its spec has changed, and was not looked at since";
                Self { state: State::Reconciling, reason: "", message }
            }
            state => Self { state, reason, message },
        }
    }
}

fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// What a function is, in few words.
fn kind(type_: FunctionType, pf: Option<u16>, vf: Option<u16>) -> String {
    match (type_, pf, vf) {
        (FunctionType::Vf, Some(pf), Some(vf)) => format!("VF {vf} of PF {pf}"),
        (FunctionType::Vf, ..) => "VF".to_owned(),
        (FunctionType::HotPlug, Some(pf), _) => format!("hot-plugged PF {pf}"),
        (FunctionType::HotPlug, None, _) => "hot-plugged PF".to_owned(),
        (FunctionType::Static, Some(pf), _) => format!("static PF {pf}"),
        (FunctionType::Static, None, _) => "static PF".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use virtnet_crds::yaml;

    use super::*;

    fn condition(type_: &str, status: &str, reason: &str) -> Condition {
        serde_json::from_value(json!({
            "type": type_, "status": status, "reason": reason, "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn a_condition_that_is_false_is_stalled_only_where_a_person_must_act() {
        for reason in Reason::ALL {
            let state = State::of(&condition(READY, "False", reason.as_str()));
            assert_eq!(state == State::Stalled, reason.outlook() == Outlook::Stalled, "{reason}");
            assert_ne!(state, State::Ready, "{reason}");
        }
        assert_eq!(State::of(&condition(READY, "False", "OfALaterVersion")), State::Reconciling);
        assert_eq!(State::of(&condition(READY, "Unknown", "DpuUnreachable")), State::Unknown);
        assert_eq!(State::of(&condition(READY, "True", "Ready")), State::Ready);
    }

    #[test]
    fn what_was_said_of_an_older_spec_does_not_hold() {
        let ready = [condition(READY, "True", "Ready")];
        assert_eq!(Standing::of(&ready, true).state, State::Ready);
        assert_eq!(Standing::of(&ready, false).state, State::Reconciling);
        assert_eq!(Standing::of(&[], true).state, State::Unknown);
        // An agent that is silent is silent about any spec.
        let silent = [condition(READY, "Unknown", "DpuUnreachable")];
        let standing = Standing::of(&silent, false);
        assert_eq!((standing.state, standing.reason), (State::Unknown, "DpuUnreachable"));
    }

    /// The phases that the tests of kstatus record, with what a person says of each.
    #[test]
    fn each_recorded_phase_is_shown_as_a_person_judges_it() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/kstatus");
        let read = |path: &str| -> Value {
            let text = std::fs::read_to_string(format!("{folder}/{path}")).unwrap();
            yaml::documents(&text).into_iter().next().unwrap().unwrap().value
        };
        let verdicts = read("verdicts.yaml");
        let phases = |kind: &str| verdicts[kind].as_object().unwrap().clone();
        let mut count = 0;
        let mut judge = |kind: &str, phase: &str, verdict: &Value, shown: &Value| {
            count += 1;
            let state = shown["state"].as_str().unwrap();
            let fits = match verdict["verdict"].as_str().unwrap() {
                "Current" => state == "ready",
                "Failed" => state == "stalled",
                // A Dpu that works is Ready while something that its spec wants is yet to come, and a note tells of that.
                "InProgress" => ["reconciling", "unknown"].contains(&state) || shown["notes"].is_array(),
                "Terminating" => shown["deleting"] == true,
                other => panic!("{other}"),
            };
            assert!(fits, "{kind} {phase}: {verdict}\nis shown as {shown}");
        };
        for (phase, verdict) in phases("VirtnetDevice") {
            let device =
                serde_json::from_value(read(&format!("testdata/VirtnetDevice/{phase}.yaml"))).unwrap();
            judge("VirtnetDevice", &phase, &verdict, &json!(DeviceView::of(&device)));
        }
        for (phase, verdict) in phases("Dpu") {
            let dpu = serde_json::from_value(read(&format!("testdata/Dpu/{phase}.yaml"))).unwrap();
            judge("Dpu", &phase, &verdict, &json!(DpuView::of(&dpu)));
        }
        assert!(count > 60, "{count}");
    }

    #[test]
    fn a_device_is_shown_with_its_parts_and_what_they_say() {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/kstatus/testdata/VirtnetDevice/host-off.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let object = yaml::documents(&text).into_iter().next().unwrap().unwrap().value;
        let device = serde_json::from_value(object).unwrap();
        let expected = json!({
            "state": "reconciling", "reason": "HostOff", "message": "the host is off", "dpu": "dpu-a",
            "function": {
                "state": "reconciling", "why": "HostOff", "kind": "hot-plugged PF 4", "order": [4, -1],
                "vuid": "VNETS1D0F0", "mac": "02:00:00:00:00:01",
            },
            "representor": {"state": "ready", "name": "en3f0pf0sf2000", "sf": 2000},
            "port": {"state": "ready", "bridge": "ovsbr1", "tag": 200},
        });
        assert_eq!(json!(DeviceView::of(&device)), expected);
    }
}
