//! [`Room`]: what a DPU has left, by what its agent reported and by what is bound to it already.

use std::collections::{BTreeMap, BTreeSet};

use virtnet_crds::{FunctionType, Port};

use crate::fleet::{Device, Need, Reported, Target};

/// What is left of a DPU.
///
/// The agent's report may be older than the devices that were bound since, and these may be older than the report. So what is in
/// use is counted in two ways, by what was reported and by what is declared or was reported as undeclared, and the higher
/// one counts. Of SFs other applications have some, which only the report has: so there what is yet to be made is added.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Why nothing can be bound to it.
    closed: Option<String>,
    slots: Count,
    sfs: BTreeMap<Port, Count>,
    /// How many VFs each static PF may have, and how many it has.
    pfs: BTreeMap<u16, (u32, u32)>,
    /// The most MSI-X vectors of one function.
    msix: u32,
    /// SF numbers that are in use or wanted.
    numbers: BTreeSet<(Port, u32)>,
    /// Static PFs and VFs that are declared, each with who declares it.
    declared: BTreeMap<(u16, Option<u16>), String>,
    /// How many devices are bound to it.
    bound: u32,
}

/// Something that can be counted.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    total: u32,
    /// What the agent reported to be in use.
    reported: u32,
    /// What devices without a function will take.
    to_come: u32,
    /// What declared and undeclared functions take.
    known: u32,
}

impl Count {
    fn free(&self) -> u32 {
        self.total.saturating_sub((self.reported + self.to_come).max(self.known))
    }
}

/// How well a device fits: the more the better. First what is scarce, then SFs.
pub(super) type Fit = (i64, u32);

impl Room {
    /// What is left of a DPU that nothing is bound to.
    pub(super) fn of(target: &Target) -> Self {
        let mut room = Self::default();
        let Some(reported) = &target.reported else {
            room.closed = Some("its agent has not reported what it has".to_owned());
            return room;
        };
        if target.metadata.deletion_timestamp.is_some() {
            room.closed = Some("it is being deleted".to_owned());
        } else if let Some(trouble) = target.trouble {
            room.closed = Some(trouble.to_owned());
        }
        let Reported { capacity, allocated, undeclared, controller: _ } = reported;
        room.slots =
            Count { total: capacity.hotplug_slots, reported: allocated.hotplug_slots, ..Count::default() };
        let on = |sfs: &[virtnet_crds::PortSfs], port| {
            sfs.iter().find(|sfs| sfs.port == port).map_or(0, |sfs| sfs.count)
        };
        for sfs in &capacity.sfs {
            let count =
                Count { total: sfs.count, reported: on(&allocated.sfs, sfs.port), ..Count::default() };
            room.sfs.insert(sfs.port, count);
        }
        for vfs in &capacity.vfs {
            let made = allocated.vfs.iter().find(|made| made.pf == vfs.pf).map_or(0, |made| made.count);
            room.pfs.insert(vfs.pf, (vfs.count, made));
        }
        room.msix = capacity.msix;
        for function in undeclared {
            if function.type_ == FunctionType::HotPlug {
                room.slots.known += 1;
            }
            room.know_sf(function.representor.as_deref());
        }
        room
    }

    /// A device is bound to it.
    pub(super) fn take(&mut self, device: &Device) {
        self.bound += 1;
        match &device.need {
            // It will never take any, or not before a person has changed it.
            _ if !device.has_function && (device.is_deleting() || device.is_stalled) => {}
            Need::HotPlug { port, sf_number } => {
                self.slots.known += 1;
                self.numbers.extend(sf_number.map(|number| (*port, number)));
                match &device.representor {
                    Some(name) => self.know_sf(Some(name)),
                    None => self.want_sf(*port),
                }
            }
            Need::Static { pf } => {
                self.declared.entry((*pf, None)).or_insert_with(|| device.key());
                self.know_sf(device.representor.as_deref());
            }
            Need::Vf { pf, vf } => {
                self.declared.entry((*pf, Some(*vf))).or_insert_with(|| device.key());
                match &device.representor {
                    Some(name) => self.know_sf(Some(name)),
                    None if self.is_made(*pf, *vf) => {}
                    None => self.want_sf(Port::P0),
                }
            }
        }
    }

