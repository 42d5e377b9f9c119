//! Packs a directory tree into an OCI layer and unpacks a layer into a tree (image-spec, `layer.md`).
//!
//! Deterministic: the bytes of a layer are a function of the tree, its [`Metadata`] and the [`PackOptions`]. The crate reads
//! no clock, environment, network or git, and the number of threads changes no byte.

mod compress;
mod compression;
mod digest;
mod entry_path;
mod escape;
mod metadata;
mod pack;
mod tar_block;
mod unpack;
mod whiteout;

pub use compress::{compress, decompressed};
pub use compression::Compression;
pub use digest::{DiffId, Digest, DigestError, Sha256Writer};
pub use entry_path::EntryPath;
pub use metadata::{EntryMetadata, Metadata};
pub use pack::{CompressedTar, PackError, PackOptions, Packed, pack};
pub use unpack::{EntryKind, LayerEntry, Limits, Listed, UnpackError, Unpacked, Violation, list, unpack};
