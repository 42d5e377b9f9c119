//! Keeps the store below its limit without looking at everything in it after each command.
//!
//! The file `size` has the bytes that were in the store when it was last searched, those that were added since included, and
//! the time of that search. The store is searched again when the bytes exceed the limit, or after a day: mirrors grow without
//! being counted.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::disk::read;
use super::error::StoreError;
use super::{PruneOptions, PruneReport, Store};
use crate::tree::TreeDir;

/// How long the file `size` is believed, in seconds.
const MAX_AGE: i64 = 24 * 60 * 60;

/// What the file `size` has.
#[derive(Clone, Copy)]
struct KnownSize {
    bytes: u64,
    /// When the store was searched, in seconds since 1970.
    searched: i64,
}

impl Store {
    /// Removes the least recently used items until the store is below `limit` bytes; `now` is in seconds since 1970. `None` if
    /// it is below as far as is known, or another process has the store open.
    pub fn prune_to_limit(&self, limit: u64, now: i64) -> Result<Option<PruneReport>, StoreError> {
        let _lock = self.lock("size")?;
        let added = self.added.swap(0, Ordering::Relaxed);
        if let Some(KnownSize { bytes, searched }) = self.known_size()
            && (searched..searched + MAX_AGE).contains(&now)
            && bytes.saturating_add(added) <= limit
        {
            if added > 0 {
                self.write_size(KnownSize { bytes: bytes + added, searched })?;
            }
            return Ok(None);
        }
        let report = self.prune(PruneOptions { limit: Some(limit), ..PruneOptions::default() })?;
        match report {
            Some(report) => self.write_size(KnownSize { bytes: report.remaining_bytes, searched: now })?,
            None => drop(self.added.fetch_add(added, Ordering::Relaxed)), // for the next call
        }
        Ok(report)
    }

    fn size_file(&self) -> PathBuf {
        self.root().join("size")
    }

    fn known_size(&self) -> Option<KnownSize> {
        let text = String::from_utf8(read(&self.size_file())?).ok()?;
        let (bytes, searched) = text.trim_end().split_once(' ')?;
        Some(KnownSize { bytes: bytes.parse().ok()?, searched: searched.parse().ok()? })
    }

    fn write_size(&self, size: KnownSize) -> Result<(), StoreError> {
        let text = format!("{} {}\n", size.bytes, size.searched);
        Ok(TreeDir::open(self.root())?.replace("size", text.as_bytes(), 0o600)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_store_is_searched_when_too_much_was_added_or_a_day_has_passed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("cache")).unwrap();
        let add = |bytes: &[u8]| {
            let mut writer = store.blob_writer().unwrap();
            writer.write_all(bytes).unwrap();
            writer.keep(None).unwrap();
        };
        let searched = |limit, now| store.prune_to_limit(limit, now).unwrap().is_some();
        assert!(searched(100_000, 1000), "nothing is known");
        assert!(!searched(100_000, 1001));
        add(&vec![1; 30_000]);
        assert!(!searched(100_000, 1002));
        add(&vec![2; 80_000]);
        assert!(searched(100_000, 1003), "that was too much");
        assert!(store.items().unwrap().iter().map(|item| item.size).sum::<u64>() <= 100_000);
        assert!(!searched(100_000, 1004));
        assert!(searched(10, 1005), "a lower limit");
        assert!(searched(100_000, 1005 + MAX_AGE), "it is old");
        assert!(searched(100_000, 1000), "the clock was set back");
        fs::write(store.size_file(), "x").unwrap();
        assert!(searched(100_000, 1001));
    }
}
