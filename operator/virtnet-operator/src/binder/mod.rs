//! The binder: gives each device without `spec.dpu` a DPU that its selector matches and that has room for it, spread by what
//! is free. A device for which there is none says so by `Bound=False`, and is bound when room appears.
//!
//! What is bound stays, with one exception: a device that was bound here and that the DPU's agent refuses before it has a
//! function is bound elsewhere.

mod bars;
mod macs;
mod plan;
mod room;
mod write;

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;
use tracing::{info, warn};
use virtnet_client::{Clock, Events, about, chain, is_overtaken};
use virtnet_crds::{Reason, VirtnetDevice};

use crate::fleet::{Device, Fleet};
use crate::pace::Pace;
use crate::writes::{self, LONGEST_RETRY};
use bars::Bars;
use plan::{Input, Plan, plan};

/// That a device can't be bound is said when it has been so for this long.
const LASTING: Duration = Duration::from_secs(1);

/// A write of a device.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Bind(String),
    Say((Reason, String)),
    Clear,
}

/// A device that can't be bound.
#[derive(Debug)]
struct Wait {
    /// When that may be said, or something else than was said.
    due: Instant,
    /// How long it is from then to the next time.
    next: Duration,
}

pub(crate) struct Binder {
    pub(crate) pace: Pace,
    pub(crate) writes: Writes,
    client: Client,
    clock: Clock,
    events: Events,
    bars: Bars,
    /// Devices that can't be bound.
    waiting: BTreeMap<String, Wait>,
}

type Writes = writes::Writes<Write, VirtnetDevice>;
type Done = writes::Done<Write, VirtnetDevice>;

impl Binder {
    pub(crate) fn new(client: Client, clock: Clock, events: Events) -> Self {
        Self {
            pace: Pace::new(),
            writes: Writes::default(),
            client,
            clock,
            events,
            bars: Bars::default(),
            waiting: BTreeMap::new(),
        }
    }

    /// Plans and begins to write, where there is cause; says whether there was.
    pub(crate) fn act(&mut self, fleet: &Fleet, now: Instant) -> bool {
        if !self.pace.begin(now) {
            return false;
        }
        let (devices, dpus) = (fleet.devices.all(), fleet.dpus.all());
        self.bars.note(devices, dpus);
        let barred = self.bars.standing(now);
        let under_way = self.writes.busy().iter().filter_map(|(uid, write)| match write {
            Write::Bind(dpu) => Some((uid.clone(), dpu.clone())),
            Write::Say(_) | Write::Clear => None,
        });
        let under_way = under_way.collect();
        let input = Input { devices, dpus, under_way: &under_way, barred: &barred };
        let Plan { bind, waiting, clear } = plan(&input);
        self.pace.look_again_at(self.bars.next(now));
        self.waiting.retain(|uid, _| waiting.contains_key(uid));
        for (uid, dpu) in bind {
            self.begin(fleet, uid, Write::Bind(dpu), now);
        }
        for uid in clear {
            self.begin(fleet, uid, Write::Clear, now);
        }
        for (uid, why) in waiting {
            let wait = self.waiting.entry(uid.clone()).or_insert(Wait { due: now + LASTING, next: LASTING });
            if devices.get(&uid).is_some_and(|device| says(device, &why)) {
                continue;
            }
            if wait.due > now {
                let due = wait.due;
                self.pace.look_again_at(Some(due));
            } else {
                // Where another operator sees it otherwise, the two contradict each other ever more rarely.
                *wait = Wait { due: now + wait.next, next: (wait.next * 2).min(LONGEST_RETRY) };
                self.begin(fleet, uid, Write::Say(why), now);
            }
        }
        self.writes.retain(|uid| devices.contains_key(uid));
        self.pace.end(now);
        true
    }

    fn begin(&mut self, fleet: &Fleet, uid: String, write: Write, now: Instant) {
        let Some(device) = fleet.devices.all().get(&uid) else { return };
        let version = device.metadata.resource_version.clone();
        if let Some(at) = self.writes.held(&uid, version.as_deref(), now) {
            self.pace.look_again_at(Some(at));
            return;
        }
        let (client, clock, device, what) =
            (self.client.clone(), self.clock.clone(), device.clone(), write.clone());
        self.writes.begin(uid, version, write, async move {
            match &what {
                Write::Bind(dpu) => write::bind(&client, &device, dpu).await,
                Write::Say(why) => write::say(&client, &device, why, &clock).await,
                Write::Clear => write::clear(&client, &device).await,
            }
        });
    }

    /// Takes in how a write ended.
    pub(crate) fn finish(&mut self, done: Done, fleet: &mut Fleet, now: Instant) {
        let Some(device) = fleet.devices.all().get(&done.key) else { return };
        let error = match done.result {
            Ok(object) => {
                let about = || about::<VirtnetDevice>(&device.metadata);
                match &done.write {
                    Write::Bind(dpu) => {
                        info!(device = device.key(), %dpu, "bound");
                        self.events.normal(about(), "Bound", format!("bound to {dpu}"));
                    }
                    // What stands in the way changes with every DPU; that something does is news once.
                    Write::Say((reason, message))
                        if device.bound_condition().is_none_or(|told| told.reason != reason.as_str()) =>
                    {
                        self.events.warning(about(), reason.as_str(), message.clone());
                    }
                    Write::Say(_) | Write::Clear => {}
                }
                fleet.devices.written(object);
                return;
            }
            Err(ref error) => error,
        };
        let (overtaken, refused) = match error {
            kube::Error::Api(status) => (is_overtaken(status), [400, 403, 422].contains(&status.code)),
            _ => (false, false),
        };
        let said = chain(error);
        match &done.write {
            Write::Bind(dpu) if refused => {
                // The next plan knows, and chooses another or says why there is none.
                warn!(device = device.key(), %dpu, error = said, "the API refused to bind a device");
                self.bars.refused(device, dpu, &said, now);
            }
            _ => {
                let wait = self.writes.try_again(&done, now);
                // Of what was overtaken another version is on its way by the watch.
                if !overtaken {
                    let device = device.key();
                    warn!(device, error = said, "a device was not written; it is tried again in {wait:?}");
                }
            }
        }
    }
}

/// Whether the device's conditions say this already, of this generation.
fn says(device: &Device, (reason, message): &(Reason, String)) -> bool {
    device.bound_condition().is_some_and(|condition| {
        condition.reason == reason.as_str()
            && condition.message == *message
            && condition.observed_generation == device.metadata.generation
    })
}
