//! The virtnet.dev API: kinds, validation, conditions and reasons.
