//! What QEMU's `virtio-net-pci` calls each feature of virtio (QEMU's `hw/net/virtio-net.c` and `hw/virtio/virtio.h`, as
//! `-device virtio-net-pci,help` lists them).

use serde_json::{Map, Value};
use virtnet_model::{Feature, Features};

/// How a feature is had.
enum Property {
    /// By a property that is on unless it is set.
    On(&'static str),
    /// By one that is off unless it is set, and that older versions may lack: it is set only where it is wanted.
    Off(&'static str),
    /// By nothing of its own: other settings bring it.
    Implied,
    /// Not at all.
    Absent,
}

fn property(feature: Feature) -> Property {
    use Feature::*;
    match feature {
        Csum => Property::On("csum"),
        GuestCsum => Property::On("guest_csum"),
        CtrlGuestOffloads => Property::On("ctrl_guest_offloads"),
        GuestTso4 => Property::On("guest_tso4"),
        GuestTso6 => Property::On("guest_tso6"),
        GuestEcn => Property::On("guest_ecn"),
        GuestUfo => Property::On("guest_ufo"),
        HostTso4 => Property::On("host_tso4"),
        HostTso6 => Property::On("host_tso6"),
        HostEcn => Property::On("host_ecn"),
        HostUfo => Property::On("host_ufo"),
        MrgRxbuf => Property::On("mrg_rxbuf"),
        Status => Property::On("status"),
        CtrlVq => Property::On("ctrl_vq"),
        CtrlRx => Property::On("ctrl_rx"),
        CtrlVlan => Property::On("ctrl_vlan"),
        CtrlRxExtra => Property::On("ctrl_rx_extra"),
        GuestAnnounce => Property::On("guest_announce"),
        CtrlMacAddr => Property::On("ctrl_mac_addr"),
        NotifyOnEmpty => Property::On("notify_on_empty"),
        AnyLayout => Property::On("any_layout"),
        IndirectDesc => Property::On("indirect_desc"),
        EventIdx => Property::On("event_idx"),
        RingReset => Property::On("queue_reset"),
        GuestUso4 => Property::On("guest_uso4"),
        GuestUso6 => Property::On("guest_uso6"),
        HostUso => Property::On("host_uso"),
        AccessPlatform => Property::Off("iommu_platform"),
        RingPacked => Property::Off("packed"),
        InOrder => Property::Off("in_order"),
        HashReport => Property::Off("hash"),
        Rss => Property::Off("rss"),
        RscExt => Property::Off("guest_rsc_ext"),
        // `host_mtu`, `mac`, `mq` beside the number of queues, `disable-modern`.
        Mtu | Mac | Mq | Version1 => Property::Implied,
        OrderPlatform | SrIov | NotificationData | NotifConfigData | AdminVq | DeviceStats | HashTunnel
        | VqNotfCoal | NotfCoal | GuestHdrlen | Standby | SpeedDuplex => Property::Absent,
    }
}

/// The features that no QEMU can be told to offer.
pub(crate) fn absent(features: &Features) -> Features {
    features.iter().filter(|feature| matches!(property(*feature), Property::Absent)).collect()
}

/// Sets the properties by which a device offers these features and no others. What the back end lacks it does not offer all the
/// same.
pub(crate) fn set(features: &Features, properties: &mut Map<String, Value>) {
    for feature in Feature::ALL {
        let wanted = features.contains(*feature);
        match property(*feature) {
            Property::On(name) => {
                properties.insert(name.to_owned(), wanted.into());
            }
            Property::Off(name) if wanted => {
                properties.insert(name.to_owned(), true.into());
            }
            Property::Off(_) | Property::Implied | Property::Absent => {}
        }
    }
}

/// The features that a device offers whose properties have these values, as far as its back end has them too.
pub(crate) fn of(properties: &Map<String, Value>) -> Features {
    let is_on = |name: &str| properties.get(name).and_then(Value::as_bool) == Some(true);
    let offered = |feature: &Feature| match (property(*feature), feature) {
        (Property::On(name) | Property::Off(name), _) => is_on(name),
        (Property::Implied, Feature::Mtu) => {
            properties.get("host_mtu").and_then(Value::as_u64).is_some_and(|mtu| mtu > 0)
        }
        (Property::Implied, Feature::Mq) => is_on("mq"),
        (Property::Implied, Feature::Version1) => !is_on("disable-modern"),
        (Property::Implied, _) => true,
        (Property::Absent, _) => false,
    };
    Feature::ALL.iter().filter(|feature| offered(feature)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_is_said_to_be_on_or_off_and_those_of_later_versions_only_on() {
        let mut properties = Map::new();
        set(&[Feature::Csum, Feature::RingPacked].into_iter().collect(), &mut properties);
        assert_eq!(properties["csum"], true);
        assert_eq!(properties["host_tso4"], false);
        assert_eq!(properties["packed"], true);
        assert!(!properties.contains_key("in_order"));
    }

    #[test]
    fn what_was_set_is_what_is_read() {
        let features = Features::controller_default().with(Feature::RingPacked, true);
        let mut properties = Map::new();
        set(&features, &mut properties);
        properties.extend([("host_mtu".to_owned(), 1500.into()), ("mq".to_owned(), true.into())]);
        assert_eq!(of(&properties), features);
        properties.extend([("host_mtu".to_owned(), 0.into()), ("mq".to_owned(), false.into())]);
        assert_eq!(of(&properties), features.with(Feature::Mtu, false).with(Feature::Mq, false));
    }

    #[test]
    fn the_default_of_the_controller_can_be_had() {
        assert_eq!(absent(&Features::controller_default()), Features::default());
        let wanted: Features = [Feature::AdminVq, Feature::Mq].into_iter().collect();
        assert_eq!(absent(&wanted).to_string(), "ADMIN_VQ");
    }
}
