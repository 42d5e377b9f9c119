//! Looking up, fetching and adding entries during a build.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use phial_layers::Digest;

use super::entry::{self, EntryAnnotations, STEP};
use crate::context::Context;
use crate::error::{Error, IoError, chain};
use crate::image::{BlobReader, Image, PackedLayer, Platform, RegistryRef, Target};
use crate::registry::{Push, RegistryError};
use crate::store::{CacheKey, StoreError};

/// The deps cache of one build.
pub(crate) struct RemoteCache<'a> {
    pub(super) context: &'a Context<'a>,
    /// The app's name, for the key of the fallback on this machine.
    pub(super) app: String,
    /// The path of the app's lock file, for the key of every fallback.
    pub(super) lock: String,
    repository: Option<RegistryRef>,
    /// Blobs that the repository is known to have.
    remote_blobs: Mutex<BTreeSet<Digest>>,
    /// Set by the first download that fails: the repository is not used any more.
    has_failed: AtomicBool,
}

impl<'a> RemoteCache<'a> {
    /// Without a repository: only the fallback on this machine works.
    pub(crate) fn off(context: &'a Context<'a>, app: &str, lock: &str) -> Self {
        Self {
            context,
            app: app.into(),
            lock: lock.into(),
            repository: None,
            remote_blobs: Mutex::default(),
            has_failed: AtomicBool::new(false),
        }
    }

    /// The cache in `repository`, or else in that of the first target in a registry.
    pub(crate) fn new(
        context: &'a Context<'a>,
        app: &str,
        lock: &str,
        repository: Option<&RegistryRef>,
        targets: &[Target],
    ) -> Self {
        let of_target = targets.iter().find_map(|target| match target {
            Target::Registry(to) => Some(to),
            _ => None,
        });
        Self { repository: repository.or(of_target).map(RegistryRef::repository_only), ..Self::off(context, app, lock) }
    }

    /// The repository; `None` if there is none or it has failed.
    pub(super) fn repository(&self) -> Option<&RegistryRef> {
        self.repository.as_ref().filter(|_| !self.has_failed.load(Ordering::Relaxed))
    }

    /// The layer of the key's entry, and the repository's name.
    pub(crate) fn find(&self, key: &CacheKey) -> Option<(PackedLayer, String)> {
        let repository = self.repository().filter(|_| key.step == STEP)?;
        let named = tagged(repository, key);
        let image = self.image(&named, &format!("the cache in `{}`", repository.name()))?;
        let Some(layer) = entry::read(&image, key) else {
            self.context.notice(format!("`{named}` is not an entry of the cache and is left as it is"));
            return None;
        };
        self.add_remote_blob(&layer);
        Some((layer, repository.name()))
    }

    /// The image of a tag; `None` if there is no such tag. An error is a notice that begins with `what`.
    pub(super) fn image(&self, named: &RegistryRef, what: &str) -> Option<Image> {
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
        self.repository().is_some() && self.remote_blobs().contains(&layer.digest)
    }

    /// The layer's blob as a stream, checked against its digest; `None` if the repository does not have it.
    fn open(&self, layer: &PackedLayer) -> Result<Option<BlobReader>, Error> {
        let Some(repository) = self.repository().filter(|_| self.has(layer)) else { return Ok(None) };
        Ok(Some(Box::new(self.context.client.blob(repository, &layer.descriptor())?)))
    }

