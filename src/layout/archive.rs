//! Writes archives: the same image gives the same bytes, and the file appears when it is complete.
//!
//! The tar writer is our own because its bytes must not change with a library's version.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use phial_layers::Compression;
use serde_json::json;

use super::OCI_LAYOUT;
use super::error::LayoutError;
use super::read::blob_name;
use super::replaceable::{ArchiveKind, check_replaceable, create_parents};
use super::write::{copy, descriptors, index_entry, index_of, open, write_atomically};
use crate::error::IoError;
use crate::event::Watch;
use crate::image::{Blobs, Descriptor, Image, canonical_json};

/// The content of an entry of an archive.
enum Content<'a> {
    /// skopeo without root fails to create directories that have no entry of their own.
    Directory,
    Bytes(Vec<u8>),
    Blob(&'a Descriptor),
}

/// The entries of an archive by name, and so in their order.
type ArchiveFiles<'a> = BTreeMap<String, Content<'a>>;

/// Writes a tar of a layout with this image.
pub fn write_oci_archive(
    file: &Path,
    image: &Image,
    tag: Option<&str>,
    blobs: Blobs<'_>,
    watch: Watch<'_>,
) -> Result<(), LayoutError> {
    let mut files = ArchiveFiles::new();
    files.insert("blobs/".into(), Content::Directory);
    for descriptor in descriptors(image) {
        files.insert(format!("blobs/{}/", descriptor.digest.algorithm()), Content::Directory);
        files.insert(blob_name(&descriptor.digest), Content::Blob(descriptor));
    }
    files.insert(blob_name(&image.manifest_digest), Content::Bytes(image.manifest_bytes.clone()));
    files.insert("index.json".into(), Content::Bytes(canonical_json(&index_of(&[index_entry(image, tag)]))));
    files.insert("oci-layout".into(), Content::Bytes(OCI_LAYOUT.to_vec()));
    check_replaceable(file, ArchiveKind::Oci)?;
    write(file, image, &files, blobs, watch)
}

/// Writes a tar for `docker load`. `name` is the image's name there: `app:v1`. Layers stay compressed, as in
/// go-containerregistry; every reader since Docker 1.10 supports that.
pub fn write_docker_archive(
    file: &Path,
    image: &Image,
    name: Option<&str>,
    blobs: Blobs<'_>,
    watch: Watch<'_>,
) -> Result<(), LayoutError> {
    let mut files = ArchiveFiles::new();
    let mut layers = Vec::new();
    for layer in image.layers() {
        let ending = match layer.compression {
            Compression::None => "tar",
            Compression::Gzip => "tar.gz",
            Compression::Zstd => "tar.zst",
        };
        let path = format!("{}.{ending}", layer.descriptor.digest.hex());
        layers.push(path.clone());
        files.insert(path, Content::Blob(layer.descriptor));
    }
    let config = format!("{}.json", image.manifest.config.digest.hex());
    let names: Vec<&str> = name.into_iter().collect();
    let manifest = json!([{"Config": config, "RepoTags": names, "Layers": layers}]);
    files.insert(config, Content::Bytes(image.config_bytes.clone()));
    files.insert("manifest.json".into(), Content::Bytes(canonical_json(&manifest)));
    check_replaceable(file, ArchiveKind::Docker)?;
    write(file, image, &files, blobs, watch)
}

fn write(
    file: &Path,
    image: &Image,
    files: &ArchiveFiles<'_>,
    blobs: Blobs<'_>,
    watch: Watch<'_>,
) -> Result<(), LayoutError> {
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else {
        let source = io::Error::from(io::ErrorKind::InvalidFilename);
        return Err(IoError { action: "write", path: file.to_owned(), source }.into());
    };
    create_parents(parent)?;
    write_atomically(parent, name, |to| {
        let mut tar = ArchiveWriter { path: file, out: BufWriter::with_capacity(1 << 20, to) };
        for (name, content) in files {
            match content {
                Content::Directory => tar.header(name, tar::EntryType::Directory, 0)?,
                Content::Bytes(bytes) => {
                    tar.append(name, bytes.len() as u64, |out| {
                        out.write_all(bytes).map_err(LayoutError::io("write to", file))
                    })?;
                }
                Content::Blob(descriptor) => {
                    let mut from: Box<dyn Read> = open(file, image, descriptor, blobs)?;
                    tar.append(name, descriptor.size, |out| copy(file, descriptor, &mut from, out, watch))?;
                }
            }
        }
        tar.finish()
    })
}

/// A tar writer with fixed metadata: modes 0644 and 0755, owner 0:0, time 0.
struct ArchiveWriter<'a> {
    path: &'a Path,
    out: BufWriter<&'a mut File>,
}

impl ArchiveWriter<'_> {
    fn append(
        &mut self,
        name: &str,
        size: u64,
        fill: impl FnOnce(&mut BufWriter<&mut File>) -> Result<(), LayoutError>,
    ) -> Result<(), LayoutError> {
        if name.len() > 100 {
            let size = name.len() as u64 + 1;
            self.header("././@LongLink", tar::EntryType::GNULongName, size)?;
            self.bytes(name.as_bytes())?;
            self.bytes(&vec![0; usize::try_from(1 + padding(size)).unwrap_or(1)])?;
        }
        self.header(name, tar::EntryType::Regular, size)?;
        fill(&mut self.out)?;
        self.bytes(&vec![0; usize::try_from(padding(size)).unwrap_or(0)])
    }

    fn header(&mut self, name: &str, kind: tar::EntryType, size: u64) -> Result<(), LayoutError> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind == tar::EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        let field = &mut header.as_old_mut().name;
        let fitting = name.len().min(field.len());
        field[..fitting].copy_from_slice(&name.as_bytes()[..fitting]);
        header.set_cksum();
        self.bytes(header.as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), LayoutError> {
        self.out.write_all(bytes).map_err(LayoutError::io("write to", self.path))
    }

    fn finish(mut self) -> Result<(), LayoutError> {
        self.bytes(&[0; 1024])?;
        self.out.flush().map_err(LayoutError::io("write to", self.path))
    }
}

/// Zeros after so many bytes, to the next block of 512.
fn padding(size: u64) -> u64 {
    size.next_multiple_of(512) - size
}
