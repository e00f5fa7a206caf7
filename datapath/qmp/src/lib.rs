//! A client of QMP, the QEMU Machine Protocol (QEMU's manual, "QEMU Machine Protocol Specification"): [`Qmp`] asks on a
//! connection, [`Events`] is what QEMU tells of itself on it.
//!
//! | module | what lives there |
//! |---|---|
//! | `message` | what QEMU sends, out of one line of JSON |
//! | `client` | one connection: greeting, commands and their answers, events |
//!
//! # The task and its channels
//! [`Qmp::connect`] spawns one task, which owns the connection. Commands come to it by a channel, each with the way for its
//! answer, so many may be under way at a time; events go out by a bounded channel. The task ends with the connection, with
//! the last [`Qmp`], or when [`Events`] is dropped. Whoever wants another connection makes one: what was missed in between is
//! the caller's to find out, by asking.
//!
//! A monitor of QEMU serves one client at a time. A second one connects and gets no greeting until the first has gone, which
//! [`ConnectError::NoGreeting`] says.
//!
//! # What bad input does
//! What QEMU sends is not trusted, since a guest may have taken it over: a line that is longer than [`LINE_MAX`], no JSON, no
//! message of QMP or an answer that nobody waits for ends the connection with an error that says so. Events that nobody takes
//! end it likewise: they can't be kept without bound, and one that is lost unseen would be worse.

mod client;
mod message;

pub use client::{ConnectError, Events, LINE_MAX, Qmp, QmpError};
pub use message::{Event, Refused};

/// What fuzzing puts bytes into. Not for use.
#[doc(hidden)]
pub mod fuzz {
    /// Whether a line is a message of QMP.
    pub fn message(line: &str) -> bool {
        crate::message::Message::parse(line).is_ok()
    }
}
