//! Writes layout directories: blobs first, `index.json` last.

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
use super::replaceable::check_layout_or_empty;
use super::{OCI_LAYOUT, REF_NAME, TEMPORARY};
use crate::event::{Event, Watch};
use crate::image::{
    Artifact, BlobReader, BlobSourceError, Blobs, Descriptor, EMPTY_BYTES, Image, MAX_MANIFEST_PULL, OCI_INDEX,
    Verified, canonical_json, read_json,
};

/// What is put into a layout; `index.json` is written once, last.
#[derive(Clone, Copy)]
pub struct Put<'a> {
    /// An image, and the source of its layers.
    pub image: Option<(&'a Image, Blobs<'a>)>,
    /// The tags of the image.
    pub names: Names<'a>,
    /// Referrers of an image, and the source of their blobs.
    pub referrers: Option<(&'a [Artifact], Blobs<'a>)>,
    /// Called with each tag and the digest that it names, while the layout is locked; false if the tag must not be moved.
    pub check: Check<'a>,
}

/// The tags of an image in a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names<'a> {
    /// None: the image replaces all images without a tag.
    Unnamed,
    /// These tags, which are taken from other images. If the list is empty, the image is added without a tag.
    Tags(&'a [String]),
}

impl<'a> Names<'a> {
    fn tags(self) -> &'a [String] {
        match self {
            Self::Unnamed => &[],
            Self::Tags(tags) => tags,
        }
    }
}

/// See [`Put::check`].
pub type Check<'a> = &'a dyn Fn(&str, Option<&Digest>) -> bool;

/// Adds `image` to the layout at `dir` under `tag`, which is taken from another image that has it. Without a tag, it replaces
/// all images without a tag. Blobs of other images stay. See [`put_into`].
pub fn write_layout(
    dir: &Path,
    image: &Image,
    tag: Option<&str>,
    blobs: Blobs<'_>,
    watch: Watch<'_>,
) -> Result<(), LayoutError> {
    let tags: Vec<String> = tag.map(str::to_owned).into_iter().collect();
    let names = if tags.is_empty() { Names::Unnamed } else { Names::Tags(&tags) };
    put_into(dir, &Put { image: Some((image, blobs)), names, referrers: None, check: &|_, _| true }, watch)
}

/// Puts an image or referrers into the layout at `dir`, which is created if needed. It may be repeated, killed, and run twice
/// at the same time: writers wait for each other. After an error the layout is as before.
pub fn put_into(dir: &Path, what: &Put<'_>, watch: Watch<'_>) -> Result<(), LayoutError> {
    let made = !dir.exists();
    fs::create_dir_all(dir).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => LayoutError::not_a_directory(dir),
        _ => LayoutError::io("create", dir)(error),
    })?;
    check_blob_dirs(dir)?;
    let lock = File::open(dir).map_err(LayoutError::io("open", dir))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|e| LayoutError::io("lock", dir)(e.into()))?;
    let names = what.digests().into_iter().map(blob_name).chain(["oci-layout".to_owned()]);
    let missing: Vec<String> = names.filter(|name| fs::symlink_metadata(dir.join(name)).is_err()).collect();
    let written = write_files(&lock, dir, what, watch);
    if written.is_err() {
        roll_back(&lock, dir, what, &missing);
        if made {
            let _ = fs::remove_dir(dir);
        }
    }
    written
}

impl Put<'_> {
    fn artifacts(&self) -> &[Artifact] {
        self.referrers.map_or(&[], |(artifacts, _)| artifacts)
    }

    /// All blobs and manifests that are put.
    fn digests(&self) -> Vec<&Digest> {
        let image = self.image.into_iter().flat_map(|(image, _)| {
            descriptors(image).into_iter().map(|blob| &blob.digest).chain([&image.manifest_digest])
        });
        let artifacts = self
            .artifacts()
            .iter()
            .flat_map(|artifact| artifact.blobs().into_iter().map(|blob| &blob.digest).chain([&artifact.digest]));
        image.chain(artifacts).collect()
    }
}

/// The directories of blobs must be none or be directories: a commit, or an untrusted layout, could have links that lead out of
/// the layout.
fn check_blob_dirs(dir: &Path) -> Result<(), LayoutError> {
    for name in ["blobs", "blobs/sha256", "blobs/sha512"] {
        if fs::symlink_metadata(dir.join(name)).is_ok_and(|meta| !meta.is_dir()) {
            return Err(LayoutError::not_a_layout(dir, format!("its `{name}` is no directory")));
        }
    }
    Ok(())
}

/// The bytes of `index.json`; none if there is none that Phial reads.
fn index_bytes(lock: &File, dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(Some(span)) = open_regular(lock.as_fd(), dir, "index.json") {
        let _ = span.take(MAX_MANIFEST_PULL).read_to_end(&mut bytes);
    }
    bytes
}

