//! The vendor's guide, sections 1.1 to 1.3, command by command: `virtnetd` over a simulated DPU and `virtnet`, both as they were
//! built, with `virtnetd host` where the guide does something at the host. `virtnet update` (1.1.4) is tested elsewhere.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod dpu;
mod firmware;
mod lag;
mod later;
mod list;
mod pfs;
mod process;
mod service;
mod vfs;
