//! What happened, for whoever watches. Rooms emit these and say nothing else aloud; only `cli` prints.
//!
//! No event holds a secret: a URL is shown without its user information, an environment by its names.

use phial_layers::Digest;

/// One thing that happened. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step of the work began, named as a user would (`deps`, `build prod`, `push`).
    Began {
        /// The step.
        step: String,
    },
    /// That step is over.
    Ended {
        /// The step.
        step: String,
        /// How it came by its result, such as `recalled`, `3 layers`, `pushed`.
        note: String,
        /// Wall clock, in milliseconds.
        millis: u64,
    },
    /// A piece of output of a command in the sandbox, raw bytes as they came.
    StepOutput {
        /// The step that runs the command.
        step: String,
        /// What it wrote; ends anywhere, not only at lines.
        bytes: Vec<u8>,
    },
    /// As [`Event::StepOutput`], of a command whose output is what the user wants to see.
    CommandOutput {
        /// Who wrote it.
        by: String,
        /// What it wrote; ends anywhere.
        bytes: Vec<u8>,
    },
    /// Bytes moved to or from a registry, an archive or the disk.
    Moved {
        /// What is moved: a blob's digest.
        digest: Digest,
        /// So many bytes of it so far.
        done: u64,
        /// Out of so many.
        total: u64,
    },
    /// Something a user should know that is not an error.
    Notice {
        /// One sentence without a period.
        text: String,
    },
}

/// Where events go. Rooms get it as the last argument.
pub type Watch<'a> = &'a (dyn Fn(Event) + Sync);

/// Hears nothing: for tests and for callers who do not care.
pub fn nobody(_: Event) {}
