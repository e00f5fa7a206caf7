//! `virtnetd`: the virtio-net controller as a service. A parent keeps what must survive; a worker runs the controller.
//!
//! | module | what lives there |
//! |---|---|
//! | `parent` | the process that is started: the device, the sockets of clients, and the worker, which it starts again |
//! | `worker` | the process that it starts: the engine of `virtnet-controller` over the parent's device |
//! | `wire` | what the two say to each other |
//! | `recovery` | a file for each function, by which those that were lost are made again |
//! | `device` | what a service runs on: a simulated DPU, or one in software |
//! | `host` | a simulated host, as a person at it has it: [`method`](host)s beside the controller's |
//! | `socket` | the socket that clients connect to |
//! | `store` | what systemd keeps for the next start |
//!
//! Clients ask the parent, which asks the worker. Where the worker ends in the middle of something, functions stay as they are
//! on the device, and the next one takes them over: requests that only read are asked again, one that changes is answered with
//! an error that says so, and has been carried out wholly or not at all.

pub mod device;
pub mod host;
pub mod parent;
pub mod recovery;
pub mod socket;
pub mod store;
mod wire;
pub mod worker;
