//! Reads layouts: images by name, blobs by digest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use phial_layers::{Compression, Digest};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use serde::Deserialize;

use super::REF_NAME;
use super::error::LayoutError;
use crate::image::{
    Descriptor, Document, DocumentSource, Image, ImageError, Index, MAX_MANIFEST_PULL, ManifestOrIndex, Platform,
    Verified, read_json, read_manifest, shown,
};

/// Entries of an archive that are read at most.
const MAX_ENTRIES: usize = 100_000;

/// A layout that is open for reading.
#[derive(Debug)]
pub struct Layout {
    pub(super) path: PathBuf,
    files: LayoutFiles,
}

#[derive(Debug)]
enum LayoutFiles {
    Dir(OwnedFd),
    /// The archive, and offset and size of each file in it.
    Archive(Arc<File>, BTreeMap<String, (u64, u64)>),
}

/// The bytes of one blob, checked while they are read.
pub type Blob = Verified<Span>;

/// A range of bytes of a file.
#[derive(Debug)]
pub struct Span {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Span {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let n = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// The file `oci-layout`, as JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutHeader {
    image_layout_version: String,
}

fn open_error(path: &Path, errno: Errno) -> LayoutError {
    match errno {
        Errno::NOENT => LayoutError::Absent { path: path.into() },
        other => LayoutError::io("open", path)(other.into()),
    }
}

impl Layout {
    /// Opens a layout directory.
    pub fn open_dir(dir: &Path) -> Result<Self, LayoutError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(dir, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOTDIR => LayoutError::not_a_directory(dir),
            other => open_error(dir, other),
        })?;
        Self::checked(dir, LayoutFiles::Dir(fd))
    }

    /// Opens a tar of a layout. Its headers are read once; entries with other names than a layout's are ignored.
    pub fn open_archive(path: &Path) -> Result<Self, LayoutError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| open_error(path, e))?;
        let file = File::from(fd);
        let is_file = file.metadata().map_err(LayoutError::io("look at", path))?.is_file();
        let mut magic = [0; 4];
        let n = if is_file { file.read_at(&mut magic, 0).map_err(LayoutError::io("read", path))? } else { 0 };
        let (why, remedy) = if !is_file {
            ("it is not a regular file", Some(format!("for a directory write `oci:{}`", path.display())))
        } else if Compression::sniff(&magic[..n]) != Compression::None {
            ("it is compressed", Some("decompress the archive first".into()))
        } else {
            let entries = locate_files(&file).map_err(LayoutError::tar_headers(path))?;
            return Self::checked(path, LayoutFiles::Archive(Arc::new(file), entries));
        };
        Err(LayoutError::NotALayout { path: path.into(), why: why.into(), remedy })
    }

    fn checked(path: &Path, files: LayoutFiles) -> Result<Self, LayoutError> {
        let layout = Self { path: path.to_owned(), files };
        let Some(bytes) = layout.document("oci-layout")? else {
            let why = "it has no `oci-layout` file".into();
            let is_docker =
                matches!(&layout.files, LayoutFiles::Archive(_, entries) if entries.contains_key("manifest.json"));
            let remedy =
                is_docker.then(|| "it looks like the output of `docker save`: convert it with `skopeo copy`".into());
            return Err(LayoutError::NotALayout { path: path.to_owned(), why, remedy });
        };
        let header: LayoutHeader = read_json("`oci-layout`", &bytes).map_err(LayoutError::image(path))?;
        if header.image_layout_version != "1.0.0" {
            let why = format!("its version is `{}`, not `1.0.0`", shown(&header.image_layout_version));
            return Err(LayoutError::not_a_layout(path, why));
        }
        Ok(layout)
    }

    /// The image that a tag or digest names; the digest wins. Without both, the only image in the layout. Through an index
    /// the image for `platform`, whose config must agree.
    pub fn resolve(
        &self,
        tag: Option<&str>,
        digest: Option<&Digest>,
        platform: &Platform,
    ) -> Result<Image, LayoutError> {
        let index = self.index()?;
        let entry = match digest {
            Some(digest) => self.by_digest(&index, digest)?,
            None => self.by_tag(&index, tag, platform)?.clone(),
        };
        let image = self.manifest(&entry)?.into_image(platform, self)?;
        if entry.platform.is_some() {
            image.check_platform(platform).map_err(LayoutError::image(&self.path))?;
        }
        Ok(image)
    }

    /// The blob as a stream that fails before its last bytes unless it has the digest and size of `descriptor`.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Blob, LayoutError> {
        let digest = &descriptor.digest;
        let span = self.span(&blob_name(digest))?;
        let missing = || LayoutError::MissingBlob { path: self.path.clone(), digest: digest.clone() };
        Ok(Verified::new(span.ok_or_else(missing)?, descriptor))
    }

    /// The parsed `index.json`.
    pub(super) fn index(&self) -> Result<Index, LayoutError> {
        let Some(bytes) = self.document("index.json")? else {
            return Err(LayoutError::not_a_layout(&self.path, "it has no `index.json`"));
        };
        match read_manifest(&bytes, None).map_err(LayoutError::image(&self.path))? {
            ManifestOrIndex::Index(index) => Ok(index),
            ManifestOrIndex::Manifest(_) => {
                Err(LayoutError::not_a_layout(&self.path, "its `index.json` is a manifest, not an index"))
            }
        }
    }

    fn by_digest(&self, index: &Index, digest: &Digest) -> Result<Descriptor, LayoutError> {
        if let Some(descriptor) = index.manifests.iter().find(|d| d.digest == *digest) {
            return Ok(descriptor.clone());
        }
        let Some(span) = self.span(&blob_name(digest))? else {
            return Err(self.not_found(index, format!(" `{digest}`")));
        };
        let wanted = Descriptor::new("", digest.clone(), span.left);
        let bytes = self.bytes(&wanted)?;
        let kind = match read_manifest(&bytes, None).map_err(LayoutError::image(&self.path))? {
            ManifestOrIndex::Manifest(manifest) => manifest.media_type,
            ManifestOrIndex::Index(index) => index.media_type.or(Some(crate::image::OCI_INDEX.into())),
        };
        Ok(Descriptor { media_type: kind.unwrap_or_else(|| crate::image::OCI_MANIFEST.into()), ..wanted })
    }

    fn by_tag<'a>(
        &self,
        index: &'a Index,
        tag: Option<&str>,
        platform: &Platform,
    ) -> Result<&'a Descriptor, LayoutError> {
        let is_it = |d: &&Descriptor| tag.is_none_or(|tag| d.annotations.get(REF_NAME).is_some_and(|name| name == tag));
        let mut found: Vec<&Descriptor> = index.manifests.iter().filter(is_it).collect();
        found.sort_by(|a, b| a.digest.cmp(&b.digest));
        found.dedup_by(|a, b| a.digest == b.digest);
        if found.len() > 1 {
            found.retain(|d| !self.is_referrer_entry(d)); // test records, for example
        }
        let wanted = tag.map_or_else(String::new, |tag| format!(" tagged `{}`", shown(tag)));
        match found.as_slice() {
            [] => Err(self.not_found(index, wanted)),
            [only] => Ok(only),
            [first, ..]
                if found.iter().all(|d| {
                    d.platform.is_some() && d.annotations.get(REF_NAME) == first.annotations.get(REF_NAME)
                }) =>
            {
                let choice = Index { manifests: found.iter().copied().cloned().collect(), ..Index::default() };
                let digest = platform.select(&choice).map_err(LayoutError::image(&self.path))?.digest.clone();
                let pick = found.into_iter().find(|d| d.digest == digest);
                pick.ok_or_else(|| self.not_found(index, wanted))
            }
            _ => {
                let wanted = if wanted.is_empty() { ", and no tag is given".into() } else { wanted };
                Err(LayoutError::Ambiguous { path: self.path.clone(), wanted, offered: offered(index) })
            }
        }
    }

    fn not_found(&self, index: &Index, wanted: String) -> LayoutError {
        LayoutError::NotFound { path: self.path.clone(), wanted, offered: offered(index) }
    }

    /// The checked bytes of a small blob, such as a manifest, config or test record: at most 8 MiB.
    pub fn bytes(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        if descriptor.size > MAX_MANIFEST_PULL {
            let size = descriptor.size;
            let source = ImageError::TooLarge { what: "a manifest or config", size, limit: MAX_MANIFEST_PULL };
            return Err(LayoutError::Image { path: self.path.clone(), source });
        }
        let digest = &descriptor.digest;
        let span = self.span(&blob_name(digest))?;
        let span = span.ok_or_else(|| LayoutError::MissingBlob { path: self.path.clone(), digest: digest.clone() })?;
        let mut bytes = Vec::new();
        // One byte more shows that the blob is longer than it should be.
        span.take(descriptor.size + 1)
            .read_to_end(&mut bytes)
            .map_err(LayoutError::io("read a blob in", &self.path))?;
        let checked = descriptor.check(&bytes);
        checked.map_err(|source| LayoutError::Blob { path: self.path.clone(), source })?;
        Ok(bytes)
    }

    /// A file at the top of the layout; `None` if it does not exist.
    pub(super) fn document(&self, name: &str) -> Result<Option<Vec<u8>>, LayoutError> {
        let Some(span) = self.span(name)? else { return Ok(None) };
        if span.left > MAX_MANIFEST_PULL {
            return Err(LayoutError::not_a_layout(
                &self.path,
                format!("`{name}` has more than {MAX_MANIFEST_PULL} bytes"),
            ));
        }
        let mut bytes = Vec::new();
        span.take(MAX_MANIFEST_PULL)
            .read_to_end(&mut bytes)
            .map(|_| Some(bytes))
            .map_err(LayoutError::io("read", &self.path.join(name)))
    }

    fn span(&self, name: &str) -> Result<Option<Span>, LayoutError> {
        match &self.files {
            LayoutFiles::Archive(file, entries) => {
                Ok(entries.get(name).map(|(at, left)| Span { file: Arc::clone(file), at: *at, left: *left }))
            }
            LayoutFiles::Dir(fd) => open_regular(fd.as_fd(), &self.path, name),
        }
    }
}

