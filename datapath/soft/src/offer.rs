//! Which features a function offers, and what those that were accepted mean for its packets.

use virtnet_model::{Feature, Features};

use Feature::{
    AnyLayout, Csum, CtrlGuestOffloads, CtrlMacAddr, CtrlRx, CtrlRxExtra, CtrlVlan, CtrlVq, EventIdx,
    GuestCsum, GuestEcn, GuestTso4, GuestTso6, GuestUso4, GuestUso6, HostEcn, HostTso4, HostTso6, HostUso,
    InOrder, IndirectDesc, Mac, Mq, MrgRxbuf, Mtu, Status, Version1,
};

/// What the switch behind the representor can pass on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carries {
    /// Packets with partial checksums, and those that are to be segmented. Open vSwitch's userspace datapath does with
    /// `other_config:userspace-tso-enable=true`, set before it began, and spoils or drops them without.
    pub offloads: bool,
}

/// What is offered only where the switch carries it.
const OFFLOADS: &[Feature] = &[
    Csum,
    GuestCsum,
    GuestTso4,
    GuestTso6,
    GuestEcn,
    GuestUso4,
    GuestUso6,
    HostTso4,
    HostTso6,
    HostEcn,
    HostUso,
    CtrlGuestOffloads,
];
/// The rest of what a function in software can do. Those of the control queue are the front end's to carry out: it has that
/// queue.
const OTHERS: &[Feature] = &[
    Mtu,
    Mac,
    MrgRxbuf,
    Status,
    CtrlVq,
    CtrlRx,
    CtrlVlan,
    CtrlRxExtra,
    Mq,
    CtrlMacAddr,
    AnyLayout,
    IndirectDesc,
    EventIdx,
    Version1,
    InOrder,
];

/// Every feature that a function in software can offer over such a switch.
pub fn supported(carries: Carries) -> Features {
    let offloads = OFFLOADS.iter().filter(|_| carries.offloads);
    OTHERS.iter().chain(offloads).copied().collect()
}

/// What a function with these settings offers over such a switch: no more than the settings say. What needs a feature that is
/// left out is left out too (virtio 1.2, section 5.1.3.1).
pub fn offered(settings: &Features, carries: Carries) -> Features {
    let supported = supported(carries);
    let mut offered: Features = settings.iter().filter(|feature| supported.contains(*feature)).collect();
    loop {
        let met = |feature: &Feature| {
            feature.needs().iter().all(|group| group.iter().any(|needed| offered.contains(*needed)))
        };
        let kept: Features = offered.iter().filter(met).collect();
        if kept == offered {
            return offered;
        }
        offered = kept;
    }
}

/// Queue pairs of a function with this many virtqueues (virtio 1.2, section 5.1.2): one where several were not offered.
pub fn queue_pairs(max_queues: u16, offered: &Features) -> u16 {
    let data = max_queues - u16::from(offered.contains(CtrlVq)).min(max_queues);
    if offered.contains(Mq) { (data / 2).clamp(1, MAX_PAIRS) } else { 1 }
}

/// Queue pairs that a function can have: vhost-user tells queues by eight bits.
pub const MAX_PAIRS: u16 = 127;

/// The features that were accepted, in the form that each packet asks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted(pub(crate) u64);

impl Accepted {
    pub(crate) fn has(self, feature: Feature) -> bool {
        self.0 >> feature.bit() & 1 == 1
    }

    /// Bytes of the virtio-net header: legacy drivers that don't merge buffers have no `num_buffers` in theirs (virtio 1.2,
    /// section 5.1.6.1).
    pub(crate) fn header(self) -> usize {
        if self.has(Version1) || self.has(MrgRxbuf) { 12 } else { 10 }
    }

    /// What the TAP may hand to the driver, as the `TUN_F_` bits of TUNSETOFFLOAD (linux/if_tun.h). What it may not, the
    /// kernel does before.
    pub(crate) fn tap_offloads(self) -> libc::c_uint {
        const TUN_F_USO4: libc::c_uint = 0x20;
        const TUN_F_USO6: libc::c_uint = 0x40;
        if !self.has(GuestCsum) {
            return 0;
        }
        let pairs =
            [(GuestTso4, libc::TUN_F_TSO4), (GuestTso6, libc::TUN_F_TSO6), (GuestEcn, libc::TUN_F_TSO_ECN)];
        // The kernel takes these two together or not at all.
        let uso = self.has(GuestUso4) && self.has(GuestUso6);
        pairs
            .iter()
            .filter(|(feature, _)| self.has(*feature))
            .fold(libc::TUN_F_CSUM, |all, (_, bit)| all | bit)
            | if uso { TUN_F_USO4 | TUN_F_USO6 } else { 0 }
    }

