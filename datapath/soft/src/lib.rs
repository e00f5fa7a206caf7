//! virtio-net functions in software: each is a vhost-user back end, and its representor a TAP.
//!
//! ```text
//!   virtual machine monitor                 virtnetd's parent: the control side
//!  ┌───────────────────────┐  vhost-user   ┌──────────────────────────────────────────────────┐
//!  │ control queue, PCI    │◄─────────────►│ Function: socket, session, configuration space   │
//!  │ guest memory (memfd) ─┼──── fd ──────►│   keeps fds: memory, eventfds, TAP queues,       │
//!  │ kick, call (eventfd) ─┼──── fd ──────►│   memfds of the rings' progress and of counters  │
//!  └──────────┬────────────┘               │ Workers: starts the worker, again when it ends   │
//!             │ mapped                     └───────────────┬──────────────────────────────────┘
//!             │                             orders and fds │ ▲ reports   (sequenced packets)
//!             │                            ┌───────────────▼─┴────────────────────────────────┐
//!  ┌──────────┴────────────┐    kick       │ worker: the data side, a process of its own      │
//!  │ rings and buffers     │──────────────►│   threads, each with an epoll of its pairs       │
//!  │  (guest's driver)     │◄──────────────│   pair: receive and transmit queue, TAP queue    │
//!  └───────────────────────┘    call       └───────────────┬──────────────────────────────────┘
//!                                                          │ read, write: a packet each
//!                                                 TAP (representor) ─── a port of Open vSwitch
//! ```
//!
//! The control side decides and maps nothing of a guest's. The worker maps guests' memory, trusts nothing in it, and keeps nothing:
//! it can be killed at any moment, and another goes on from the used index in the guest's memory and the record of progress in a memfd
//! of the control side's. Descriptor chains are given back in order, so the used index alone says which were; the record says
//! up to where packets may have been sent, and those are not sent again.
//!
//! A function may be there before its TAP: a front end that wants its back end early has one. Until [`Function::set_tap`] gives it a TAP its
//! queues only wait, over workers' ends too, and when one is taken away they wait again.
//!
//! | module | what lives there |
//! |---|---|
//! | `function` | [`Function`]: one task for each, over its socket and its configuration |
//! | `vhost` | the vhost-user protocol: messages, what they make of a device, both sides of the socket |
//! | `workers`, `job` | [`Workers`], the supervisor of the worker, and what is said between the two |
//! | [`worker`] | the data side |
//! | `offer`, `config` | the features that are offered, and the configuration space |
//! | `tap` | [`Tap`]: the representor |
//! | `counters`, `shared` | [`QueueCounters`], and the memfds that both sides map |
//! | [`driver`] | a driver and front end, for tests and benches |
//!
//! # Tasks and threads
//! [`Workers::start`] spawns a task that starts processes and passes orders; it ends with the last clone of [`Workers`] and takes
//! the process along. [`Function::open`] spawns a task that ends with the [`Function`]. In the worker the main thread takes
//! orders, and `--threads` threads move packets: pair `p` of function `f` is on thread `(f + p) mod threads`, its two queues
//! together. A thread sleeps in `epoll_wait` until an eventfd is written or a TAP has a packet; nothing is polled.
//!
//! # What a guest or a front end may do wrong
//! A chain that can't be used is counted and given back; a ring that can't be used stops its queue, until the front end starts it
//! again. A message that can't be carried out is refused where its sender waits for an answer, and ends the connection where
//! it does not. A queue has its turn for as many packets as its ring has descriptors, then others have theirs. Memory that is cut short
//! under the worker's hands stops the queues of that guest. All of it is counted ([`QueueCounters`], [`State::refused`]), and no
//! other function sees any of it.

mod config;
mod counters;
pub mod driver;
mod fds;
mod function;
mod job;
mod offer;
mod shared;
mod tap;
mod vhost;
pub mod worker;
mod workers;

pub use counters::QueueCounters;
pub use function::{Function, FunctionError, State};
pub use offer::{Carries, MAX_PAIRS, offered, queue_pairs, supported};
pub use tap::Tap;
pub use vhost::socket::Socket;
pub use workers::{Program, ReplaceError, WorkerState, Workers};

/// What fuzzing puts bytes into. Not for use.
#[doc(hidden)]
pub mod fuzz {
    pub use crate::vhost::fuzz::messages;
    pub use crate::worker::fuzz::ring;
}
