//! Who holds which function and which MAC: every dispute between devices is decided here, by seniority.
//!
//! The device whose function is in service keeps it; else the older object wins, then the smaller uid. The same order
//! serves capacity. A MAC is kept by who bears it or has it handed over for a VF to come, then by who noted it; service
//! with another MAC counts for nothing.

use std::collections::{BTreeMap, BTreeSet};

use virtnet_model::{ControllerState, Function, FunctionId, FunctionKind, Mac};

use super::Part;
use crate::desired::{Device, DeviceKey, Uid, Wanted, WantedFunction};

/// The outcome for all devices.
#[derive(Debug)]
pub struct Claims<'a> {
    /// The devices, most senior first.
    pub order: Vec<&'a Device>,
    /// The function of each device that has one.
    functions: BTreeMap<Uid, FunctionId>,
    /// Devices whose function is another's, with that other.
    function_losers: BTreeMap<Uid, DeviceKey>,
    /// Devices that can't have the MAC they want, with who has it.
    mac_losers: BTreeMap<Uid, String>,
    /// The devices that functions belong to.
    held: BTreeMap<FunctionId, Uid>,
}

/// Why a hot-plugged function is taken for a device's.
#[derive(Clone, Copy, Debug)]
enum Evidence {
    /// Its status tells of this VUID, MAC and SF.
    Reported,
    /// It wants the function's MAC and noted it before the call that gave it.
    NotedAndWanted,
    /// Its status tells of the MAC.
    ReportedMac,
    /// It noted the MAC.
    Noted,
    /// It wants the MAC. A function that no other device has is so taken on, but not to be removed.
    Wanted,
}

impl Evidence {
    /// Weaker evidence counts only for functions that no device has by stronger: what a device once bore may be another's
    /// by now.
    const STRONGEST_FIRST: [Self; 5] =
        [Self::Reported, Self::NotedAndWanted, Self::ReportedMac, Self::Noted, Self::Wanted];

    fn speaks_for(self, device: &Device, function: &Function) -> bool {
        let wanted = device.wanted_hotplug_mac() == Some(function.mac);
        let noted = device.macs.contains(&function.mac);
        let reported = device.known.as_ref().filter(|known| known.hotplug_mac == Some(function.mac));
        has_wanted_sf(device, function)
            && match self {
                Self::Reported => reported.is_some_and(|known| {
                    let sf = function.sf.as_ref().map(|sf| sf.number);
                    known.vuid.as_ref() == Some(&function.vuid) && known.sf.is_some() && known.sf == sf
                }),
                Self::NotedAndWanted => noted && wanted,
                Self::ReportedMac => reported.is_some(),
                Self::Noted => noted,
                Self::Wanted => wanted && !device.deleting,
            }
    }
}

impl<'a> Claims<'a> {
    /// Decides. Without a controller's state there are no functions to hold, but the disputes are the same.
    pub fn decide(
        devices: &'a BTreeMap<Uid, Device>,
        state: Option<&ControllerState>,
        busy: &BTreeSet<(Uid, Part)>,
    ) -> Self {
        let mut order: Vec<_> = devices.values().collect();
        order.sort_by_key(|device| (!device.in_service(), device.created, device.uid.clone()));
        let mut claims = Self {
            order,
            functions: BTreeMap::new(),
            function_losers: BTreeMap::new(),
            mac_losers: BTreeMap::new(),
            held: BTreeMap::new(),
        };
        claims.decide_places(state);
        claims.decide_hotplugged(state, busy);
        claims.decide_macs(state);
        claims
    }

