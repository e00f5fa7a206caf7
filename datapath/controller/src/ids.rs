//! How functions are named: indices, VUIDs, and the MACs that the controller makes itself.

use virtnet_model::{FunctionId, FunctionKind, Mac, PfId, VfId, Vuid};

use crate::Place;

/// How a function at this place came to be.
pub(crate) fn kind(place: Place) -> FunctionKind {
    match place {
        Place::Static(_) => FunctionKind::Static,
        Place::Slot(_) => FunctionKind::HotPlug,
        Place::Vf(..) => FunctionKind::Vf,
    }
}

/// The index in the device table. Slots are filled lowest first, so slot order is also the lowest free index above the
/// static PFs, and a restarted controller arrives at the same one. `None` above 1023.
pub(crate) fn function_id(place: Place, static_pfs: u16) -> Option<FunctionId> {
    match place {
        Place::Static(pf) => Some(FunctionId::pf(pf)),
        Place::Slot(slot) => PfId::try_from(u32::from(static_pfs) + u32::from(slot)).ok().map(FunctionId::pf),
        Place::Vf(pf, vf) => Some(FunctionId::vf(pf, vf)),
    }
}

/// The vendor unique id: static PFs are functions of device `S0D0`, each slot is a device of its own, and VFs count
/// from 1.
pub(crate) fn vuid(place: Place) -> Vuid {
    let text = match place {
        Place::Static(pf) => format!("VNETS0D0F{pf}"),
        Place::Slot(slot) => format!("VNETS{}D0F0", u32::from(slot) + 1),
        Place::Vf(pf, vf) => format!("VNETS0D0F{pf}VF{}", vf.get() + 1),
    };
    text.parse().unwrap_or_else(|_| unreachable!("at most 20 letters and digits: {text}"))
}

/// The `attempt`th candidate for the MAC of a VF that nobody gave one: `02` and 40 bits of a hash over the device's own
/// address and the VF's place, so that it is the same after every restart and differs between devices.
pub(crate) fn vf_mac(device: Mac, pf: PfId, vf: VfId, attempt: u16) -> Mac {
    // 64-bit FNV-1a: collisions are checked for by the caller, so it need only spread.
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let numbers = [pf.get(), vf.get(), attempt].into_iter().flat_map(u16::to_be_bytes);
    let hash = device
        .octets()
        .into_iter()
        .chain(numbers)
        .fold(OFFSET, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(PRIME));
    let [_, _, _, a, b, c, d, e] = (hash ^ hash >> 40).to_be_bytes();
    Mac::local([a, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn pf(index: u32) -> PfId {
        PfId::try_from(index).unwrap()
    }

    fn vf(index: u32) -> VfId {
        VfId::try_from(index).unwrap()
    }

    #[test]
    fn vuids_and_indices_are_the_guides() {
        let cases = [
            (Place::Static(pf(0)), "VNETS0D0F0", FunctionId::pf(pf(0))),
            (Place::Static(pf(3)), "VNETS0D0F3", FunctionId::pf(pf(3))),
            (Place::Slot(0), "VNETS1D0F0", FunctionId::pf(pf(4))),
            (Place::Slot(15), "VNETS16D0F0", FunctionId::pf(pf(19))),
            (Place::Vf(pf(2), vf(0)), "VNETS0D0F2VF1", FunctionId::vf(pf(2), vf(0))),
            (Place::Vf(pf(3), vf(125)), "VNETS0D0F3VF126", FunctionId::vf(pf(3), vf(125))),
        ];
        for (place, expected, id) in cases {
            assert_eq!(vuid(place).as_str(), expected);
            assert_eq!(function_id(place, 4), Some(id), "{place}");
        }
    }

    #[test]
    fn made_macs_are_local_stable_and_differ_by_place_and_device() {
        let devices: [Mac; 2] = ["00:11:22:33:44:55".parse().unwrap(), "00:11:22:33:44:65".parse().unwrap()];
        let mut seen = BTreeSet::new();
        for device in devices {
            for (pf_index, vf_index) in (0..4).flat_map(|pf| (0..126).map(move |vf| (pf, vf))) {
                let mac = vf_mac(device, pf(pf_index), vf(vf_index), 0);
                assert_eq!(mac.octets()[0], 0x02);
                assert_eq!(mac, vf_mac(device, pf(pf_index), vf(vf_index), 0));
                assert!(seen.insert(mac), "{mac} twice");
            }
        }
        assert_ne!(vf_mac(devices[0], pf(0), vf(0), 0), vf_mac(devices[0], pf(0), vf(0), 1));
    }
}
