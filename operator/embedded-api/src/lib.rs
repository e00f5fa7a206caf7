//! A small Kubernetes API server of the virtnet.dev kinds, in one process and one file.
//!
//! `Api` holds the state and is a `tower` service of HTTP requests: `kube::Client::new(api.service(), "default")`
//! is a client of it in the same process, also under a paused clock. `Server` puts it behind TLS on the loopback
//! interface, or behind a unix socket, for `kubectl` and for other processes.
//!
//! One task writes (`store`): it takes the requests that wait, runs them one after the other, makes the result
//! durable as one batch, and then shows it to readers, wakes watches and answers. Everything else only reads.

mod api;
mod apply;
mod audit;
mod builtin;
mod clock;
mod content;
mod core;
mod credentials;
mod discovery;
mod events;
mod gc;
mod ids;
mod jsonpath;
mod object;
mod openapi;
mod path;
mod protobuf;
mod query;
mod registry;
mod reply;
mod review;
mod scale;
mod selectors;
mod serve;
mod service;
mod status;
mod store;
mod strategic;
mod table;
mod validation;
mod verbs;

pub use api::{Api, Config, DEFAULT_HISTORY, OpenError};
pub use audit::{Audit, Recorder, Write};
pub use clock::{Clock, SystemClock, TokioClock};
pub use credentials::CredentialsError;
pub use ids::{Ids, RandomIds, SeededIds};
pub use registry::DefinitionError;
pub use reply::Body;
pub use serve::{Listen, ServeError, Server};
pub use service::{BODY_LIMIT, Service};
pub use status::{ApiError, Cause};
pub use store::{Batch, Disk, DiskError, FileDisk, Loaded, MemoryDisk, Row};
pub use table::human_duration;
