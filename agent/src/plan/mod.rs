//! Planning: from what is wanted and what is there, over all devices of the DPU at once, the [`Step`]s to take now and an
//! [`Assessment`] of each device.
//!
//! Pure: no clock, no I/O, no memory of earlier plans. The same input gives the same plan. A plan holds only what can be
//! done at once; what needs its result is planned from the next observation.

mod allowed;
mod budget;
mod claims;
mod device;
mod dpu;
mod function;
mod mac;
mod numbers;
mod port;
mod representor;
mod step;

use std::collections::{BTreeMap, BTreeSet};

use virtnet_crds::{DpuSpec, Reason};
use virtnet_model::{Function, FunctionId, IfName, Mac, Owner, Port, SubFunction};

pub use claims::Claims;
pub use dpu::DpuAssessment;
pub(crate) use dpu::wanted_firmware;
pub use mac::Free;
pub(crate) use mac::claimed;
pub use step::{For, Part, Removal, Step};

use crate::desired::{Device, Uid};
use crate::observe::Observed;

/// All that a plan is made from.
#[derive(Debug)]
pub struct Input<'a> {
    /// This DPU's name.
    pub dpu: &'a str,
    /// What is wanted of the DPU itself.
    pub dpu_spec: &'a DpuSpec,
    /// Its devices.
    pub devices: &'a BTreeMap<Uid, Device>,
    /// What is there.
    pub observed: &'a Observed,
    /// Steps under way.
    pub busy: &'a BTreeSet<(Uid, Part)>,
    /// Steps that failed and are not yet to be tried again, with what there is to say of them.
    pub held: &'a BTreeMap<(Uid, Part), (Reason, String)>,
    /// MACs that nobody else of the fleet had, each with the device that it was looked for.
    pub free: &'a BTreeMap<Uid, Free>,
    /// Devices whose MAC was another's when it was last looked for.
    pub lost: &'a BTreeSet<Uid>,
    /// Devices whose object says, or may say, that this DPU refuses them: they may be given to another at any moment.
    pub refused: &'a BTreeSet<Uid>,
    /// Functions that the Dpu's status says no object declares, by their MACs there; `None`: nothing can be reported.
    pub reported: Option<&'a BTreeSet<(FunctionId, Mac)>>,
    /// Ports that were suspected before.
    pub suspects: &'a BTreeSet<(IfName, Owner)>,
}

/// What to do now, and how things stand.
#[derive(Debug, Default)]
pub struct Plan {
    /// What to do now; removals come first. Steps of different devices don't depend on one another.
    pub steps: Vec<Step>,
    /// How each device stands.
    pub devices: BTreeMap<Uid, Assessment>,
    /// Ports that look like orphans, or like those of netdevs that are gone, seen before or not.
    pub suspects: BTreeSet<(IfName, Owner)>,
    /// How the DPU itself stands.
    pub dpu: DpuAssessment,
}

/// How one aspect of a device stands: as wanted, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Read back as wanted.
    Ready,
    /// Not as wanted.
    Not(Reason, String),
}

impl Stand {
    fn not(reason: Reason, message: impl Into<String>) -> Self {
        Self::Not(reason, message.into())
    }

    /// Whether it is as wanted.
    pub fn is_ready(&self) -> bool {
        *self == Self::Ready
    }
}

/// How a device stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The function.
    pub function: Stand,
    /// The representor.
    pub representor: Stand,
    /// The port; `None` where none is wanted.
    pub port: Option<Stand>,
    /// What waits for a person.
    pub pending: Option<(Reason, String)>,
    /// The function that was found.
    pub found: Option<Function>,
    /// The representor's SF.
    pub sf: Option<SubFunction>,
    /// The port that was found.
    pub found_port: Option<Port>,
}

impl Assessment {
    /// Every aspect waits for the same thing.
    fn all(reason: Reason, message: &str, has_port: bool) -> Self {
        let stand = Stand::not(reason, message);
        Self {
            function: stand.clone(),
            representor: stand.clone(),
            port: has_port.then_some(stand),
            pending: None,
            found: None,
            sf: None,
            found_port: None,
        }
    }

    /// The first aspect that is not as wanted; `Ready` where all are.
    pub fn overall(&self) -> &Stand {
        [Some(&self.function), Some(&self.representor), self.port.as_ref()]
            .into_iter()
            .flatten()
            .find(|stand| !stand.is_ready())
            .unwrap_or(&Stand::Ready)
    }
}

/// Makes the plan.
pub fn plan(input: &Input<'_>) -> Plan {
    let state = input.observed.controller.as_ref().ok();
    // A hot-plug that an agent of before asked for is as much under way as one of ours.
    let plugged_anyhow = input.devices.values().filter(|device| {
        let is_plugging = |mac| state.is_some_and(|state| state.plugging.contains(&mac));
        claims::place(device).is_none() && device.hotplug_macs().any(is_plugging)
    });
    let mut busy = input.busy.clone();
    busy.extend(plugged_anyhow.map(|device| (device.uid.clone(), Part::Function)));
    let input = &Input { busy: &busy, ..*input };
    let claims = Claims::decide(input.devices, state, &busy);
    let mut plan = Plan::default();
    let mut budget = budget::Budget::new(input, &claims);
    for device in claims.order.iter().copied() {
        let assessment = device::plan(input, &claims, device, &mut budget, &mut plan.steps);
        plan.devices.insert(device.uid.clone(), assessment);
    }
    port::plan_orphans(input, &claims, &mut plan);
    port::plan_detached(input, &mut plan);
    plan.dpu = dpu::plan(input, &claims, &mut plan.steps);
    numbers::leave_for_later(input, &mut plan);
    plan.steps.sort_by_key(|step| match step {
        Step::AddBridge { .. } | Step::RemovePort { .. } => 0,
        Step::Unplug { .. } => 1,
        Step::Release { .. } => 2,
        Step::Register { .. } | Step::ClaimMac { .. } => 3,
        Step::Modify { .. } | Step::Hotplug { .. } => 4,
        Step::SetNumVfs { .. } | Step::SetFirmware { .. } => 5,
        Step::SetLink { .. } | Step::SetPort { .. } => 6,
    });
    plan
}
