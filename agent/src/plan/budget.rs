//! What is left of the DPU's slots, SFs and I/O space while a plan is made: senior devices draw first.

use std::collections::{BTreeMap, BTreeSet};

use virtnet_crds::Reason;
use virtnet_model::{EswitchPort, Function, FunctionKind, Generation, Limits, SfNumber, Uplink};

use super::{Claims, Input, Part};
use crate::desired::{Wanted, WantedFunction};

/// The remaining capacity.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget {
    slots: u16,
    slots_total: u16,
    transitional: u16,
    sfs: BTreeMap<EswitchPort, u32>,
    numbers: BTreeSet<(EswitchPort, SfNumber)>,
}

/// What a hot-plug needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    pub(super) uplink: Uplink,
    pub(super) transitional: bool,
    pub(super) sf_number: Option<SfNumber>,
}

impl Budget {
    /// What is free now, less what hot-plugs under way will take.
    pub(super) fn new(input: &Input<'_>, claims: &Claims<'_>) -> Self {
        let Ok(state) = &input.observed.controller else { return Self::default() };
        let hotplugged =
            || state.functions.values().filter(|function| function.kind == FunctionKind::HotPlug);
        let limits = &state.limits;
        let mut budget = Self {
            slots: limits.hotplug_slots.saturating_sub(count(hotplugged())),
            slots_total: limits.hotplug_slots,
            transitional: limits
                .transitional
                .hotplug
                .saturating_sub(count(hotplugged().filter(|function| function.transitional))),
            sfs: limits.sfs.iter().map(|(port, sfs)| (*port, sfs.free())).collect(),
            numbers: state
                .functions
                .values()
                .filter_map(|function| function.sf.as_ref())
                .map(|sf| (sf.port, sf.number))
                .collect(),
        };
        for device in &claims.order {
            let under_way = input.busy.contains(&(device.uid.clone(), Part::Function));
            if let (true, None, Ok(Wanted { function, .. })) =
                (under_way, claims.function(device, state), &device.wanted)
                && let Some(need) = Need::of(function, limits)
            {
                budget.take(need);
            }
        }
        budget
    }

    /// Draws what the hot-plug needs, or says what is missing.
    pub(super) fn draw(&mut self, need: Need, limits: &Limits) -> Result<(), (Reason, String)> {
        let port = need.uplink.port();
        if self.slots_total == 0 {
            let message = "this DPU has no hot-plug slots: PCI_SWITCH_EMULATION_ENABLE is 0, \
                 PCI_SWITCH_EMULATION_NUM_PORT is 0, or more than 127 VFs exclude them; set them with mlxconfig and cold \
                 boot";
            return Err((Reason::NoFreeSlot, message.into()));
        }
        if self.slots == 0 {
            let message = format!(
                "PCI_SWITCH_EMULATION_NUM_PORT={}: every hot-plug slot is taken; delete a hot-plugged device, or raise it \
                 with mlxconfig and cold boot",
                self.slots_total
            );
            return Err((Reason::NoFreeSlot, message));
        }
        if self.sfs.get(&port).copied().unwrap_or_default() == 0 {
            return Err((Reason::SfExhausted, sf_exhausted(port, limits)));
        }
        if let Some(number) = need.sf_number.filter(|number| self.numbers.contains(&(port, *number))) {
            let message = format!("SF number {number} is in use on {port}; choose another or leave it out");
            return Err((Reason::SfNumberInUse, message));
        }
        if need.transitional && self.transitional == 0 {
            let message = match (limits.generation, limits.transitional.hotplug) {
                (Generation::Later, _) => {
                    "this generation of the controller has transitional VFs only, no hot-plugged functions"
                        .to_owned()
                }
                (Generation::Guide, 0) => {
                    "transitional functions take VIRTIO_NET_EMULATION_PF_PCI_LAYOUT=1, \
                     VIRTIO_EMULATION_HOTPLUG_TRANS=1 and 4 KiB of the host's I/O space each"
                        .to_owned()
                }
                (Generation::Guide, most) => format!(
                    "the host's I/O space holds {most} transitional functions, 4 KiB each, and all are there already"
                ),
            };
            return Err((Reason::TransitionalUnsupported, message));
        }
        self.take(need);
        Ok(())
    }

    /// Draws what a hot-plug needs in place of a function that goes for it, or says what is missing.
    pub(super) fn swap(
        &mut self,
        function: &Function,
        need: Need,
        limits: &Limits,
    ) -> Result<(), (Reason, String)> {
        let mut after = self.clone();
        after.slots = after.slots.saturating_add(1);
        if function.transitional {
            after.transitional = after.transitional.saturating_add(1);
        }
        if let Some(sf) = &function.sf {
            after.numbers.remove(&(sf.port, sf.number));
            if let Some(free) = after.sfs.get_mut(&sf.port) {
                *free = free.saturating_add(1);
            }
        }
        after.draw(need, limits)?;
        // What the function gives back is nobody else's before it is gone.
        let port = need.uplink.port();
        if function.sf.as_ref().is_none_or(|sf| sf.port != port)
            && let Some(free) = self.sfs.get_mut(&port)
        {
            *free = free.saturating_sub(1);
        }
        self.numbers.extend(need.sf_number.map(|number| (port, number)));
        if need.transitional && !function.transitional {
            self.transitional = self.transitional.saturating_sub(1);
        }
        Ok(())
    }

    fn take(&mut self, need: Need) {
        let port = need.uplink.port();
        self.slots = self.slots.saturating_sub(1);
        if let Some(free) = self.sfs.get_mut(&port) {
            *free = free.saturating_sub(1);
        }
        self.numbers.extend(need.sf_number.map(|number| (port, number)));
        if need.transitional {
            self.transitional = self.transitional.saturating_sub(1);
        }
    }
}

impl Need {
    /// What this function needs, if it is hot-plugged.
    pub(super) fn of(function: &WantedFunction, limits: &Limits) -> Option<Self> {
        let WantedFunction::HotPlug { uplink, transitional, sf_number, .. } = function else { return None };
        let uplink = uplink.unwrap_or_else(|| default_uplink(limits));
        Some(Self { uplink, transitional: *transitional, sf_number: *sf_number })
    }
}

/// The bond where the controller runs on one, else the first port.
fn default_uplink(limits: &Limits) -> Uplink {
    limits.uplinks.first().copied().unwrap_or_default()
}

/// Why no SF is to be had, with the setting that counts them. Without what changes while functions come and go, for this
/// is written into a status.
pub(super) fn sf_exhausted(port: EswitchPort, limits: &Limits) -> String {
    let sfs = limits.sfs.get(&port).copied().unwrap_or_default();
    let foreign = match sfs.foreign {
        0 => String::new(),
        count => format!(", {count} of it by other applications"),
    };
    format!(
        "PF_TOTAL_SF={} of {port} is spent{foreign}; delete a device on {port}, or raise it with mlxconfig and cold boot",
        sfs.total
    )
}

fn count<T>(items: impl Iterator<Item = T>) -> u16 {
    u16::try_from(items.count()).unwrap_or(u16::MAX)
}
