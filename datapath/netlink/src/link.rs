//! A link message of rtnetlink(7) as a [`Link`].

use std::collections::BTreeSet;

use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Prop};
use virtnet_model::{IfName, Link, Mac};

/// The name and the state of a netdev. `None`: its name is none that an interface of ours could have.
pub(crate) fn read(message: &LinkMessage) -> Option<(IfName, Link)> {
    let mut name = None;
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
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
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
    Some((name?, link))
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
        )) => read(&message).is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::InfoKind;

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
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Tun)]),
            LinkAttribute::PropList(vec![Prop::AltIfName("enp3s0f0npf0sf2000".into())]),
        ];
        let (name, link) = read(&message).unwrap();
        assert_eq!(name.as_str(), "en3f0pf0sf2000");
        let wanted = Link {
            index: 7,
            phys_port_name: Some("pf0sf2000".into()),
            phys_switch_id: None,
            kind: Some("tun".into()),
            up: true,
            mtu: 9000,
            promiscuity: Some(1),
            address: Some("02:00:00:00:00:01".parse().unwrap()),
            alternative_names: ["enp3s0f0npf0sf2000".to_owned()].into(),
        };
        assert_eq!(link, wanted);
    }

    #[test]
    fn an_address_that_is_no_mac_is_none() {
        for octets in [vec![], vec![1, 2, 3, 4], vec![0; 6], vec![0; 20]] {
            let mut message = LinkMessage::default();
            message.attributes = vec![LinkAttribute::IfName("tunl0".into()), LinkAttribute::Address(octets)];
            assert_eq!(read(&message).unwrap().1.address, None);
        }
    }

    #[test]
    fn a_message_without_a_name_is_passed_over() {
        assert_eq!(read(&LinkMessage::default()), None);
        assert!(!receive(&[]));
    }
}
