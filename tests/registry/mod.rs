//! Images on their way in and out: layouts, archives and registries, with skopeo and umoci as independent readers.

#![expect(clippy::unwrap_used, reason = "a test that panics has said enough")]

mod behind;
mod debian;
mod front;
pub(crate) mod images;
mod killed;
mod large;
mod layout;
mod matrix;
mod mirrors;
mod onward;
mod profiles;
mod push;
mod double;
mod stubborn;
mod tls;
mod tokens;

pub(crate) use crate::scripted;
