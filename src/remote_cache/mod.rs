//! The deps cache in a registry: the compiled dependencies of one machine serve all others.
//!
//! An entry is an image of one layer, the blob that built images have too, under a tag made from the cache key. It is looked up
//! by its exact key, written once and never changed. Fallback tags ([`fallback`]) name the last deps layer whose key
//! differs in the lock file alone. A blob is not downloaded until a step needs its files: a build that only assembles an image has the registry mount
//! it. A failure of the cache is a notice and fails no build.

mod admin;
mod cache;
mod entry;
mod fallback;

pub use self::admin::{CacheEntry, entries, prune_entries};
pub(crate) use self::cache::RemoteCache;
pub(crate) use self::entry::{STEP, entry_digest};

/// What a build may do with the deps cache in a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoteCacheMode {
    /// Neither read nor write.
    #[default]
    Off,
    /// Use entries. Whoever may push to the repository is trusted as the app's code is.
    Read,
    /// Use entries, and add an entry for each deps layer that this build makes.
    Write,
}
