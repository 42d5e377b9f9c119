//! The deps cache in a registry: what one runner made, another one need not make.
//!
//! An entry is an image of one layer, the same blob that built images have, under a tag that names the cache key. It is
//! looked up by its exact key, written once and never moved. [`fallback`] has the tags that move: they name the last deps
//! layer over the same base. A hit is not fetched before somebody needs its files: a build that only assembles an image has
//! the layer mounted. Whatever goes wrong here is a notice and fails no build.

mod admin;
mod entry;
mod fallback;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use phial_layers::Digest;

pub use self::admin::{Entry, entries, prune_entries};
pub(crate) use self::entry::entry_digest;
use crate::context::Context;
use crate::error::{Error, IoError, chain};
use crate::image::{BlobReader, Image, PackedLayer, Platform, RegistryRef, Target};
use crate::registry::{Push, RegistryError};
use crate::store::{Key, StoreError};

/// The step whose results are shared. Those of other steps depend on the commit, which is seldom built twice.
pub(crate) const STEP: &str = "deps";

/// What a build may do with the deps cache in a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoteCacheMode {
    /// Neither read nor write.
    #[default]
    Off,
    /// Use entries of others: whoever may push there is trusted as the app's own code is.
    Read,
    /// Use entries, and add what this build makes.
    Write,
}

/// The deps cache as one build sees it.
pub(crate) struct RemoteCache<'a> {
    context: &'a Context<'a>,
    /// The app's name in keys of the fallback on this machine.
    app: String,
    repository: Option<RegistryRef>,
    /// Blobs that are in the repository and need not be in the store.
    known: Mutex<BTreeSet<Digest>>,
    failed: AtomicBool,
}

impl<'a> RemoteCache<'a> {
    /// No repository: only the fallback on this machine works.
    pub(crate) fn off(context: &'a Context<'a>, app: &str) -> Self {
        Self { context, app: app.into(), repository: None, known: Mutex::default(), failed: AtomicBool::new(false) }
    }

    /// The cache in `repository`, or else in the repository of the first target that is in a registry.
    pub(crate) fn new(
        context: &'a Context<'a>,
        app: &str,
        repository: Option<&RegistryRef>,
        targets: &[Target],
    ) -> Self {
        let own = targets.iter().find_map(|target| match target {
            Target::Registry(to) => Some(to),
            _ => None,
        });
        Self { repository: repository.or(own).map(RegistryRef::repository_only), ..Self::off(context, app) }
    }

    /// The repository; `None` if there is none or it failed.
    fn repository(&self) -> Option<&RegistryRef> {
        self.repository.as_ref().filter(|_| !self.failed.load(Ordering::Relaxed))
    }

    /// The layer that somebody made under this key, and the repository's name.
    pub(crate) fn find(&self, key: &Key) -> Option<(PackedLayer, String)> {
        let repository = self.repository().filter(|_| key.step == STEP)?;
        let named = tagged(repository, key);
        let image = self.image(&named, &format!("the cache in `{}`", repository.name()))?;
        let Some(layer) = entry::read(&image, key) else {
            self.context.notice(format!("`{named}` is not an entry of the cache and is left as it is"));
            return None;
        };
        self.known().insert(layer.digest.clone());
        Some((layer, repository.name()))
    }

    /// The image that a tag names, if any. An error is a notice about `what`.
    fn image(&self, named: &RegistryRef, what: &str) -> Option<Image> {
        match self.context.client.image(named, &Platform::host()) {
            Ok(image) => Some(image),
            Err(RegistryError::NotFound { .. }) => None,
            Err(error) => {
                self.context.notice(format!("{what} is not read: {error}"));
                None
            }
        }
    }

    /// Whether the repository has the layer's blob.
    pub(crate) fn has(&self, layer: &PackedLayer) -> bool {
        self.repository().is_some() && self.known().contains(&layer.digest)
    }