impl DocumentSource for Layout {
    type Error = LayoutError;

    fn manifest(&self, descriptor: &Descriptor) -> Result<Document, LayoutError> {
        Ok(Document { bytes: self.bytes(descriptor)?, media_type: descriptor.media_type.clone() })
    }

    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        self.bytes(descriptor)
    }

    fn refused(&self, _: Option<&Digest>, error: ImageError) -> LayoutError {
        LayoutError::image(&self.path)(error)
    }
}

/// Opens a file below `dir` without following links, and without waiting on a named pipe.
pub(super) fn open_regular(
    dir: std::os::fd::BorrowedFd<'_>,
    path: &Path,
    name: &str,
) -> Result<Option<Span>, LayoutError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let not_regular = || LayoutError::NotRegular { path: path.to_owned(), name: name.to_owned() };
    let file = match openat2(dir, name, flags, Mode::empty(), resolve) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NXIO) => return Err(not_regular()),
        Err(errno) => return Err(LayoutError::io("open", &path.join(name))(errno.into())),
    };
    let metadata = file.metadata().map_err(LayoutError::io("look at", &path.join(name)))?;
    if !metadata.is_file() {
        return Err(not_regular());
    }
    Ok(Some(Span { file: Arc::new(file), at: 0, left: metadata.len() }))
}