/// Removes the files that did not exist before, unless `index.json` names them.
fn roll_back(lock: &File, dir: &Path, what: &Put<'_>, missing: &[String]) {
    let index = String::from_utf8_lossy(&index_bytes(lock, dir)).into_owned();
    let heads = what.image.map(|(image, _)| &image.manifest_digest).into_iter();
    if heads.chain(what.artifacts().iter().map(|artifact| &artifact.digest)).any(|head| index.contains(head.as_str())) {
        return;
    }
    for name in missing {
        let _ = fs::remove_file(dir.join(name));
    }
    for name in ["blobs/sha256", "blobs/sha512", "blobs"] {
        let _ = fs::remove_dir(dir.join(name)); // fails if it is not empty
    }
}

fn write_files(lock: &File, dir: &Path, what: &Put<'_>, watch: Watch<'_>) -> Result<(), LayoutError> {
    initialize(dir)?;
    if let Some((image, blobs)) = what.image {
        for descriptor in descriptors(image) {
            write_blob(lock, dir, descriptor, &|| open(dir, image, descriptor, blobs), watch)?;
        }
        write_document(lock, dir, &image.descriptor(), &image.manifest_bytes)?;
    }
    for artifact in what.artifacts() {
        let documents = what.referrers.map(|(_, documents)| documents);
        for descriptor in artifact.blobs() {
            write_blob(lock, dir, descriptor, &|| document(dir, descriptor, documents), watch)?;
        }
        write_document(lock, dir, &artifact.descriptor(), &artifact.bytes)?;
    }
    let index = canonical_json(&new_index(dir, what)?);
    if index_bytes(lock, dir) == index {
        return Ok(());
    }
    write_atomically(dir, "index.json", |to| to.write_all(&index).map_err(LayoutError::io("write", dir)))
}

fn write_blob(
    lock: &File,
    dir: &Path,
    descriptor: &Descriptor,
    open: &dyn Fn() -> Result<BlobReader, LayoutError>,
    watch: Watch<'_>,
) -> Result<(), LayoutError> {
    if has_blob(lock, dir, &blob_name(&descriptor.digest), descriptor)? {
        return Ok(());
    }
    write_blob_file(dir, &descriptor.digest, |to| copy(dir, descriptor, &mut open()?, to, watch))
}

fn write_document(lock: &File, dir: &Path, of: &Descriptor, bytes: &[u8]) -> Result<(), LayoutError> {
    if has_blob(lock, dir, &blob_name(&of.digest), of)? {
        return Ok(());
    }
    write_blob_file(dir, &of.digest, |to| to.write_all(bytes).map_err(LayoutError::io("write to", dir)))
}

/// A blob of a referrer, checked; the empty config needs no source.
fn document(dir: &Path, of: &Descriptor, from: Option<Blobs<'_>>) -> Result<BlobReader, LayoutError> {
    match from {
        _ if of.digest == Digest::of(EMPTY_BYTES) => Ok(Box::new(EMPTY_BYTES)),
        None => Err(LayoutError::source(dir, &of.digest, BlobSourceError::Missing)),
        Some(from) => from_source(dir, of, from),
    }
}

/// A blob of a source, checked.
fn from_source(path: &Path, of: &Descriptor, from: Blobs<'_>) -> Result<BlobReader, LayoutError> {
    let opened = from(&of.digest).map_err(|error| LayoutError::source(path, &of.digest, error))?;
    let inner = opened.ok_or_else(|| LayoutError::source(path, &of.digest, BlobSourceError::Missing))?;
    Ok(Box::new(Verified::new(inner, of)))
}

/// The layers and the config of an image, each blob once.
pub(super) fn descriptors(image: &Image) -> Vec<&Descriptor> {
    let mut seen = std::collections::BTreeSet::new();
    image.manifest.layers.iter().chain([&image.manifest.config]).filter(|d| seen.insert(&d.digest)).collect()
}

/// A blob of an image, checked: the config from the image itself, a layer from its source.
pub(super) fn open(
    path: &Path,
    image: &Image,
    descriptor: &Descriptor,
    blobs: Blobs<'_>,
) -> Result<BlobReader, LayoutError> {
    if descriptor.digest == image.manifest.config.digest {
        return Ok(Box::new(Verified::new(io::Cursor::new(image.config_bytes.clone()), descriptor)));
    }
    from_source(path, descriptor, blobs)
}

/// Copies a checked blob and reports the progress.
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
            Err(error) => return Err(LayoutError::source(path, &digest, error)),
        };
        to.write_all(&buffer[..n]).map_err(LayoutError::io("write to", path))?;
        let before = done;
        done += n as u64;
        if before >> 22 != done >> 22 || done == total {
            watch(Event::BytesTransferred { digest: digest.clone(), done, total });
        }
    }
    Ok(())
}

