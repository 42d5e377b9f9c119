//! Entry points of the fuzz targets into the parsers of this module: a function takes anything, and panics if a property that must
//! hold does not.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a target reports a bug")]

use super::options::{NormalizeOptions, Part};
use super::{git, mix};

/// A manifest of Mix: its normal form is a term, and is its own normal form.
pub fn mix_manifest(name: &str, bytes: &[u8]) {
    for part in [Part::Deps, Part::Build] {
        let window = (1_795_346_182, 1_795_346_242);
        let options = NormalizeOptions { mtime: 1_700_000_000, windows: [window; 2], part, lock: "" };
        let Ok(normal) = mix::normalized(name, bytes, &options) else { continue };
        assert!(!normal.scrubbed || part == Part::Deps, "an app keeps its configuration");
        let again = mix::normalized(name, &normal.bytes, &options).map(|again| (again.bytes, again.scrubbed));
        assert_eq!(again, Ok((normal.bytes, false)), "{name}");
    }
}

/// The config of a repository: what is written instead has the same URL. Returns the URL.
pub fn git_config(config: &str) -> Option<String> {
    let url = git::origin_url(config)?;
    assert_eq!(git::origin_url(&git::config(&url)).as_ref(), Some(&url));
    let public = git::public_url(&url, "");
    assert_eq!(git::public_url(&public, ""), public);
    Some(url)
}
