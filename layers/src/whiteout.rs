//! Whiteouts as a layer and as overlayfs write them.
//!
//! In a layer they are empty files with reserved names (image-spec `layer.md`, "Whiteouts"); in a tree on disk a character
//! device 0:0 and an extended attribute (kernel documentation, `overlayfs.rst`, "whiteouts and opaque directories").

/// The prefix of a whiteout's name in a layer: `.wh.NAME` hides `NAME` of the layers below.
pub(crate) const PREFIX: &[u8] = b".wh.";
/// The name of an opaque whiteout: it hides everything that the layers below have in its directory.
pub(crate) const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// The attribute of an opaque directory on disk; its value is [`OPAQUE_VALUE`].
pub(crate) const OPAQUE_XATTR: &str = "user.overlay.opaque";
/// The value of [`OPAQUE_XATTR`].
pub(crate) const OPAQUE_VALUE: &[u8] = b"y";
