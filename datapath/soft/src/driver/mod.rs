//! A virtio-net driver and its front end in one, for tests and benches: it has a function as a guest would, and checks that each
//! descriptor chain comes back once.
//!
//! | module | what lives there |
//! |---|---|
//! | `front_end` | vhost-user from the other side |
//! | `ring` | a split ring from the driver's side |
//! | `net` | [`Driver`]: a guest's memory with the rings and buffers of some queue pairs |
//! | `raw` | [`RawTap`]: a TAP without a function |
//! | `wire` | [`Wire`]: the network side of a TAP |

mod front_end;
mod net;
mod raw;
mod ring;
mod wire;

pub use front_end::{FrontEnd, Request};
pub use net::{Driver, Options};
pub use raw::RawTap;
pub use ring::{Buffer, Given, Ring};
pub use wire::Wire;
