//! Where an image is, and what stands beside it there: one way to ask a registry, a layout and an archive.

use std::fmt;
use std::io;
use std::path::PathBuf;

use phial_layers::Digest;

use super::error::AttestError;
use crate::error::Error;
use crate::event::Watch;
use crate::image::{Artifact, BlobReader, Blobs, Descriptor, Reference, RegistryRef};
use crate::layout::{self, Layout, LayoutError, Names, Put};
use crate::registry::Client;

/// A repository, a layout directory, or an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageLocation {
    /// A repository of a registry.
    Registry(RegistryRef),
    /// A layout directory.
    Layout(PathBuf),
    /// A tar of a layout, to be read only.
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

/// A referrer that is listed, by its digest: what it is, or why that cannot be said.
pub(super) type Listing = Vec<(Digest, Result<Artifact, AttestError>)>;

impl ImageLocation {
    /// The place of a reference, without tag and digest.
    pub fn of(reference: &Reference) -> Self {
        match reference {
            Reference::Registry(name) => Self::Registry(name.repository_only()),
            Reference::Layout { dir, .. } => Self::Layout(dir.clone()),
            Reference::OciArchive { file, .. } => Self::Archive(file.clone()),
        }
    }

    /// Puts `artifact` beside the image that it is about. `documents` gives the blobs that it names; `mount` names
    /// repositories of the same registry that may have them.
    pub fn attach(
        &self,
        client: &Client,
        (artifact, documents): (&Artifact, Blobs<'_>),
        mount: &[&str],
        watch: Watch<'_>,
    ) -> Result<(), AttestError> {
        match self {
            Self::Registry(repository) => client.refer(repository, artifact, documents, mount).map(drop)?,
            Self::Layout(dir) => {
                let referrers = Some((std::slice::from_ref(artifact), documents));
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

    /// What is listed as being about `subject`; a damaged one does not hide the others. Some may be about something else.
    pub(super) fn listing(&self, client: &Client, subject: &Digest) -> Result<Listing, AttestError> {
        let mut found = Vec::new();
        match self.open()? {
            Open::Registry(repository) => {
                for entry in client.referrers(repository, subject)? {
                    match client.artifact(repository, &entry.digest) {
                        Ok(None) => {} // removed since, or an index
                        Ok(Some(artifact)) => found.push((entry.digest, Ok(artifact))),
                        Err(error) => found.push((entry.digest, Err(damage(error.into())?))),
                    }
                }
            }
            Open::Layout(layout) => {
                for (digest, artifact) in layout.referrers(subject)? {
                    let artifact = artifact.map(Ok).or_else(|error| damage(error.into()).map(Err))?;
                    found.push((digest, artifact));
                }
            }
        }
        Ok(found)
    }

    /// What is about `subject`, to be copied along with it. Whatever is damaged stays behind.
    pub fn referrers(&self, client: &Client, subject: &Digest) -> Result<Vec<Artifact>, AttestError> {
        let listing = self.listing(client, subject)?;
        Ok(listing.into_iter().filter_map(|(_, it)| it.ok()).filter(|it| it.is_about(subject)).collect())
    }

    /// A small blob, checked.
    pub fn document(&self, client: &Client, of: &Descriptor) -> Result<Vec<u8>, AttestError> {
        Ok(match self.open()? {
            Open::Registry(repository) => client.document(repository, of)?,
            Open::Layout(layout) => layout.bytes(of)?,
        })
    }

    /// A blob of any size as a stream that errs unless it is the descriptor's.
    pub fn blob(&self, client: &Client, of: &Descriptor) -> Result<BlobReader, AttestError> {
        Ok(match self.open()? {
            Open::Registry(repository) => Box::new(client.blob(repository, of)?),
            Open::Layout(layout) => Box::new(layout.blob(of)?),
        })
    }

    fn open(&self) -> Result<Open<'_>, LayoutError> {
        Ok(match self {
            Self::Registry(repository) => Open::Registry(repository),
            Self::Layout(dir) => Open::Layout(Layout::open_dir(dir)?),
            Self::Archive(file) => Open::Layout(Layout::open_archive(file)?),
        })
    }
}

/// A place that is ready to be asked.
enum Open<'a> {
    Registry(&'a RegistryRef),
    Layout(Layout),
}

/// Damage is a finding; everything else ends the search.
fn damage(error: AttestError) -> Result<AttestError, AttestError> {
    if error.is_damage() { Ok(error) } else { Err(error) }
}

/// A source of blobs that has one document and no other.
pub fn only(document: &[u8]) -> impl Fn(&Digest) -> Result<Option<BlobReader>, Error> + Sync {
    let document = document.to_vec();
    move |digest| {
        let is_it = *digest == Digest::of(&document);
        Ok(is_it.then(|| Box::new(io::Cursor::new(document.clone())) as BlobReader))
    }
}
