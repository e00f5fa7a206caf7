//! [`Macs`]: who of the fleet has which MAC, so that no device is bound to a DPU only to wait there for another that has its
//! MAC. Between devices that are bound, and in the end, their agents decide.

use std::collections::BTreeMap;

use crate::fleet::{Device, Target, Undeclared};

/// Who has or wants each MAC.
#[derive(Debug, Default)]
pub(super) struct Macs<'a>(BTreeMap<&'a str, Vec<Bearer<'a>>>);

/// One that has a MAC, or may come to have it.
#[derive(Clone, Copy, Debug)]
enum Bearer<'a> {
    Device(&'a Device),
    /// A function that no object declares, and its DPU.
    Undeclared(&'a Undeclared, &'a str),
}

/// What the MAC of a device means for where it can go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict<'a> {
    /// Nothing.
    Free,
    /// A function with this MAC is on this DPU, and no object declares it: there the device adopts it.
    Only(&'a str),
    /// Another has it.
    Claimed(String),
}

impl<'a> Macs<'a> {
    pub(super) fn of(devices: &'a BTreeMap<String, Device>, dpus: &'a BTreeMap<String, Target>) -> Self {
        let mut macs: BTreeMap<&str, Vec<Bearer<'a>>> = BTreeMap::new();
        for device in devices.values() {
            for mac in device.macs.iter().chain(&device.wanted_mac) {
                macs.entry(mac).or_default().push(Bearer::Device(device));
            }
        }
        for target in dpus.values() {
            for function in target.reported.iter().flat_map(|reported| &reported.undeclared) {
                if let Some(mac) = &function.mac {
                    let bearer = Bearer::Undeclared(function, target.name());
                    macs.entry(mac).or_default().push(bearer);
                }
            }
        }
        Self(macs)
    }

    /// What the MAC that a device without a DPU declares means for it; `may_go`: whether it may go to a DPU.
    pub(super) fn verdict(&self, device: &Device, may_go: impl Fn(&str) -> bool) -> Verdict<'a> {
        let Some(mac) = &device.wanted_mac else { return Verdict::Free };
        let bearers = self.0.get(mac.as_str()).into_iter().flatten();
        let mut verdict = Verdict::Free;
        for bearer in bearers {
            match *bearer {
                Bearer::Device(other) if !yields(other, device, mac) => {
                    let on = other.dpu().map(|dpu| format!(" on {dpu}")).unwrap_or_default();
                    return Verdict::Claimed(claimed(mac, &format!("{}{on}", other.key())));
                }
                Bearer::Device(_) => {}
                Bearer::Undeclared(function, dpu) if device.need.is(function) && may_go(dpu) => {
                    verdict = Verdict::Only(dpu);
                }
                Bearer::Undeclared(Undeclared { vuid, .. }, dpu) => {
                    return Verdict::Claimed(claimed(
                        mac,
                        &format!("{vuid} of {dpu}, which no object declares"),
                    ));
                }
            }
        }
        verdict
    }
}

/// Whether the other leaves the MAC to the device, or is that device.
fn yields(other: &Device, device: &Device, mac: &str) -> bool {
    let has = other.macs.iter().any(|theirs| theirs == mac);
    let is_first = other.dpu().is_some() || other.seniority() < device.seniority();
    other.uid() == device.uid() || !has && (other.is_deleting() || !is_first)
}

fn claimed(mac: &str, holder: &str) -> String {
    format!("MAC {mac} is that of {holder}; choose another, or delete that one")
}
