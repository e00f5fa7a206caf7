//! A web page to look at: DPUs with what is in use of them, and the picture of each, from the host's functions over
//! representors to bridges and ports. It only shows; nothing can be changed by it.
//!
//! | module | what lives there |
//! |---|---|
//! | `model` | what is shown of a `Dpu` and of a `VirtnetDevice`: pure |
//! | `board` | [`Board`]: what is shown now, and what of it has changed since when |
//! | `stream` | a reader's stream of server-sent events: what it lacks, when it can take it |
//! | `server` | [`Page`]: the routes, and who is answered |
//!
//! Whoever watches the API tells the [`Board`]; each reader takes from it at its own pace. So nothing is kept for a reader but how
//! far it is. `assets/` has the page itself, which is served as it is.

mod board;
mod model;
mod server;
mod stream;

pub use board::Board;
pub use server::Page;
