//! Open vSwitch as the agent's [`virtnet_model::Switch`]: [`OvsSwitch`], over a small client of OVSDB.
//!
//! The protocol is RFC 7047 with the extensions of ovsdb-server(7): `monitor_cond_since` and `update3`, which Open vSwitch
//! has from 2.12 on. Nothing here runs a command.
//!
//! | module | what lives there |
//! |---|---|
//! | `address` | where a database is: `unix:PATH`, `tcp:HOST:PORT` |
//! | `codec` | JSON texts out of a stream of bytes that frames nothing |
//! | `message` | JSON-RPC 1.0 |
//! | `column` | values of columns as they are on the wire, and differences of them |
//! | `tables` | the tables and columns that are needed, as types |
//! | `mirror` | those tables in memory |
//! | `session` | one connection: the monitor, echoes, transactions |
//! | `client` | a task that keeps a session up |
//! | `option` | an option of the switch's, asked for once |
//! | `switch` | what of it is a switch: state, and the transaction that a list of changes makes |
//!
//! # The task and its channels
//! [`OvsSwitch::connect`] spawns one task. It owns the connection; transactions come to it by a channel, each with the way
//! for its answer, and it keeps the mirror in a [`tokio::sync::watch`] that observers read and wait on. It ends when the
//! last handle is dropped.
//!
//! # What bad input does
//! What the server sends is not trusted: a text that is not JSON, not a message or not an update of the tables asked for
//! ends the connection with an error that says where it is wrong. The mirror is then fetched anew.

mod address;
mod client;
mod codec;
mod column;
mod message;
mod mirror;
mod option;
mod session;
mod switch;
mod tables;

pub use address::{Address, AddressError};
pub use option::userspace_tso;
pub use switch::OvsSwitch;

/// What fuzzing puts bytes into. Not for use.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::session::receive as session;
}