/// Creates `oci-layout` in an empty directory, and removes temporary files of killed writers. A directory with other files is
/// an error.
fn initialize(dir: &Path) -> Result<(), LayoutError> {
    if !check_layout_or_empty(dir)? {
        write_atomically(dir, "oci-layout", |to| to.write_all(OCI_LAYOUT).map_err(LayoutError::io("write", dir)))?;
    }
    for parent in [dir.to_owned(), dir.join("blobs/sha256"), dir.join("blobs/sha512")] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                let _ = fs::remove_file(entry.path()); // one that stays does no harm
            }
        }
    }
    Ok(())
}

/// Whether the blob exists and has its digest. A damaged one is written again.
fn has_blob(lock: &File, dir: &Path, name: &str, descriptor: &Descriptor) -> Result<bool, LayoutError> {
    let Some(span) = open_regular(lock.as_fd(), dir, name)? else { return Ok(false) };
    Ok(io::copy(&mut Verified::new(span, descriptor), &mut io::sink()).is_ok())
}

fn write_blob_file(
    dir: &Path,
    digest: &Digest,
    write: impl FnOnce(&mut File) -> Result<(), LayoutError>,
) -> Result<(), LayoutError> {
    let parent = dir.join("blobs").join(digest.algorithm());
    fs::create_dir_all(&parent).map_err(LayoutError::io("create", &parent))?;
    write_atomically(&parent, digest.hex(), write)
}

/// Writes a file so that it appears complete: temporary file, sync, rename, sync of the directory.
pub(super) fn write_atomically(
    parent: &Path,
    name: &str,
    write: impl FnOnce(&mut File) -> Result<(), LayoutError>,
) -> Result<(), LayoutError> {
    let path = parent.join(name);
    let mut temporary = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(parent)
        .map_err(LayoutError::io("create a file in", parent))?;
    write(temporary.as_file_mut())?;
    temporary.as_file().sync_all().map_err(LayoutError::io("sync", &path))?;
    temporary.persist(&path).map_err(|error| LayoutError::io("write", &path)(error.error))?;
    let parent_file = File::open(parent).map_err(LayoutError::io("open", parent))?;
    parent_file.sync_all().map_err(LayoutError::io("sync", parent))
}

/// The entry of an image in `index.json`.
pub(super) fn index_entry(image: &Image, tag: Option<&str>) -> Value {
    let mut descriptor = image.descriptor();
    descriptor.annotations.extend(tag.map(|tag| (REF_NAME.to_owned(), tag.to_owned())));
    json!(descriptor)
}

/// An `index.json` with these entries.
pub(super) fn index_of(entries: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
}

/// The present `index.json` with the new entries. Fields that other tools wrote are kept.
fn new_index(dir: &Path, what: &Put<'_>) -> Result<Value, LayoutError> {
    let layout = Layout::open_dir(dir)?;
    let mut index = match layout.document("index.json")? {
        None => index_of(&[]),
        Some(bytes) => {
            layout.index()?; // checked as strictly as for reading
            read_json("`index.json`", &bytes).map_err(LayoutError::image(dir))?
        }
    };
    if !index["manifests"].is_array() {
        index = index_of(&[]);
    }
    let Some(entries) = index["manifests"].as_array_mut() else { return Ok(index) };
    for tag in what.names.tags() {
        let named = entries.iter().find(|entry| tag_of(entry) == Some(tag));
        let found: Option<Digest> = named.and_then(|entry| entry["digest"].as_str()?.parse().ok());
        if !(what.check)(tag, found.as_ref()) {
            return Err(LayoutError::Moved { path: dir.to_owned(), tag: tag.clone(), found });
        }
    }
    if let Some((image, _)) = what.image {
        if what.names == Names::Unnamed {
            entries.retain(|entry| tag_of(entry).is_some() || layout.is_referrer(entry));
            entries.push(index_entry(image, None));
        }
        for tag in what.names.tags() {
            entries.retain(|entry| tag_of(entry) != Some(tag));
            entries.push(index_entry(image, Some(tag)));
        }
        if !entries.iter().any(|entry| entry["digest"] == image.manifest_digest.as_str()) {
            entries.push(index_entry(image, None));
        }
    }
    for artifact in what.artifacts() {
        if !entries.iter().any(|entry| entry["digest"] == artifact.digest.as_str()) {
            entries.push(json!(artifact.descriptor()));
        }
    }
    Ok(index)
}

/// The tag of an entry.
fn tag_of(entry: &Value) -> Option<&str> {
    entry["annotations"][REF_NAME].as_str()
}
