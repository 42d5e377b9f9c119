//! What a user of the crate sees: trees packed, read by others, and unpacked again; and layers made to do harm.

#![expect(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod boundaries;
mod golden;
mod hostile;
mod hostile_cases;
mod hostile_streams;
mod list;
mod roundtrip;
mod skipped;
mod tars;
