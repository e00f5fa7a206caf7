//! What every program of virtnet does with the Kubernetes API, whatever it asks for.
//!
//! | module | what lives there |
//! |---|---|
//! | `clock` | [`Clock`]: the seam of wall-clock time |
//! | `connect` | [`connect`]: a client by a kubeconfig |
//! | `events` | [`events()`]: Kubernetes Events, told in passing |
//! | `in_time` | [`in_time`]: a client whose requests fail where no answer comes |
//! | `overtaken` | [`is_overtaken`]: whether a write came too late |
//! | `patches` | [`finalizer_addition`], [`finalizer_removal`], [`condition_removal`]: for the object that was seen |
//! | `versions` | [`is_newer`]: which of two versions of an object is the later one |
//! | `watch` | [`watch`]: a watch that goes on whatever happens |
//! | `words` | [`chain`]: errors on one line |

mod clock;
mod connect;
mod events;
mod in_time;
mod overtaken;
mod patches;
mod versions;
mod watch;
mod words;

pub use clock::Clock;
pub use connect::connect;
pub use events::{Events, Publisher, about, events};
pub use in_time::in_time;
pub use overtaken::is_overtaken;
pub use patches::{condition_removal, finalizer_addition, finalizer_removal};
pub use versions::is_newer;
pub use watch::{begun_anew, watch};
pub use words::chain;
