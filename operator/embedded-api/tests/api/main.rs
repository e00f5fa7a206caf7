//! The embedded API as its clients have it. One program, since each more costs half a minute to build.

#![allow(clippy::unwrap_used, reason = "the helpers of tests panic to fail as the tests themselves do")]

mod apply;
mod durability;
mod kube_rs;
mod kubectl;
mod lists;
mod refusals;
mod support;
