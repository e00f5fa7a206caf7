//! A link message of rtnetlink(7) as a [`Link`].

use std::collections::BTreeSet;

use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Prop};
use virtnet_model::{IfName, Link, Mac, phys_port_name_of};

/// Which netdevs can be representors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Representors {
    /// Those that the driver gives a `phys_port_name`.
    OfDriver,
    /// TAPs too: there is no hardware, and a TAP of a representor's name stands for it.
    Taps,
}

/// The name and the state of a netdev. `None`: its name is none that an interface of ours could have.
pub(crate) fn read(message: &LinkMessage, representors: Representors) -> Option<(IfName, Link)> {
    let mut name: Option<IfName> = None;
    let mut is_tap = false;
    let mut link = Link {
        up: message.header.flags.contains(LinkFlags::Up),
        index: message.header.index,
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = text.parse().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            // A bridge or a tunnel may have one that is no unicast address of 48 bits.
            LinkAttribute::Address(octets) => {
                link.address =
                    <[u8; 6]>::try_from(octets.as_slice()).ok().and_then(|octets| Mac::new(octets).ok());
            }
            LinkAttribute::Promiscuity(count) => link.promiscuity = Some(*count),
            LinkAttribute::PhysPortName(text) => link.phys_port_name = Some(text.clone()),
            LinkAttribute::PhysSwitchId(id) => {
                link.phys_switch_id = id.id.get(..id.len).map(hex);
            }
            LinkAttribute::LinkInfo(infos) => is_tap = infos.contains(&LinkInfo::Kind(InfoKind::Tun)),
            LinkAttribute::PropList(props) => {
                let names = props.iter().filter_map(|prop| match prop {
                    Prop::AltIfName(name) => Some(name.clone()),
                    _ => None,
                });
                link.alternative_names = names.collect::<BTreeSet<_>>();
            }
            _ => {}
        }
    }
    let name = name?;
    if is_tap && representors == Representors::Taps && link.phys_port_name.is_none() {
        link.phys_port_name = phys_port_name_of(&name);
    }
    Some((name, link))
}

/// As the kernel prints it in sysfs.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes bytes for a message of the kernel, and says whether they were one of a link.
#[doc(hidden)]
pub fn receive(bytes: &[u8]) -> bool {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).map(|message| message.payload) {
        Ok(rtnetlink::packet_core::NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message),
        )) => read(&message, Representors::Taps).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read() {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = LinkFlags::Up | LinkFlags::Running;
        message.attributes = vec![
            LinkAttribute::IfName("en3f0pf0sf2000".into()),
            LinkAttribute::Mtu(9000),
            LinkAttribute::Promiscuity(1),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
            LinkAttribute::PhysPortName("pf0sf2000".into()),
            LinkAttribute::PropList(vec![Prop::AltIfName("enp3s0f0npf0sf2000".into())]),
        ];
        let (name, link) = read(&message, Representors::OfDriver).unwrap();
        assert_eq!(name.as_str(), "en3f0pf0sf2000");
        let wanted = Link {
            index: 7,
            phys_port_name: Some("pf0sf2000".into()),
            phys_switch_id: None,
            up: true,
            mtu: 9000,
            promiscuity: Some(1),
            address: Some("02:00:00:00:00:01".parse().unwrap()),
            alternative_names: ["enp3s0f0npf0sf2000".to_owned()].into(),
        };
        assert_eq!(link, wanted);
    }

    #[test]
    fn a_tap_stands_for_a_representor_only_where_there_is_no_hardware() {
        let port_name = |kind: InfoKind, name: &str, representors: Representors| {
            let mut message = LinkMessage::default();
            let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]);
            message.attributes = vec![LinkAttribute::IfName(name.into()), kind];
            read(&message, representors).unwrap().1.phys_port_name
        };
        let (taps, of_driver) = (Representors::Taps, Representors::OfDriver);
        assert_eq!(port_name(InfoKind::Tun, "en3f0pf0sf2000", taps).as_deref(), Some("pf0sf2000"));
        assert_eq!(port_name(InfoKind::Tun, "en3f0pf0sf2000", of_driver), None);
        assert_eq!(port_name(InfoKind::Veth, "en3f0pf0sf2000", taps), None);
        assert_eq!(port_name(InfoKind::Tun, "tap0", taps), None);
    }

    #[test]
    fn an_address_that_is_no_mac_is_none() {
        for octets in [vec![], vec![1, 2, 3, 4], vec![0; 6], vec![0; 20]] {
            let mut message = LinkMessage::default();
            message.attributes = vec![LinkAttribute::IfName("tunl0".into()), LinkAttribute::Address(octets)];
            assert_eq!(read(&message, Representors::OfDriver).unwrap().1.address, None);
        }
    }

    #[test]
    fn a_message_without_a_name_is_passed_over() {
        assert_eq!(read(&LinkMessage::default(), Representors::Taps), None);
        assert!(!receive(&[]));
    }
}
