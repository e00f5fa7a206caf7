//! [`Bars`]: which device may not go to which DPU for now, for it was refused there.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;
use virtnet_crds::Reason;

use crate::fleet::{Device, Target};

/// How long a refusal of the API stands. With each further one it is twice as long.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(600);
/// How much of what the API says is told, in bytes.
const SAID: usize = 512;

/// The refusals. One of the agent stands until the DPU or the device has changed, one of the API for a while.
#[derive(Debug, Default)]
pub(super) struct Bars(BTreeMap<(String, String), Bar>);

#[derive(Debug)]
struct Bar {
    said: String,
    /// What the device wanted.
    wanted: u64,
    lifts: Lifts,
}

#[derive(Debug)]
enum Lifts {
    /// When what the refusal was for is other than this.
    WhenOther { cause: Cause, than: u64 },
    /// At a time; and how long that was from the refusal. It is remembered afterwards, for the next one.
    At(Instant, Duration),
}

impl Bars {
    /// The API refused to bind the device to the DPU.
    pub(super) fn refused(&mut self, device: &Device, dpu: &str, said: &str, now: Instant) {
        let pair = (device.uid().to_owned(), dpu.to_owned());
        let wait = match self.0.get(&pair).map(|bar| &bar.lifts) {
            Some(Lifts::At(_, before)) => (*before * 2).min(LONGEST),
            Some(Lifts::WhenOther { .. }) | None => FIRST,
        };
        let mut end = said.len().min(SAID);
        while !said.is_char_boundary(end) {
            end -= 1;
        }
        let said = format!("the API refused it: {}", &said[..end]);
        let bar = Bar { said, wanted: device.wanted, lifts: Lifts::At(now + wait, wait) };
        self.0.insert(pair, bar);
    }

    /// Lifts what need not stand, and notes what agents refuse.
    pub(super) fn note(&mut self, devices: &BTreeMap<String, Device>, dpus: &BTreeMap<String, Target>) {
        let by_name: BTreeMap<_, _> = dpus.values().map(|target| (target.name(), target)).collect();
        for (uid, device) in devices {
            let (Some(dpu), Some((reason, said)), true) = (device.dpu(), &device.refusal, device.bound_by_us)
            else {
                continue;
            };
            let cause = Cause::of(*reason);
            let lifts = Lifts::WhenOther { cause, than: cause.now(by_name.get(dpu).copied()) };
            let bar = Bar { said: format!("{reason}: {said}"), wanted: device.wanted, lifts };
            self.0.insert((uid.clone(), dpu.to_owned()), bar);
        }
        self.0.retain(|(uid, dpu), bar| {
            let target = by_name.get(dpu.as_str()).copied();
            devices.get(uid).is_some_and(|device| device.wanted == bar.wanted)
                && match &bar.lifts {
                    Lifts::WhenOther { cause, than } => cause.now(target) == *than,
                    Lifts::At(..) => true,
                }
        });
    }

    /// All that stand, with what was said.
    pub(super) fn standing(&self, now: Instant) -> BTreeMap<(String, String), String> {
        let standing = self.0.iter().filter(|(_, bar)| match bar.lifts {
            Lifts::WhenOther { .. } => true,
            Lifts::At(at, _) => at > now,
        });
        standing.map(|(pair, bar)| (pair.clone(), bar.said.clone())).collect()
    }

    /// When the next one lifts by itself.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let ends = self.0.values().filter_map(|bar| match bar.lifts {
            Lifts::At(at, _) if at > now => Some(at),
            Lifts::At(..) | Lifts::WhenOther { .. } => None,
        });
        ends.min()
    }
}

/// What an agent's refusal is for.
#[derive(Clone, Copy, Debug)]
enum Cause {
    /// How much room there is on the DPU.
    Room,
    /// What the DPU can do.
    Ability,
}

