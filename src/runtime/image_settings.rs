//! The `phial.toml` in an image.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

use super::ResolvedImage;
use crate::context::Context;
use crate::error::{Error, IoError};
use crate::image::Image;
use crate::recipe::APP;

/// The largest `phial.toml`, in bytes.
const MAX_SETTINGS: u64 = 1 << 20;

/// The text of `phial.toml` in the image's source layer, which is that of the commit: steps change other layers. `None` if the
/// commit had none or the image was not built by Phial.
pub(crate) fn settings_of(context: &Context<'_>, image: &ResolvedImage) -> Result<Option<String>, Error> {
    let Some(layer) = layer_made_by(&image.image, "phial app").and_then(|number| image.image.layers().nth(number))
    else {
        return Ok(None);
    };
    let tree = image.tree(context, &layer)?;
    let name = format!("{APP}/phial.toml");
    Ok(read(&tree.root, &name).map_err(IoError::at("read", &tree.root.join(&name)))?)
}

/// The index of the topmost layer whose history entry has this `created_by`; the lowest is 0.
pub(crate) fn layer_made_by(image: &Image, created_by: &str) -> Option<usize> {
    let made: Vec<_> = image.config.history.iter().filter(|entry| !entry.empty_layer).collect();
    if made.len() != image.manifest.layers.len() {
        return None; // the history does not tell which entry belongs to which layer
    }
    made.iter().rposition(|entry| entry.created_by.as_deref() == Some(created_by))
}

/// The text of a regular file below `root`; `None` if there is none. Symlinks are not followed.
fn read(root: &Path, name: &str) -> io::Result<Option<String>> {
    let dir = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match openat2(dir, name, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(None); // a whiteout
    }
    let mut text = String::new();
    file.take(MAX_SETTINGS).read_to_string(&mut text)?;
    Ok(Some(text))
}