/// Offset and size of each file of a layout in a tar. Other names, and all but regular files, are ignored.
fn locate_files(file: &File) -> io::Result<BTreeMap<String, (u64, u64)>> {
    let mut entries = BTreeMap::new();
    let mut archive = tar::Archive::new(file);
    for (count, entry) in archive.entries_with_seek()?.enumerate() {
        let entry = entry?;
        if count >= MAX_ENTRIES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many entries"));
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path_bytes();
        let Ok(name) = std::str::from_utf8(&path) else { continue };
        let name = name.strip_prefix("./").unwrap_or(name);
        let is_top = matches!(name, "oci-layout" | "index.json" | "manifest.json");
        if !is_top && !is_blob_name(name) {
            continue;
        }
        let position = (entry.raw_file_position(), entry.size());
        if entries.insert(name.to_owned(), position).is_some() && is_top {
            // Readers differ in which of the two they use.
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{name}` appears twice")));
        }
    }
    Ok(entries)
}

/// An error if a file is not a tar that `docker load` reads: one with a `manifest.json`.
pub(super) fn check_docker_archive(path: &Path) -> Result<(), LayoutError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| open_error(path, e))?;
    let entries = locate_files(&File::from(fd)).map_err(LayoutError::tar_headers(path))?;
    let has_manifest = entries.contains_key("manifest.json");
    if has_manifest { Ok(()) } else { Err(LayoutError::not_a_layout(path, "it has no `manifest.json`")) }
}

fn is_blob_name(name: &str) -> bool {
    name.strip_prefix("blobs/").is_some_and(|digest| digest.replacen('/', ":", 1).parse::<Digest>().is_ok())
}

/// `blobs/sha256/<hex>`.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn offered(index: &Index) -> String {
    let names = index.manifests.iter().take(20).map(|d| match d.annotations.get(REF_NAME) {
        Some(name) => format!("`{}`", shown(name)),
        None => format!("`{}`", d.digest),
    });
    let names: Vec<String> = names.collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