impl Cause {
    fn of(reason: Reason) -> Self {
        match reason {
            Reason::NoFreeSlot
            | Reason::SfExhausted
            | Reason::SfNumberInUse
            | Reason::FunctionClaimed
            | Reason::TransitionalUnsupported => Self::Room,
            _ => Self::Ability,
        }
    }

    /// How that is now, as a number that tells whether it has changed.
    fn now(self, target: Option<&Target>) -> u64 {
        let mut hasher = DefaultHasher::new();
        if let Some(reported) = target.and_then(|target| target.reported.as_ref()) {
            format!("{:?} {:?}", reported.capacity, reported.controller).hash(&mut hasher);
            if let Self::Room = self {
                format!("{:?} {:?}", reported.allocated, reported.undeclared).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fleet::Kept;

    fn device(refusal: &str, wanted: u16) -> BTreeMap<String, Device> {
        let condition = json!({
            "type": "FunctionReady", "status": "False", "reason": refusal, "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let owner = json!([{"manager": "virtnet-binder", "operation": "Apply", "fieldsV1": {"f:spec": {"f:dpu": {}}}}]);
        let object = json!({
            "metadata": {"name": "web", "uid": "u", "generation": 1, "managedFields": owner},
            "spec": {"dpu": "a", "dpuSelector": {}, "function": {"hotplug": {}}, "mtu": wanted},
            "status": {"observedGeneration": 1, "conditions": [condition]},
        });
        [("u".to_owned(), Device::keep(serde_json::from_value(object).unwrap()).unwrap())].into()
    }

    fn dpu(slots: u32, used: u32) -> BTreeMap<String, Target> {
        let status =
            json!({"capacity": {"hotplugSlots": slots, "msix": 64}, "allocated": {"hotplugSlots": used}});
        let object = json!({"metadata": {"name": "a", "uid": "a"}, "spec": {}, "status": status});
        [("a".to_owned(), Target::keep(serde_json::from_value(object).unwrap()).unwrap())].into()
    }

    /// The device after it was bound elsewhere.
    fn moved(devices: &BTreeMap<String, Device>) -> BTreeMap<String, Device> {
        let mut devices = devices.clone();
        for device in devices.values_mut() {
            (device.spec.dpu, device.refusal) = (Some("b".to_owned()), None);
        }
        devices
    }

    #[tokio::test(start_paused = true)]
    async fn an_agents_refusal_stands_until_what_it_is_for_has_changed() {
        let now = Instant::now();
        for (reason, lifted_by_use) in [("NoFreeSlot", true), ("FeatureUnsupported", false)] {
            let devices = device(reason, 1500);
            let mut bars = Bars::default();
            bars.note(&devices, &dpu(16, 16));
            bars.note(&moved(&devices), &dpu(16, 16));
            assert_eq!(bars.standing(now).len(), 1, "{reason}");
            bars.note(&moved(&devices), &dpu(16, 15));
            assert_eq!(bars.standing(now).is_empty(), lifted_by_use, "{reason}");
            bars.note(&moved(&devices), &dpu(17, 15));
            assert!(bars.standing(now).is_empty(), "{reason}");
        }
        let mut bars = Bars::default();
        bars.note(&device("NoFreeSlot", 1500), &dpu(16, 16));
        bars.note(&moved(&device("NoFreeSlot", 9000)), &dpu(16, 16));
        assert!(bars.standing(now).is_empty(), "it wants something else now");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_of_the_api_stands_for_ever_longer() {
        let (devices, mut now, mut bars) = (device("Creating", 1500), Instant::now(), Bars::default());
        for wait in [5, 10, 20, 40, 80, 160, 320, 600, 600] {
            bars.refused(&devices["u"], "a", &"é".repeat(600), now);
            bars.note(&devices, &dpu(16, 16));
            let end = now + Duration::from_secs(wait);
            assert_eq!(bars.next(now), Some(end));
            assert!(bars.standing(now).values().all(|said| said.len() < 600));
            assert!(bars.standing(end).is_empty());
            now = end;
        }
    }
}
