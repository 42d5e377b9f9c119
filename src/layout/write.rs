//! Writing a layout directory: blobs first, `index.json` last.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use phial_layers::Digest;
use rustix::fs::FlockOperation;
use serde_json::{Value, json};

use super::error::LayoutError;
use super::read::{Layout, blob_name, open_regular};
use super::{OCI_LAYOUT, REF_NAME};
use crate::event::{Event, Watch};
use crate::image::{Blobs, Descriptor, Image, OCI_INDEX, Verified, canonical_json, read_json};

/// Temporary files carry this prefix; those of a writer that was killed are removed by the next.
const TEMPORARY: &str = ".phial-";

/// Puts `image` into the layout at `dir`, under `tag`, beside the images that are there. The image that had the tag before
/// loses it (without a tag: untagged entries are replaced); its blobs stay. Safe to repeat, to kill, and to run twice at
/// once: writers wait for each other. What cannot be finished is taken back.
pub fn write_layout(
    dir: &Path,
    image: &Image,
    tag: Option<&str>,
    blobs: Blobs<'_>,
    watch: Watch<'_>,
) -> Result<(), LayoutError> {
    let made = !dir.exists();
    fs::create_dir_all(dir).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => LayoutError::not_a_directory(dir),
        _ => LayoutError::io("create", dir)(error),
    })?;
    let lock = File::open(dir).map_err(LayoutError::io("open", dir))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|e| LayoutError::io("lock", dir)(e.into()))?;
    let digests = descriptors(image).into_iter().map(|d| &d.digest).chain([&image.manifest_digest]);
    let names = digests.map(blob_name).chain(["oci-layout".to_owned()]);
    let missing: Vec<String> = names.filter(|name| fs::symlink_metadata(dir.join(name)).is_err()).collect();
    let written = fill(&lock, (dir, image, tag), blobs, watch);
    if written.is_err() {
        take_back(dir, image, &missing);
        if made {
            let _ = fs::remove_dir(dir);
        }
    }
    written
}

/// Removes what was not there before, unless the index names it.
fn take_back(dir: &Path, image: &Image, missing: &[String]) {
    let index = fs::read_to_string(dir.join("index.json")).unwrap_or_default();
    if index.contains(image.manifest_digest.as_str()) {
        return;
    }
    for name in missing {
        let _ = fs::remove_file(dir.join(name));
    }
    for name in ["blobs/sha256", "blobs/sha512", "blobs"] {
        let _ = fs::remove_dir(dir.join(name)); // fails unless it is empty
    }
}

fn fill(
    lock: &File,
    (dir, image, tag): (&Path, &Image, Option<&str>),
    blobs: Blobs<'_>,
    watch: Watch<'_>,
) -> Result<(), LayoutError> {
    begin(dir)?;
    for descriptor in descriptors(image) {
        let name = blob_name(&descriptor.digest);
        if is_there(lock, dir, &name, descriptor)? {
            continue;
        }
        put_blob(dir, &descriptor.digest, |to| {
            copy(dir, descriptor, &mut open(dir, image, descriptor, blobs)?, to, watch)
        })?;
    }
    let manifest = image.descriptor();
    if !is_there(lock, dir, &blob_name(&manifest.digest), &manifest)? {
        put_blob(dir, &manifest.digest, |to| {
            to.write_all(&image.manifest_bytes).map_err(LayoutError::io("write to", dir))
        })?;
    }
    let index = canonical_json(&new_index(dir, image, tag)?);
    if fs::read(dir.join("index.json")).is_ok_and(|old| old == index) {
        return Ok(());
    }
    put(dir, "index.json", |to| to.write_all(&index).map_err(LayoutError::io("write", dir)))
}

/// The blobs of an image, each once: layers and config. The manifest comes after them.
pub(super) fn descriptors(image: &Image) -> Vec<&Descriptor> {
    let mut seen = std::collections::BTreeSet::new();
    image.manifest.layers.iter().chain([&image.manifest.config]).filter(|d| seen.insert(&d.digest)).collect()
}

/// The bytes of a blob, checked: the config from the image itself, layers from the caller.
pub(super) fn open(
    path: &Path,
    image: &Image,
    descriptor: &Descriptor,
    blobs: Blobs<'_>,
) -> Result<Box<dyn Read + Send>, LayoutError> {
    let inner: Box<dyn Read + Send> = if descriptor.digest == image.manifest.config.digest {
        Box::new(io::Cursor::new(image.config_bytes.clone()))
    } else {
        let digest = descriptor.digest.clone();
        blobs(&digest).map_err(|source| LayoutError::Source { path: path.to_owned(), digest, source })?
    };
    Ok(Box::new(Verified::new(inner, descriptor)))
}

