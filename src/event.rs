//! Events: what the modules report while a command works. Only `cli` prints them.
//!
//! No event holds a secret: URLs come without user information, environments as names only.

use phial_layers::Digest;

/// Something that happened. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step of the command starts.
    StepStarted {
        /// Its name for users, such as `deps`, `build prod`, `push`.
        step: String,
    },
    /// A step is finished.
    StepFinished {
        /// Its name for users.
        step: String,
        /// Its result in a few words, such as `cached`, `3 layers`, `pushed`.
        note: String,
        /// How long it took, in milliseconds; 0 if that is not shown.
        millis: u64,
    },
    /// Output of a command that a step runs in the sandbox: raw bytes, in pieces that may end within a line.
    StepOutput {
        /// The step that runs the command.
        step: String,
        /// A piece of stdout and stderr.
        bytes: Vec<u8>,
    },
    /// As [`Event::StepOutput`], of a command whose output is what the user asked for, such as a test.
    CommandOutput {
        /// The name of the command.
        command: String,
        /// A piece of stdout and stderr.
        bytes: Vec<u8>,
    },
    /// A blob is being sent to or received from a registry, an archive or the disk.
    BytesTransferred {
        /// The digest of the blob.
        digest: Digest,
        /// Bytes transferred so far.
        done: u64,
        /// The size of the blob.
        total: u64,
    },
    /// Something a user should know that is not an error.
    Notice {
        /// One sentence without a period.
        text: String,
    },
}

/// A callback that receives events, from any thread.
pub type Watch<'a> = &'a (dyn Fn(Event) + Sync);

/// A [`Watch`] that ignores all events.
pub fn discard(_: Event) {}

/// Sends a notice: one sentence without a period.
pub(crate) fn notice(watch: Watch<'_>, text: impl Into<String>) {
    watch(Event::Notice { text: text.into() });
}

/// The first `most` names and how many more there are, for a notice or an error.
pub(crate) fn some_of(names: impl ExactSizeIterator<Item = String>, most: usize) -> String {
    let more = names.len().saturating_sub(most);
    let named = names.take(most).collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}
