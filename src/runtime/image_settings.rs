//! The settings that an image was built with, out of the image itself.

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

/// No `phial.toml` is larger.
const MAX_SETTINGS: u64 = 1 << 20;

/// The `phial.toml` of an image's source, as the commit had it: no step of the build can have changed it. `None` if there
/// is none, or if the image was not built by Phial.
pub(crate) fn settings_of(context: &Context<'_>, base: &ResolvedImage) -> Result<Option<String>, Error> {
    let Some(layer) = layer_made_by(&base.image, "phial app").and_then(|number| base.image.layers().nth(number)) else {
        return Ok(None);
    };
    let tree = base.tree(context, &layer)?;
    let name = format!("{APP}/phial.toml");
    Ok(read(&tree.root, &name).map_err(IoError::at("read", &tree.root.join(&name)))?)
}

/// The number of the topmost layer that says it was made by this, the lowest being 0.
pub(crate) fn layer_made_by(image: &Image, by: &str) -> Option<usize> {
    let made: Vec<_> = image.config.history.iter().filter(|entry| !entry.empty_layer).collect();
    if made.len() != image.manifest.layers.len() {
        return None; // a history that does not fit says nothing
    }
    made.iter().rposition(|entry| entry.created_by.as_deref() == Some(by))
}

/// A regular file below `root`; no link on the way leads anywhere.
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