    /// Copies the layer's blob into the store. False if that fails: then the cache is off from here on, with a notice.
    pub(crate) fn fetch(&self, layer: &PackedLayer) -> bool {
        let copied = self.context.store.blob_writer().map_err(Error::from).and_then(|mut blob| {
            let lost = || StoreError::LayerLost(layer.digest.clone());
            let mut from = self.open(layer)?.ok_or_else(lost)?;
            io::copy(&mut from, &mut blob).map_err(IoError::at("copy the blob", Path::new(layer.digest.as_str())))?;
            Ok(blob.keep(Some(&layer.digest)).map(drop)?)
        });
        if let Err(error) = copied {
            self.context
                .notice(format!("the layer of the cache cannot be fetched and is built here: {}", chain(&error)));
            self.has_failed.store(true, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Copies layers that only the repository has to the targets: mounted by the registry where that works.
    pub(crate) fn copy_to_targets<'l>(
        &self,
        layers: impl Iterator<Item = &'l PackedLayer>,
        targets: &[Target],
    ) -> Result<(), Error> {
        let Some(repository) = self.repository() else { return Ok(()) };
        let is_in_store = |layer: &PackedLayer| self.context.store.has_blob(&layer.digest, layer.size);
        for layer in layers.filter(|layer| self.has(layer) && !is_in_store(layer)) {
            let open = |_: &Digest| self.open(layer);
            for target in targets {
                let Target::Registry(to) = target else {
                    if !self.fetch(layer) {
                        return Err(StoreError::LayerLost(layer.digest.clone()).into());
                    }
                    continue;
                };
                let mount = if to.host == repository.host { vec![repository.repository.as_str()] } else { vec![] };
                // An error is not lost: the push of the image fails for the same reason.
                let _ = self.context.client.push_blob(&to.repository_only(), &layer.descriptor(), &open, &mount);
            }
        }
        Ok(())
    }

    /// Adds an entry for a layer, unless the key has one, and updates the fallback tags. Layers of other steps than `deps` are
    /// not added.
    pub(crate) fn store(&self, key: &CacheKey, layer: &PackedLayer) {
        let Some(repository) = self.repository().filter(|_| key.step == STEP) else { return };
        let added = self.add(repository, key, layer);
        self.report(
            repository,
            added.and_then(|()| self.move_fallback_tags(repository, key, &tagged(repository, key))),
        );
    }

    /// Lets the fallback tags name the entry of the key, which the repository has.
    pub(crate) fn update_fallback_tags(&self, key: &CacheKey) {
        let Some(repository) = self.repository().filter(|_| key.step == STEP) else { return };
        self.report(repository, self.move_fallback_tags(repository, key, &tagged(repository, key)));
    }

    fn report(&self, repository: &RegistryRef, written: Result<(), RegistryError>) {
        if let Err(error) = written {
            self.context.notice(format!("the cache in `{}` is not written: {error}", repository.name()));
        }
    }

    fn add(&self, repository: &RegistryRef, key: &CacheKey, layer: &PackedLayer) -> Result<(), RegistryError> {
        let named = tagged(repository, key);
        if self.context.client.head_manifest(&named)?.is_some() {
            return Ok(());
        }
        let blobs = |digest: &Digest| {
            let stored = self.context.store.blob(digest, layer.size)?;
            Ok(stored.map(|blob| Box::new(blob) as BlobReader))
        };
        let annotations =
            EntryAnnotations { made: self.context.host.unix_time(), untouched: self.untouched(key, layer) };
        let image = entry::entry(key, layer, annotations);
        let tags: Vec<String> = named.tag.into_iter().collect();
        let push = Push { image: &image, blobs: &blobs, base: None, tags: &tags };
        self.context.client.push(repository, &push, self.context.watch)?;
        let text = format!("the cache in `{}` has a new entry: `{}`", repository.name(), image.manifest_digest);
        self.context.notice(text);
        Ok(())
    }

    /// Notes that the repository has the layer's blob.
    pub(super) fn add_remote_blob(&self, layer: &PackedLayer) {
        self.remote_blobs().insert(layer.digest.clone());
    }

    fn remote_blobs(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.remote_blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tag of a key's entry: `deps-ARCH-` and the first half of the key's hex digest, 128 bits.
fn tagged(at: &RegistryRef, key: &CacheKey) -> RegistryRef {
    let tag = format!("{STEP}-{}-{}", Platform::host().architecture, &key.hex()[..32]);
    RegistryRef { tag: Some(tag), ..at.repository_only() }
}
