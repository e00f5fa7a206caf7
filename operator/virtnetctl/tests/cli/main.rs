//! `virtnetctl` as a user has it: each of its commands is run. One program, since each more costs a minute to build.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic to fail as the tests themselves do")]

mod bundle;
mod commands;
mod export;
mod folder;
mod kubectl;
mod local;
mod look;
mod support;
