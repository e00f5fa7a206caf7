//! An Open vSwitch of one's own: ovsdb-server and ovs-vswitchd with a userspace datapath, in a network namespace and a
//! folder that go with them. For `virtnetctl local`, for the demo and for tests; an agent finds its switch and runs no
//! program.
//!
//! | module | what lives there |
//! |---|---|
//! | `tools` | [`Tools`]: where Open vSwitch's programs are |
//! | `open_vswitch` | [`OpenVSwitch`]: its daemons, started, killed and started again |
//! | `programs` | [`Programs`]: processes that end with the one that started them |
//!
//! Its errors are for a person to read, and nobody decides by them.

mod open_vswitch;
mod programs;
mod tools;

pub use open_vswitch::{DATABASE, OpenVSwitch, SWITCH};
pub use programs::Programs;
pub use tools::Tools;
