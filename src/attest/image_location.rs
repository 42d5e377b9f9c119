//! The repository, layout or archive that holds an image, and the referrers of the image in it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use phial_layers::Digest;

use super::error::AttestError;
use crate::error::Error;
use crate::event::Watch;
use crate::image::{Artifact, BlobReader, Blobs, Descriptor, Reference, RegistryRef};
use crate::layout::{self, Layout, LayoutError, Names, Put};
use crate::registry::{ArtifactPush, Client};
use crate::tree::{OutputError, OutputPath};

/// Where an image is, without its tag and digest. As text: `registry/repo`, `oci:DIR` or `oci-archive:FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageLocation {
    /// A repository of a registry.
    Registry(RegistryRef),
    /// A layout directory.
    Layout(PathBuf),
    /// A tar of a layout; it is only read.
    Archive(PathBuf),
}

impl fmt::Display for ImageLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(repository) => write!(f, "{}", repository.name()),
            Self::Layout(dir) => write!(f, "oci:{}", dir.display()),
            Self::Archive(file) => write!(f, "oci-archive:{}", file.display()),
        }
    }
}

/// Digests of referrers, each with its artifact or with what is wrong with that.
pub(super) type Referrers = Vec<(Digest, Result<Artifact, AttestError>)>;

impl ImageLocation {
    /// Of a reference, whose tag and digest are dropped.
    pub fn of(reference: &Reference) -> Self {
        match reference {
            Reference::Registry(name) => Self::Registry(name.repository_only()),
            Reference::Layout { dir, .. } => Self::Layout(dir.clone()),
            Reference::OciArchive { file, .. } => Self::Archive(file.clone()),
        }
    }

    /// An error if a link of the working directory leads to a layout that is going to be written.
    pub fn check_links(&self, cwd: &Path) -> Result<(), OutputError> {
        match self {
            Self::Layout(dir) => OutputPath::new(dir, cwd).check_links(),
            Self::Registry(_) | Self::Archive(_) => Ok(()),
        }
    }

    /// Stores `artifact` as a referrer of its subject; `blobs` has the blobs that it names.
    pub fn attach(
        &self,
        client: &Client,
        artifact: &Artifact,
        blobs: Blobs<'_>,
        watch: Watch<'_>,
    ) -> Result<(), AttestError> {
        match self {
            Self::Registry(repository) => {
                client.put_referrer(repository, ArtifactPush { artifact, blobs, mount: &[] })?;
            }
            Self::Layout(dir) => {
                let referrers = Some((std::slice::from_ref(artifact), blobs));
                layout::put_into(
                    dir,
                    &Put { image: None, names: Names::Tags(&[]), referrers, check: &|_, _| true },
                    watch,
                )?;
            }
            Self::Archive(file) => return Err(AttestError::Archive(file.clone())),
        }
        Ok(())
    }

    /// The referrers that are listed for `subject`, damaged ones included. The list is not trusted: the subject in an
    /// artifact may be another one.
    pub(super) fn listed_referrers(&self, client: &Client, subject: &Digest) -> Result<Referrers, AttestError> {
        let mut referrers = Vec::new();
        match self.open()? {
            OpenImage::Registry(repository) => {
                let mut listed = client.referrers(repository, subject)?;
                listed.sort_by(|a, b| a.digest.cmp(&b.digest));
                listed.dedup_by(|a, b| a.digest == b.digest); // each is fetched once
                for entry in listed {
                    match client.artifact(repository, &entry.digest) {
                        Ok(None) => {} // removed since, or an index
                        Ok(Some(artifact)) => referrers.push((entry.digest, Ok(artifact))),
                        Err(error) => referrers.push((entry.digest, Err(damage(error.into())?))),
                    }
                }
            }
            OpenImage::Layout(layout) => {
                for (digest, artifact) in layout.referrers(subject)? {
                    let artifact = artifact.map(Ok).or_else(|error| damage(error.into()).map(Err))?;
                    referrers.push((digest, artifact));
                }
            }
        }
        Ok(referrers)
    }

    /// The referrers of `subject`, without damaged ones.
    pub fn referrers(&self, client: &Client, subject: &Digest) -> Result<Vec<Artifact>, AttestError> {
        let listed = self.listed_referrers(client, subject)?;
        let intact = listed.into_iter().filter_map(|(_, artifact)| artifact.ok());
        Ok(intact.filter(|artifact| artifact.is_about(subject)).collect())
    }

    /// The bytes of a small blob, whose digest is verified.
    pub fn document(&self, client: &Client, descriptor: &Descriptor) -> Result<Vec<u8>, AttestError> {
        Ok(match self.open()? {
            OpenImage::Registry(repository) => client.document(repository, descriptor)?,
            OpenImage::Layout(layout) => layout.bytes(descriptor)?,
        })
    }

    /// A blob as a stream; its last read fails if size or digest is wrong.
    pub fn blob(&self, client: &Client, descriptor: &Descriptor) -> Result<BlobReader, AttestError> {
        Ok(match self.open()? {
            OpenImage::Registry(repository) => Box::new(client.blob(repository, descriptor)?),
            OpenImage::Layout(layout) => Box::new(layout.blob(descriptor)?),
        })
    }

    fn open(&self) -> Result<OpenImage<'_>, LayoutError> {
        Ok(match self {
            Self::Registry(repository) => OpenImage::Registry(repository),
            Self::Layout(dir) => OpenImage::Layout(Layout::open_dir(dir)?),
            Self::Archive(file) => OpenImage::Layout(Layout::open_archive(file)?),
        })
    }
}

/// A location that can be read.
enum OpenImage<'a> {
    Registry(&'a RegistryRef),
    Layout(Layout),
}

/// Damage of one referrer is a result; every other error ends the listing.
fn damage(error: AttestError) -> Result<AttestError, AttestError> {
    if error.is_damage() { Ok(error) } else { Err(error) }
}

/// Blobs with one blob in them.
pub fn single_blob(document: &[u8]) -> impl Fn(&Digest) -> Result<Option<BlobReader>, Error> + Sync {
    let document = document.to_vec();
    move |digest| {
        let is_document = *digest == Digest::of(&document);
        Ok(is_document.then(|| Box::new(io::Cursor::new(document.clone())) as BlobReader))
    }
}
