//! The netdevs of a DPU as the agent's [`virtnet_model::Links`]: [`NetlinkLinks`], over rtnetlink.
//!
//! | module | what lives there |
//! |---|---|
//! | `link` | a link message as a [`virtnet_model::Link`] |
//! | `links` | [`NetlinkLinks`]: the dump, the change, the events |
//! | `namespace` | [`Namespace`]: a network namespace, in which sockets, netdevs and programs can be made |
//! | `tap` | [`Taps`]: TAP netdevs that stand for representors where there is no hardware |
//!
//! # Tasks
//! [`NetlinkLinks::open`] spawns three: each of its two sockets has one that reads and writes it, and one passes on that a
//! netdev came, went or changed. They end with the last handle. Requests have a socket of their own, so that a burst of
//! events, which the kernel drops when nobody reads them in time, can never cost an answer.

mod link;
mod links;
mod namespace;
mod tap;

pub use link::Representors;
pub use links::NetlinkLinks;
pub use namespace::Namespace;
pub use tap::Taps;

/// What fuzzing puts bytes into. Not for use.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::link::receive as event;
}
