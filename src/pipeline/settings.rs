//! The settings that an image was built with, out of the image itself.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

use super::base::Base;
use super::{BuildError, World};
use crate::image::{Image, Layer, Reference};
use crate::prepare::WORKDIR;

/// No `phial.toml` is larger.
const MAX_SETTINGS: u64 = 1 << 20;

/// The `phial.toml` of an image's source, as the commit had it: no step of the build can have changed it. `None` if there
/// is none, or if the image was not built by Phial.
pub fn built_with(world: &World<'_>, of: &Reference) -> Result<Option<String>, BuildError> {
    let base = Base::resolve(world, of, None)?;
    let Some(layer) = source_layer(&base.image) else { return Ok(None) };
    let tree = base.tree(world, &layer)?;
    let name = format!("{}/phial.toml", WORKDIR.trim_start_matches('/'));
    read(&tree.root, &name).map_err(BuildError::io("read", &tree.root.join(&name)))
}

/// The topmost layer that says it is the source.
fn source_layer(image: &Image) -> Option<Layer<'_>> {
    let made = image.config.history.iter().filter(|entry| !entry.empty_layer);
    let named: Vec<_> = image.layers().zip(made).collect();
    if named.len() != image.manifest.layers.len() {
        return None; // a history that does not fit says nothing
    }
    let ours = named.into_iter().rev().find(|(_, entry)| entry.created_by.as_deref() == Some("phial app"));
    ours.map(|(layer, _)| layer)
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
