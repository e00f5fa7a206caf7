//! How a virtio-net controller is spoken to over a unix socket: JSON-RPC 2.0, a message a line.
//!
//! | module | what lives there |
//! |---|---|
//! | `message` | one message, from a line and to one (pure) |
//! | `link` | [`Link`] and [`Caller`]: a connection on which both sides may ask |
//! | `method` | [`method`]: the methods of a controller's socket and their parameters |
//! | `server` | [`Server`]: a [`Controller`](virtnet_model::Controller) offered on a socket |
//! | `client` | [`Client`]: that controller, as one who connects has it |
//!
//! A line is at most [`LINE_MAX`] bytes. What is no JSON-RPC costs the connection that it came on and nothing else.

mod client;
mod link;
mod message;
pub mod method;
mod server;

/// Where clients find a controller unless they are told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/virtnetd/virtnetd.sock";

pub use client::Client;
pub use link::{Caller, Incoming, Link, NoAnswer, Sender};
pub use message::{Fault, LINE_MAX};
pub use server::{Extra, Peer, Server, dispatch, raw, read};
