//! [`Bars`]: which device may not go to which DPU for now, for it was refused there.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::fleet::{Device, Reported, Target};

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
    /// When the DPU no longer reports this.
    WhenOtherThan(Option<Reported>),
    At(Instant),
}

impl Bars {
    /// The API refused to bind the device to the DPU.
    pub(super) fn refused(&mut self, device: &Device, dpu: &str, said: String, until: Instant) {
        let bar = Bar { said, wanted: device.wanted, lifts: Lifts::At(until) };
        self.0.insert((device.uid().to_owned(), dpu.to_owned()), bar);
    }

    /// Lifts what need not stand, and notes what agents refuse.
    pub(super) fn note(
        &mut self,
        devices: &BTreeMap<String, Device>,
        dpus: &BTreeMap<String, Target>,
        now: Instant,
    ) {
        let by_name: BTreeMap<_, _> = dpus.values().map(|target| (target.name(), target)).collect();
        let reported = |dpu: &str| by_name.get(dpu).and_then(|target| target.reported.as_ref());
        self.0.retain(|(uid, dpu), bar| {
            devices.get(uid).is_some_and(|device| device.wanted == bar.wanted)
                && match &bar.lifts {
                    Lifts::WhenOtherThan(before) => reported(dpu) == before.as_ref(),
                    Lifts::At(at) => *at > now,
                }
        });
        for (uid, device) in devices {
            let (Some(dpu), Some((_, said)), true) = (&device.dpu, &device.refusal, device.bound_by_us)
            else {
                continue;
            };
            self.0.entry((uid.clone(), dpu.clone())).or_insert_with(|| Bar {
                said: said.clone(),
                wanted: device.wanted,
                lifts: Lifts::WhenOtherThan(reported(dpu).cloned()),
            });
        }
    }

    /// All that stand, with what was said.
    pub(super) fn standing(&self) -> BTreeMap<(String, String), String> {
        self.0.iter().map(|(pair, bar)| (pair.clone(), bar.said.clone())).collect()
    }

    /// When the next one lifts by itself.
    pub(super) fn next(&self) -> Option<Instant> {
        let ends = self.0.values().filter_map(|bar| match bar.lifts {
            Lifts::At(at) => Some(at),
            Lifts::WhenOtherThan(_) => None,
        });
        ends.min()
    }
}
