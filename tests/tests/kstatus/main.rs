//! The statuses of all three kinds in every phase, as a small fleet comes to have them on the embedded API under a paused
//! clock, and what those who wait for them make of them.
//!
//! `tests/kstatus/scenarios/` says how each phase comes about, `tests/kstatus/testdata/` is what the API held then, and
//! `tests/kstatus/verdicts.yaml` is what a person says of it. A new phase is YAML in the first and the last of these and
//! UPDATE_GOLDEN=1 for the second, no new code.

#![expect(clippy::unwrap_used, reason = "the helpers of tests panic to fail as the tests themselves do")]

mod fields;
mod judges;
mod levers;
mod phases;
mod recording;
mod scenario;