    /// The device's function.
    pub fn function<'s>(&self, device: &Device, state: &'s ControllerState) -> Option<&'s Function> {
        state.functions.get(self.functions.get(&device.uid)?)
    }

    /// Who has the function that this device wants, if it is another.
    pub fn function_claimed_by(&self, device: &Device) -> Option<&DeviceKey> {
        self.function_losers.get(&device.uid)
    }

    /// Who has the MAC that this device wants, if it is another.
    pub fn mac_claimed_by(&self, device: &Device) -> Option<&str> {
        self.mac_losers.get(&device.uid).map(String::as_str)
    }

    /// Whose the function is.
    pub fn holder(&self, function: FunctionId) -> Option<&Uid> {
        self.held.get(&function)
    }

    fn hold(&mut self, device: &Device, function: FunctionId) {
        self.held.insert(function, device.uid.clone());
        self.functions.insert(device.uid.clone(), function);
    }

    /// The devices that may have anything, most senior first.
    fn claimants(&self) -> Vec<&'a Device> {
        self.order.iter().copied().filter(|device| !device.is_released()).collect()
    }

    /// Static PFs and VFs: the place in the device table is the identity.
    fn decide_places(&mut self, state: Option<&ControllerState>) {
        let mut places: BTreeMap<FunctionId, &Device> = BTreeMap::new();
        for device in self.claimants() {
            let Some(id) = place(device) else { continue };
            if let Some(holder) = places.get(&id) {
                self.function_losers.insert(device.uid.clone(), holder.key.clone());
                continue;
            }
            places.insert(id, device);
            let kind = if id.vf.is_some() { FunctionKind::Vf } else { FunctionKind::Static };
            let found = state.and_then(|state| state.functions.get(&id));
            if found.is_some_and(|function| function.kind == kind) {
                self.hold(device, id);
            }
        }
    }

    /// Hot-plugged functions: the MAC is the identity. Nothing keeps two functions from bearing one.
    fn decide_hotplugged(&mut self, state: Option<&ControllerState>, busy: &BTreeSet<(Uid, Part)>) {
        let mut by_mac: BTreeMap<Mac, Vec<&Function>> = BTreeMap::new();
        for function in state.into_iter().flat_map(|state| state.functions.values()) {
            if function.kind == FunctionKind::HotPlug {
                by_mac.entry(function.mac).or_default().push(function);
            }
        }
        for evidence in Evidence::STRONGEST_FIRST {
            for device in self.claimants() {
                if place(device).is_some() || self.functions.contains_key(&device.uid) {
                    continue;
                }
                // Its own is about to appear, under a MAC that it wanted when that was asked for.
                let expects_its_own = busy.contains(&(device.uid.clone(), Part::Function));
                if matches!(evidence, Evidence::Wanted) && expects_its_own {
                    continue;
                }
                let found = device
                    .hotplug_macs()
                    .filter_map(|mac| by_mac.get(&mac))
                    .flatten()
                    .find(|function| {
                        !self.held.contains_key(&function.id) && evidence.speaks_for(device, function)
                    })
                    .map(|function| function.id);
                if let Some(id) = found {
                    self.hold(device, id);
                }
            }
        }
    }

    fn decide_macs(&mut self, state: Option<&ControllerState>) {
        let mut taken: BTreeMap<Mac, (Option<&Uid>, String)> = BTreeMap::new();
        let devices = self.claimants();
        let undeclared = |what: String| (None, format!("{what}, which no object declares"));
        for device in &devices {
            if let Some(function) = state.and_then(|state| self.function(device, state)) {
                taken.entry(function.mac).or_insert((Some(&device.uid), device.key.to_string()));
            }
        }
        for function in state.into_iter().flat_map(|state| state.functions.values()) {
            let name = || format!("{} ({})", function.vuid, function.id);
            taken.entry(function.mac).or_insert_with(|| undeclared(name()));
        }
        // The controller gives nobody else a MAC that it keeps for a VF to come.
        for ((pf, vf), change) in state.into_iter().flat_map(|state| &state.prepared) {
            let id = FunctionId::vf(*pf, *vf);
            let holder = devices.iter().find(|device| place(device) == Some(id));
            if let Some(mac) = change.mac {
                taken.entry(mac).or_insert_with(|| match holder {
                    Some(device) => (Some(&device.uid), device.key.to_string()),
                    None => undeclared(format!("the settings kept for {id}")),
                });
            }
        }
        // Next who noted the MAC it wants; then those whose MAC is being edited or who are being deleted, for as long as the
        // object tells of it: its function may yet come to bear it, or another's would be taken for it. Then the oldest.
        let mut wishes: Vec<(u8, &Device, Mac)> = Vec::new();
        for device in devices {
            let wanted = device.wanted_mac().filter(|_| !device.deleting);
            wishes.extend(wanted.map(|mac| (if device.macs.contains(&mac) { 0 } else { 2 }, device, mac)));
            let former = device.told_macs().filter(|mac| place(device).is_none() && Some(*mac) != wanted);
            wishes.extend(former.map(|mac| (1, device, mac)));
        }
        wishes.sort_by_key(|(rank, device, _)| (*rank, device.created, &device.uid));
        let mut losers = BTreeMap::new();
        for (rank, device, mac) in wishes {
            let (uid, name) = taken.entry(mac).or_insert((Some(&device.uid), device.key.to_string()));
            if *uid != Some(&device.uid) && rank != 1 {
                losers.insert(device.uid.clone(), name.clone());
            }
        }
        self.mac_losers = losers;
    }
}

/// The place in the device table that a static PF or a VF has by its declaration.
pub(super) fn place(device: &Device) -> Option<FunctionId> {
    match &device.wanted {
        Ok(Wanted { function: WantedFunction::Static { pf, .. }, .. }) => Some(FunctionId::pf(*pf)),
        Ok(Wanted { function: WantedFunction::Vf { pf, vf, .. }, .. }) => Some(FunctionId::vf(*pf, *vf)),
        Ok(Wanted { function: WantedFunction::HotPlug { .. }, .. }) | Err(_) => None,
    }
}

/// Where the SF number is part of the identity it must agree too.
fn has_wanted_sf(device: &Device, function: &Function) -> bool {
    match &device.wanted {
        Ok(Wanted { function: WantedFunction::HotPlug { sf_number: Some(wanted), .. }, .. }) => {
            function.sf.as_ref().map(|sf| sf.number) == Some(*wanted)
        }
        Ok(_) | Err(_) => true,
    }
}
