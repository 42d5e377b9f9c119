//! A digest is proven: `phial verify` makes an image again, `phial build --twice` makes it under other conditions.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod edited_image;
mod build_twice;
mod verify;