/// Copies a checked blob and says how far it is.
pub(super) fn copy(
    path: &Path,
    descriptor: &Descriptor,
    from: &mut dyn Read,
    to: &mut dyn Write,
    watch: Watch<'_>,
) -> Result<(), LayoutError> {
    let (digest, total) = (descriptor.digest.clone(), descriptor.size);
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(LayoutError::Source { path: path.to_owned(), digest, source }),
        };
        to.write_all(&buffer[..n]).map_err(LayoutError::io("write to", path))?;
        let before = done;
        done += n as u64;
        if before >> 22 != done >> 22 || done == total {
            watch(Event::Moved { digest: digest.clone(), done, total });
        }
    }
    Ok(())
}

/// Makes the directory a layout, unless it is something else already, and clears away what a killed writer left.
fn begin(dir: &Path) -> Result<(), LayoutError> {
    if dir.join("oci-layout").symlink_metadata().is_ok() {
        Layout::open_dir(dir)?;
    } else {
        for entry in fs::read_dir(dir).map_err(LayoutError::io("list", dir))? {
            let name = entry.map_err(LayoutError::io("list", dir))?.file_name();
            if !name.to_string_lossy().starts_with(TEMPORARY) {
                let why = format!("it has no `oci-layout` file, but `{}`", name.to_string_lossy().escape_debug());
                let remedy = Some("name an empty or a new directory".into());
                return Err(LayoutError::NotALayout { path: dir.to_owned(), why, remedy });
            }
        }
        put(dir, "oci-layout", |to| to.write_all(OCI_LAYOUT).map_err(LayoutError::io("write", dir)))?;
    }
    for parent in [dir.to_owned(), dir.join("blobs/sha256"), dir.join("blobs/sha512")] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                let _ = fs::remove_file(entry.path()); // a leftover does no harm
            }
        }
    }
    Ok(())
}

/// Whether the blob is there, whole. One that is not what its name says is made again.
fn is_there(lock: &File, dir: &Path, name: &str, descriptor: &Descriptor) -> Result<bool, LayoutError> {
    let Some(span) = open_regular(lock.as_fd(), dir, name)? else { return Ok(false) };
    Ok(io::copy(&mut Verified::new(span, descriptor), &mut io::sink()).is_ok())
}

fn put_blob(
    dir: &Path,
    digest: &Digest,
    fill: impl FnOnce(&mut File) -> Result<(), LayoutError>,
) -> Result<(), LayoutError> {
    let parent = dir.join("blobs").join(digest.algorithm());
    fs::create_dir_all(&parent).map_err(LayoutError::io("create", &parent))?;
    put(&parent, digest.hex(), fill)
}

/// A file under its name at once and whole: written, synced, renamed, and the directory synced.
pub(super) fn put(
    parent: &Path,
    name: &str,
    fill: impl FnOnce(&mut File) -> Result<(), LayoutError>,
) -> Result<(), LayoutError> {
    let path = parent.join(name);
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(parent)
        .map_err(LayoutError::io("create a file in", parent))?;
    fill(temporary.as_file_mut())?;
    temporary.as_file().sync_all().map_err(LayoutError::io("sync", &path))?;
    temporary.persist(&path).map_err(|error| LayoutError::io("write", &path)(error.error))?;
    let parent_file = File::open(parent).map_err(LayoutError::io("open", parent))?;
    parent_file.sync_all().map_err(LayoutError::io("sync", parent))
}

/// The manifest's entry in an `index.json`.
pub(super) fn entry(image: &Image, tag: Option<&str>) -> Value {
    let mut descriptor = image.descriptor();
    descriptor.annotations.extend(tag.map(|tag| (REF_NAME.to_owned(), tag.to_owned())));
    json!(descriptor)
}

/// An `index.json` with these entries.
pub(super) fn index_of(entries: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
}

/// What is there, with what other tools wrote into it, and the tag on the new image.
fn new_index(dir: &Path, image: &Image, tag: Option<&str>) -> Result<Value, LayoutError> {
    let layout = Layout::open_dir(dir)?;
    let Some(bytes) = layout.document("index.json")? else {
        return Ok(index_of(&[entry(image, tag)]));
    };
    layout.index()?; // as strict as a reader, before anything is kept
    let mut index: Value = read_json("`index.json`", &bytes).map_err(LayoutError::image(dir))?;
    if let Some(entries) = index.get_mut("manifests").and_then(Value::as_array_mut) {
        let name = |entry: &Value| entry["annotations"][REF_NAME].as_str().map(str::to_owned);
        entries.retain(|entry| name(entry).as_deref() != tag);
        entries.push(entry(image, tag));
    } else {
        index = index_of(&[entry(image, tag)]);
    }
    Ok(index)
}
