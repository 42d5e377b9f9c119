//! A digest is proven: `phial verify` makes an image again, `phial build --twice` makes it under other conditions.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod forged;
mod twice;
mod verify;
