//! Who holds which function and which MAC: every dispute between devices is decided here, by seniority.
//!
//! The device whose function is in service keeps it; else the older object wins, then the smaller uid. The same order
//! serves capacity.

use std::collections::{BTreeMap, BTreeSet};

use virtnet_model::{ControllerState, Function, FunctionId, FunctionKind, Mac};

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
    /// Functions that belong to a device.
    held: BTreeSet<FunctionId>,
}

impl<'a> Claims<'a> {
    /// Decides. Without a controller's state there are no functions to hold, but the disputes are the same.
    pub fn decide(devices: &'a BTreeMap<Uid, Device>, state: Option<&ControllerState>) -> Self {
        let mut order: Vec<_> = devices.values().collect();
        order.sort_by_key(|device| (!device.in_service(), device.created, device.uid.clone()));
        let mut claims = Self {
            order,
            functions: BTreeMap::new(),
            function_losers: BTreeMap::new(),
            mac_losers: BTreeMap::new(),
            held: BTreeSet::new(),
        };
        claims.decide_functions(state);
        claims.decide_macs(devices, state);
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

    /// Whether the function is some device's.
    pub fn is_declared(&self, function: FunctionId) -> bool {
        self.held.contains(&function)
    }

    fn decide_functions(&mut self, state: Option<&ControllerState>) {
        let by_mac: BTreeMap<Mac, &Function> = state
            .into_iter()
            .flat_map(|state| state.functions.values())
            .filter(|function| function.kind == FunctionKind::HotPlug)
            .map(|function| (function.mac, function))
            .collect();
        let mut places: BTreeMap<FunctionId, &Device> = BTreeMap::new();
        for device in self.order.iter().copied() {
            let id = match place(device) {
                Some(id) => {
                    if let Some(holder) = places.get(&id) {
                        self.function_losers.insert(device.uid.clone(), holder.key.clone());
                        continue;
                    }
                    places.insert(id, device);
                    let kind = if id.vf.is_some() { FunctionKind::Vf } else { FunctionKind::Static };
                    state
                        .and_then(|state| state.functions.get(&id))
                        .filter(|function| function.kind == kind)
                        .map(|function| function.id)
                }
                None => device
                    .hotplug_macs()
                    .filter_map(|mac| by_mac.get(&mac))
                    .find(|function| !self.held.contains(&function.id) && has_wanted_sf(device, function))
                    .map(|function| function.id),
            };
            if let Some(id) = id {
                self.held.insert(id);
                self.functions.insert(device.uid.clone(), id);
            }
        }
    }

    fn decide_macs(&mut self, devices: &BTreeMap<Uid, Device>, state: Option<&ControllerState>) {
        let holders: BTreeMap<FunctionId, &Uid> = self.functions.iter().map(|(uid, id)| (*id, uid)).collect();
        let mut taken: BTreeMap<Mac, (Option<&Uid>, String)> = BTreeMap::new();
        for function in state.into_iter().flat_map(|state| state.functions.values()) {
            let uid = holders.get(&function.id).copied();
            let name = match uid.and_then(|uid| devices.get(uid)) {
                Some(device) => device.key.to_string(),
                None => format!("{} ({}), which no object declares", function.vuid, function.id),
            };
            taken.insert(function.mac, (uid, name));
        }
        for device in self.order.iter().copied().filter(|device| !device.deleting) {
            let Some(mac) = device.wanted.as_ref().ok().and_then(|wanted| wanted.function.mac()) else {
                continue;
            };
            match taken.get(&mac) {
                Some((Some(uid), _)) if **uid == device.uid => {}
                Some((_, name)) => {
                    self.mac_losers.insert(device.uid.clone(), name.clone());
                }
                None => {
                    taken.insert(mac, (Some(&device.uid), device.key.to_string()));
                }
            }
        }
    }
}

/// The place in the device table that a static PF or a VF has by its declaration.
fn place(device: &Device) -> Option<FunctionId> {
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
