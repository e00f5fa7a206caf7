//! The control side of vhost-user: what a front end says ([`message`]), what that makes of a device ([`session`]), and the
//! socket that it is said on ([`socket`]).

pub(crate) mod fuzz;
pub(crate) mod memory;
pub(crate) mod message;
pub(crate) mod session;
pub(crate) mod socket;
pub(crate) mod vring;