    /// Whether the driver takes packets that are larger than the MTU.
    pub(crate) fn takes_large(self) -> bool {
        [GuestTso4, GuestTso6, GuestUso4, GuestUso6].into_iter().any(|feature| self.has(feature))
    }

    /// Whether the driver may send a packet with these fields of its header (virtio 1.2, section 5.1.6.2).
    #[inline]
    pub(crate) fn may_send(self, flags: u8, gso_type: u8) -> bool {
        const ECN: u8 = 0x80;
        if flags & 1 == 0 && gso_type == 0 {
            return true;
        }
        let kind = match gso_type & !ECN {
            0 => Csum,
            1 => HostTso4,
            4 => HostTso6,
            5 => HostUso,
            _ => return false,
        };
        self.has(Csum) && self.has(kind) && (gso_type & ECN == 0 || self.has(HostEcn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TSO: Carries = Carries { offloads: true };
    const PLAIN: Carries = Carries { offloads: false };

    #[test]
    fn a_function_offers_what_settings_say_and_the_switch_carries() {
        let settings = Features::controller_default();
        assert_eq!(offered(&settings, TSO), settings);
        let plain = offered(&settings, PLAIN);
        assert_eq!(plain.to_string(), "MTU,MAC,MRG_RXBUF,STATUS,CTRL_VQ,CTRL_RX,MQ,CTRL_MAC_ADDR,VERSION_1");
        let unable = settings.with(Feature::RingPacked, true).with(CtrlVq, false);
        let kept = offered(&unable, TSO);
        assert!(!kept.contains(Feature::RingPacked), "there are no packed rings here");
        assert!(!kept.contains(Mq), "it needs the control queue");
    }

    #[test]
    fn the_kernel_is_asked_for_what_it_can_be() {
        let accepted =
            |features: &[Feature]| Accepted(features.iter().fold(0, |all, one| all | 1 << one.bit()));
        assert_eq!(accepted(&[GuestTso4]).tap_offloads(), 0, "nothing without checksums");
        assert_eq!(accepted(&[GuestCsum, GuestUso4]).tap_offloads(), libc::TUN_F_CSUM);
        let both = accepted(&[GuestCsum, GuestUso4, GuestUso6]).tap_offloads();
        assert_eq!(both, libc::TUN_F_CSUM | 0x60);
    }

    #[test]
    fn pairs_follow_from_virtqueues() {
        let several = Features::controller_default();
        let pairs = [0, 1, 2, 3, 4, 5, 9, 1000].map(|queues| queue_pairs(queues, &several));
        assert_eq!(pairs, [1, 1, 1, 1, 1, 2, 4, MAX_PAIRS]);
        assert_eq!(queue_pairs(9, &several.clone().with(Mq, false)), 1);
        assert_eq!(queue_pairs(8, &several.with(CtrlVq, false)), 4);
    }

    fn accepted(features: &[Feature]) -> Accepted {
        Accepted(features.iter().copied().collect::<Features>().bits())
    }

    #[test]
    fn packets_may_use_what_was_accepted() {
        let all = accepted(&[Csum, HostTso4, Version1]);
        assert!(all.may_send(0, 0) && all.may_send(1, 0) && all.may_send(1, 1));
        assert!(!all.may_send(1, 4) && !all.may_send(1, 0x81) && !all.may_send(1, 77));
        let none = accepted(&[Version1]);
        assert!(none.may_send(0, 0) && !none.may_send(1, 0) && !none.may_send(0, 1));
        assert_eq!((all.header(), accepted(&[]).header(), accepted(&[MrgRxbuf]).header()), (12, 10, 12));
        assert_eq!(accepted(&[GuestTso4]).tap_offloads(), 0, "none without the checksum");
        assert_eq!(accepted(&[GuestCsum, GuestTso4]).tap_offloads(), 3);
    }
}
