//! The agent's hands on a real Open vSwitch and real netdevs, in network namespaces of the tests' own.

#![expect(clippy::unwrap_used, reason = "a test that can not go on panics")]

mod agent;
mod churn;
mod contract;
mod fuzz;
mod links;
mod programs;
mod switch;
mod traffic;
