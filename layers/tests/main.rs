//! What a user of the crate sees: trees packed, read by others, and unpacked again; and layers made to do harm.

mod golden;
mod hostile;
mod roundtrip;
mod tars;