    /// Why nothing can be bound to it; `None`: something can.
    pub(super) fn closed(&self) -> Option<&str> {
        self.closed.as_deref()
    }

    /// How well the device fits, or what stands in the way.
    pub(super) fn fit(&self, device: &Device) -> Result<Fit, String> {
        if let Some(why) = &self.closed {
            return Err(why.clone());
        }
        // Of a VF's the DPU does not report the most.
        let is_vf = matches!(device.need, Need::Vf { .. });
        if let Some(msix) = device.spec.msix.map(u32::from).filter(|msix| *msix > self.msix && !is_vf) {
            return Err(format!("a function has {} MSI-X vectors at most, not {msix}", self.msix));
        }
        match &device.need {
            Need::HotPlug { port, sf_number } => {
                let slots = self.slots.free();
                if slots == 0 {
                    return Err(format!("0 of {} slots free", self.slots.total));
                }
                let sfs = self.free_sf(*port)?;
                if let Some(number) = sf_number.filter(|number| self.numbers.contains(&(*port, *number))) {
                    return Err(format!("SF {number} of {} is in use", name(*port)));
                }
                Ok((i64::from(slots), sfs))
            }
            Need::Static { pf } => {
                self.pf(*pf)?;
                self.undeclared(*pf, None)?;
                Ok((-i64::from(self.bound), 0))
            }
            Need::Vf { pf, vf } => {
                let (most, _) = self.pf(*pf)?;
                if u32::from(*vf) >= most {
                    return Err(format!("PF {pf} has {most} VFs at most"));
                }
                self.undeclared(*pf, Some(*vf))?;
                let sfs = if self.is_made(*pf, *vf) { 0 } else { self.free_sf(Port::P0)? };
                Ok((-i64::from(self.bound), sfs))
            }
        }
    }

    fn pf(&self, pf: u16) -> Result<(u32, u32), String> {
        self.pfs.get(&pf).copied().ok_or_else(|| format!("it has no static PF {pf}"))
    }

    fn is_made(&self, pf: u16, vf: u16) -> bool {
        self.pfs.get(&pf).is_some_and(|(_, made)| u32::from(vf) < *made)
    }

    fn undeclared(&self, pf: u16, vf: Option<u16>) -> Result<(), String> {
        match (self.declared.get(&(pf, vf)), vf) {
            (None, _) => Ok(()),
            (Some(by), None) => Err(format!("{by} declares static PF {pf}")),
            (Some(by), Some(vf)) => Err(format!("{by} declares VF {vf} of PF {pf}")),
        }
    }

    fn free_sf(&self, port: Port) -> Result<u32, String> {
        match self.sfs.get(&port).map(Count::free) {
            None => Err(format!("it has no {}", name(port))),
            Some(0) => Err(format!("PF_TOTAL_SF of {} is spent", name(port))),
            Some(free) => Ok(free),
        }
    }

    /// An SF that a function has, by its representor.
    fn know_sf(&mut self, representor: Option<&str>) {
        let Some((port, number)) = representor.and_then(sf_of) else { return };
        self.numbers.insert((port, number));
        if let Some(sfs) = self.sfs.get_mut(&port) {
            sfs.known += 1;
        }
    }

    /// An SF that a function will have.
    fn want_sf(&mut self, port: Port) {
        if let Some(sfs) = self.sfs.get_mut(&port) {
            sfs.known += 1;
            sfs.to_come += 1;
        }
    }
}

fn name(port: Port) -> &'static str {
    match port {
        Port::P0 => "p0",
        Port::P1 => "p1",
    }
}

/// The SF whose representor has this name, such as `en3f0pf0sf2000` (the guide, section 1.1).
fn sf_of(representor: &str) -> Option<(Port, u32)> {
    let (port, number) = representor.rsplit_once("sf")?;
    let port = match port {
        "en3f0pf0" => Port::P0,
        "en3f1pf1" => Port::P1,
        _ => return None,
    };
    Some((port, number.parse().ok()?))
}
