//! [`NetlinkLinks`]: what is there by a dump, changes by one request each, and events by the kernel's multicast group.

use std::collections::BTreeMap;
use std::io;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use nix::errno::Errno;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};
use rtnetlink::{Handle, MulticastGroup, new_connection, new_multicast_connection};
use tokio::sync::watch;
use tracing::error;
use virtnet_model::{Changed, Events, IfName, Link, LinkChange, Links, PartError, Refusal, SubFunction};

use crate::link::{Representors, read};

/// How often a dump is begun anew that a change of the netdevs cut into.
const DUMPS: usize = 10;

/// The netdevs of the network namespace that it was opened in.
#[derive(Debug)]
pub struct NetlinkLinks {
    handle: Handle,
    changes: watch::Receiver<()>,
    representors: Representors,
}

impl NetlinkLinks {
    /// Opens the sockets, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Where the kernel refuses a socket.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn open(representors: Representors) -> io::Result<Self> {
        let (requests, handle, _) = new_connection()?;
        let (events, _, mut messages) = new_multicast_connection(&[MulticastGroup::Link])?;
        let (sender, changes) = watch::channel(());
        tokio::spawn(requests);
        tokio::spawn(async move {
            let pass_on = async {
                // An overrun too says that something changed: whoever looks finds out what.
                while messages.next().await.is_some() {
                    sender.send_replace(());
                }
                error!("the kernel's events of netdevs have ended");
            };
            tokio::select! {
                () = events => {}
                () = pass_on => {}
                () = sender.closed() => {}
            }
        });
        Ok(Self { handle, changes, representors })
    }

    /// All netdevs, at one moment where they hold still for as long as that takes. Where they don't, some may be missing: whatever
    /// changed meanwhile is told by an event, and then they are observed again.
    async fn dump(&self) -> Result<BTreeMap<IfName, Link>, LinkError> {
        let mut dumped = Vec::new();
        for _ in 0..DUMPS {
            let mut message = LinkMessage::default();
            // Counters are of no interest, and most of what would be sent.
            message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
            dumped = self.request(RouteNetlinkMessage::GetLink(message), NLM_F_DUMP).await?;
            if dumped.iter().all(|answer| answer.header.flags & NLM_F_DUMP_INTR == 0) {
                break;
            }
        }
        Ok(self.read_all(dumped).collect())
    }

    fn read_all(
        &self,
        answers: Vec<NetlinkMessage<RouteNetlinkMessage>>,
    ) -> impl Iterator<Item = (IfName, Link)> {
        let links = answers.into_iter().filter_map(|answer| link_of(answer.payload));
        links.filter_map(|link| read(&link, self.representors))
    }

    /// The netdev of a name.
    async fn get(&self, name: &IfName) -> Result<Option<Link>, LinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.as_str().to_owned()));
        match self.request(RouteNetlinkMessage::GetLink(message), 0).await {
            // An alternative name finds its netdev too.
            Ok(answers) => Ok(self.read_all(answers).find(|(found, _)| found == name).map(|(_, link)| link)),
            Err(LinkError::Kernel(Errno::ENODEV)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn change(&self, index: u32, change: LinkChange) -> Result<(), LinkError> {
        let LinkChange { up, mtu } = change;
        let mut message = LinkMessage::default();
        message.header.index = index;
        if let Some(up) = up {
            message.header.change_mask = LinkFlags::Up;
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        }
        message.attributes.extend(mtu.map(|mtu| LinkAttribute::Mtu(mtu.into())));
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).await.map(drop)
    }

    async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, LinkError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self.handle.clone().request(request).map_err(|_| LinkError::Closed)?;
        let mut all = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::Error(error) => match error.code {
                    Some(code) => return Err(LinkError::Kernel(Errno::from_raw(-code.get()))),
                    None => break,
                },
                NetlinkPayload::Overrun(_) => return Err(LinkError::Unsteady),
                _ => all.push(answer),
            }
        }
        Ok(all)
    }
}

fn link_of(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<LinkMessage> {
    match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Some(link),
        _ => None,
    }
}

/// Why the kernel did not do what was asked.
#[derive(Debug)]
enum LinkError {
    /// The sockets are gone.
    Closed,
    /// The netdevs changed all the time.
    Unsteady,
    /// The kernel refused.
    Kernel(Errno),
}

impl LinkError {
    fn while_doing(&self, doing: &str) -> PartError {
        match self {
            Self::Closed => PartError::failed(format!("{doing}: the socket of rtnetlink is closed")),
            Self::Unsteady => PartError::failed(format!("{doing}: the netdevs changed all the while")),
            Self::Kernel(Errno::EPERM) => {
                PartError::failed(format!("{doing}: the kernel does not permit it: CAP_NET_ADMIN is needed"))
            }
            Self::Kernel(errno) => PartError::failed(format!("{doing}: {}", errno.desc())),
        }
    }
}

#[async_trait]
impl Links for NetlinkLinks {
    async fn observe(&self) -> Result<BTreeMap<IfName, Link>, PartError> {
        let doing = "observe netdevs";
        if self.changes.has_changed().is_err() {
            return Err(PartError::failed(format!("{doing}: the kernel's events have ended")));
        }
        self.dump().await.map_err(|error| error.while_doing(doing))
    }

    async fn set(&self, representor: &SubFunction, change: LinkChange) -> Result<(), PartError> {
        let name = &representor.representor;
        let doing = format!("set {change} on {name}");
        let refused = |why: String| PartError::refused(Refusal::NoSuchLink, format!("{doing}: {why}"));
        let link = self.get(name).await.map_err(|error| error.while_doing(&doing))?;
        let link = link.ok_or_else(|| refused("there is no such netdev".to_owned()))?;
        if !link.represents(representor) {
            return Err(refused(link.mismatch(representor)));
        }
        // By its index: should the name be another's by now, that one is left alone.
        match self.change(link.index, change).await {
            Ok(()) => Ok(()),
            Err(LinkError::Kernel(Errno::ENODEV)) => Err(refused("it is gone".to_owned())),
            Err(error) => Err(error.while_doing(&doing)),
        }
    }

    fn events(&self) -> Events {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        let events = stream::unfold(changes, async |mut changes| {
            changes.changed().await.ok().map(|()| (Changed, changes))
        });
        events.boxed()
    }
}