    /// The layer's blob as a stream, checked against its digest; `None` if the repository does not have it.
    fn open(&self, layer: &PackedLayer) -> Result<Option<BlobReader>, Error> {
        let Some(repository) = self.repository().filter(|_| self.has(layer)) else { return Ok(None) };
        Ok(Some(Box::new(self.context.client.blob(repository, &layer.descriptor())?)))
    }

    /// Copies the layer's blob into the store. False if that fails: then the user is told, and from now on the cache is off.
    pub(crate) fn fetch(&self, layer: &PackedLayer) -> bool {
        let copied = self.context.store.blob_writer().map_err(Error::from).and_then(|mut blob| {
            let lost = || StoreError::LayerLost(layer.digest.clone());
            let mut from = self.open(layer)?.ok_or_else(lost)?;
            io::copy(&mut from, &mut blob).map_err(IoError::at("copy the blob", Path::new(layer.digest.as_str())))?;
            Ok(blob.keep(Some(&layer.digest)).map(drop)?)
        });
        if let Err(error) = copied {
            self.context.notice(format!("a layer of the cache is not available and is built here: {}", chain(&error)));
            self.failed.store(true, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Brings layers that are in the repository alone to the targets: mounted where that works, else copied.
    pub(crate) fn provide<'l>(
        &self,
        layers: impl Iterator<Item = &'l PackedLayer>,
        targets: &[Target],
    ) -> Result<(), Error> {
        let Some(repository) = self.repository() else { return Ok(()) };
        let is_here = |layer: &PackedLayer| self.context.store.has_blob(&layer.digest, layer.size);
        for layer in layers.filter(|layer| self.has(layer) && !is_here(layer)) {
            let open = |_: &Digest| self.open(layer);
            for target in targets {
                let Target::Registry(to) = target else {
                    if !self.fetch(layer) {
                        return Err(StoreError::LayerLost(layer.digest.clone()).into());
                    }
                    continue;
                };
                let mount = if to.host == repository.host { vec![repository.repository.as_str()] } else { vec![] };
                // An error shows again, and is reported, when the image is pushed.
                let _ = self.context.client.push_blob(&to.repository_only(), &layer.descriptor(), &open, &mount);
            }
        }
        Ok(())
    }

    /// Adds the layer of a deps step to the repository, unless it is there. `cached` says that the step did not run.
    pub(crate) fn store(&self, key: &Key, layer: &PackedLayer, cached: bool) {
        let Some(repository) = self.repository().filter(|_| key.step == STEP) else { return };
        let is_from_there = cached && self.has(layer);
        let added = if is_from_there { Ok(()) } else { self.add(repository, key, layer) };
        let entry = tagged(repository, key);
        if let Err(error) = added.and_then(|()| self.move_tags(repository, key, &entry)) {
            self.context.notice(format!("the cache in `{}` is not written: {error}", repository.name()));
        }
    }

    fn add(&self, repository: &RegistryRef, key: &Key, layer: &PackedLayer) -> Result<(), RegistryError> {
        let named = tagged(repository, key);
        if self.context.client.head_manifest(&named)?.is_some() {
            return Ok(());
        }
        let blobs = |digest: &Digest| {
            let stored = self.context.store.blob(digest, layer.size)?;
            Ok(stored.map(|blob| Box::new(blob) as BlobReader))
        };
        let notes = entry::Notes { made: self.context.host.unix_time(), untouched: self.untouched(key, layer) };
        let image = entry::entry(key, layer, notes);
        let tags: Vec<String> = named.tag.into_iter().collect();
        let push = Push { image: &image, blobs: &blobs, base: None, tags: &tags };
        self.context.client.push(repository, &push, self.context.watch)?;
        let text = format!("the cache in `{}` has a new entry: `{}`", repository.name(), image.manifest_digest);
        self.context.notice(text);
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeSet<Digest>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tag of a key's entry: `deps-ARCH-` and half of the key's hex name, 128 bits.
fn tagged(at: &RegistryRef, key: &Key) -> RegistryRef {
    let tag = format!("{STEP}-{}-{}", Platform::host().architecture, &key.hex()[..32]);
    RegistryRef { tag: Some(tag), ..at.repository_only() }
}
