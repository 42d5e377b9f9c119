//! OCI layouts (`image-layout.md`), as a directory or in a tar, read and written; and archives for `docker load`.
//!
//! Every blob that is read must be a regular file inside the layout and have its digest and size. If a writer is killed,
//! `index.json` and archives are either as before or complete.

mod archive;
mod error;
mod read;
mod referrers;
mod replaceable;
mod write;

pub use archive::{write_docker_archive, write_oci_archive};
pub use error::LayoutError;
pub use read::{Blob, Layout};
pub use referrers::ReferrerList;
pub use replaceable::{ArchiveKind, check_archive_target, check_layout_target};
pub use write::{Check, Names, Put, put_into, write_layout};

/// The annotation that holds a tag in `index.json`.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The prefix of temporary files. Those of a writer that was killed are removed by the next one.
const TEMPORARY: &str = ".phial-";

/// The content of `oci-layout`.
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
