//! Tests of the public interface: packing, unpacking, listing, other readers, and hostile layers.

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
