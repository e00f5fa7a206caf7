//! Bytes as a front end's messages, for fuzzing.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::message::{HEADER, Header};
use super::session::{Device, Session};
use crate::config::Config;

/// Messages one after the other, each as on the wire with a byte before it that says which descriptors come along: of the lower four
/// bits that many, the upper four of what kind. Whether all were taken.
pub fn messages(mut bytes: &[u8]) -> bool {
    let mac = virtnet_model::Mac::local([1; 5]);
    let config = Config { mac, link: true, pairs: 4, mtu: 1500 };
    let mut session = Session::new(Device { offered: u64::MAX, queue_size: 1024, config });
    let null = || File::open("/dev/null").map(OwnedFd::from);
    let Ok(shared) = null().map(Arc::new) else { return false };
    let mut all = true;
    while let Some((kind, rest)) = bytes.split_first() {
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else { return false };
        let Ok(header) = Header::parse(*header) else { return false };
        let Some((payload, rest)) = rest.split_at_checked(header.size) else { return false };
        bytes = rest;
        let fd = || match kind >> 4 {
            0 => memory(),
            1 => event(),
            _ => null().ok(),
        };
        let fds = (0..kind & 15).filter_map(|_| fd()).collect();
        match session.handle(header, payload, fds) {
            Ok(answer) => {
                if let Some(queue) = answer.base_of {
                    session.stopped(queue, session.base(queue));
                }
            }
            Err(_) => all = false,
        }
        // Whatever was said, what a worker would be told is whole: each descriptor that it speaks of comes along.
        if let Ok(Some(job)) = session.job(&shared, &shared, None, |_| None) {
            let description = &job.description;
            let regions = description.regions.iter().map(|region| region.fd);
            let queues =
                description.queues.iter().flat_map(|queue| [Some(queue.kick), queue.call, queue.err]);
            let told = regions.chain(queues.flatten()).chain([description.progress, description.counters]);
            assert!(told.into_iter().all(|index| index < job.fds.len()), "{description:?}");
        }
    }
    all
}

fn memory() -> Option<OwnedFd> {
    let fd = memfd_create("fuzz", MFdFlags::MFD_CLOEXEC).ok()?;
    File::from(fd.try_clone().ok()?).set_len(1 << 16).ok()?;
    Some(fd)
}

fn event() -> Option<OwnedFd> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok().map(OwnedFd::from)
}
