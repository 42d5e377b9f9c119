//! The deps cache in a registry: what one runner made, another need not make.
//!
//! An entry is an image of one layer, the very blob that built images have, under a tag that names the key. It is looked up by
//! its exact key, written once and never moved; what lies near to it is found by tags that do move ([`near`]). A hit is not
//! fetched before somebody needs its files: who only assembles an image has its layer mounted, or there already. Whatever
//! goes wrong here is said, and fails no build.

pub(super) mod entry;
pub(super) mod near;

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use phial_layers::Digest;

use super::steps::{Layer, Made};
use super::{Built, World};
use crate::event::Event;
use crate::image::{Descriptor, Image, Platform, RegistryRef, Target, layer_media_type};
use crate::registry::{Push, RegistryError};
use crate::store::{Key, StoreError};

/// The step whose results are shared. Those of others follow from the commit, which seldom is built twice.
pub(super) const STEP: &str = "deps";

/// What a build may do with the cache in a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Far {
    /// Neither read nor write.
    #[default]
    Off,
    /// Take what others made: whoever may write there is trusted as the app's own code is.
    Read,
    /// And give what this one makes.
    Write,
}

/// The cache of one build.
pub(super) struct Shared<'a> {
    world: &'a World<'a>,
    /// What the app is called on this machine.
    app: String,
    at: Option<RegistryRef>,
    /// Blobs that are there, and need not be here.
    known: Mutex<BTreeSet<Digest>>,
    is_off: AtomicBool,
}

impl<'a> Shared<'a> {
    /// None at all.
    pub(super) fn off(world: &'a World<'a>) -> Self {
        Self { world, app: String::new(), at: None, known: Mutex::default(), is_off: AtomicBool::new(true) }
    }

    /// The cache in `repository`, or else beside the image of `app` in the first registry that it goes to.
    pub(super) fn of(
        world: &'a World<'a>,
        far: Far,
        repository: Option<&RegistryRef>,
        (app, targets): (&str, &[Target]),
    ) -> Self {
        let own = targets.iter().find_map(|target| match target {
            Target::Registry(to) => Some(to),
            _ => None,
        });
        let at = repository.or(own).filter(|_| far != Far::Off).map(RegistryRef::repository_only);
        Self { is_off: AtomicBool::new(at.is_none()), app: app.into(), at, ..Self::off(world) }
    }

    fn at(&self) -> Option<&RegistryRef> {
        self.at.as_ref().filter(|_| !self.is_off.load(Ordering::Relaxed))
    }

    /// What somebody made under this key, and where that is.
    pub(super) fn find(&self, key: &Key) -> Option<(Vec<Made>, String)> {
        let at = self.at().filter(|_| key.step == STEP)?;
        let named = tagged(at, key);
        let image = self.image(&named, &format!("the cache in `{}`", at.name()))?;
        let Some(layer) = entry::read(&image, key) else {
            self.say(&format!("`{named}` is no entry of the cache, and is left alone"));
            return None;
        };
        self.known().insert(layer.digest.clone());
        Some((vec![Some(layer)], at.name()))
    }

    /// What a tag names, if anything; that it cannot be read is said, with what it is `called`.
    fn image(&self, named: &RegistryRef, called: &str) -> Option<Image> {
        match self.world.client.image(named, &Platform::host()) {
            Ok(image) => Some(image),
            Err(RegistryError::NotFound { .. }) => None,
            Err(error) => {
                self.say(&format!("{called} is not read: {error}"));
                None
            }
        }
    }

    /// Whether a layer can be had from there.
    pub(super) fn has(&self, layer: &Layer) -> bool {
        self.at().is_some() && self.known().contains(&layer.digest)
    }

    /// The layer's blob as a stream, checked against its digest.
    pub(super) fn open(&self, layer: &Layer) -> io::Result<Box<dyn Read + Send>> {
        let at = self.at().filter(|_| self.has(layer)).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(self.world.client.blob(at, &descriptor(layer)).map_err(io::Error::other)?))
    }

    /// Brings the layer's blob into the store.
    pub(super) fn fetch(&self, layer: &Layer) -> Result<(), StoreError> {
        let mut blob = self.world.store.blob_writer()?;
        let copied = self.open(layer).and_then(|mut from| io::copy(&mut from, &mut blob));
        if let Err(error) = copied {
            self.say(&format!("a layer of the cache cannot be had, and is made here: {error}"));
            self.is_off.store(true, Ordering::Relaxed);
            return Ok(()); // who looks for it finds none
        }
        blob.keep(Some(&layer.digest)).map(drop)
    }

    /// Whether the cache was given up while this layer was wanted from it.
    pub(super) fn gave_up(&self, digest: &Digest) -> bool {
        self.at.is_some() && self.is_off.load(Ordering::Relaxed) && self.known().contains(digest)
    }

    /// Puts layers from the cache where they are needed: they are mounted where that works, else streamed.
    pub(super) fn lend(&self, built: &Built) -> Result<(), StoreError> {
        let Some(at) = self.at() else { return Ok(()) };
        let is_here = |layer: &Layer| self.world.store.has_blob(&layer.digest, layer.size);
        let layers = built.layers.iter().filter_map(|report| report.layer.as_ref());
        for layer in layers.filter(|layer| self.has(layer) && !is_here(layer)) {
            let open = |_: &Digest| self.open(layer);
            for target in &built.targets {
                let Target::Registry(to) = target else {
                    self.fetch(layer)?; // files need the bytes
                    continue;
                };
                let mount = if to.host == at.host { vec![at.repository.as_str()] } else { vec![] };
                // Why not shows when the image is pushed.
                let _ = self.world.client.push_blob(&to.repository_only(), &descriptor(layer), &open, &mount);
            }
        }
        Ok(())
    }

    /// Gives what was made here, unless it is there.
    pub(super) fn keep(&self, built: &Built) {
        let Some(at) = self.at() else { return };
        for report in built.layers.iter().filter(|report| report.key.step == STEP) {
            let Some(layer) = &report.layer else { continue };
            let entry = tagged(at, &report.key);
            let is_from_there = report.recalled && self.has(layer);
            let given = if is_from_there { Ok(()) } else { self.give(at, &report.key, layer) };
            if let Err(error) = given.and_then(|()| self.move_tags(at, &report.key, &entry)) {
                self.say(&format!("the cache in `{}` is not written: {error}", at.name()));
            }
        }
    }

    fn give(&self, at: &RegistryRef, key: &Key, layer: &Layer) -> Result<(), RegistryError> {
        let named = tagged(at, key);
        if self.world.client.head_manifest(&named)?.is_some() {
            return Ok(());
        }
        let blobs = |digest: &Digest| -> io::Result<Box<dyn Read + Send>> {
            match self.world.store.blob(digest, layer.size).map_err(io::Error::other)? {
                Some(blob) => Ok(Box::new(blob)),
                None => Err(io::ErrorKind::NotFound.into()),
            }
        };
        let notes = entry::Notes { made: self.world.host.clock(), untouched: self.untouched(key, layer) };
        let image = entry::written(key, layer, notes);
        let tags: Vec<String> = named.tag.into_iter().collect();
        let push = Push { image: &image, blobs: &blobs, base: None, tags: &tags };
        self.world.client.push(at, &push, self.world.watch)?;
        self.say(&format!("the cache in `{}` has a new entry: `{}`", at.name(), image.manifest_digest));
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeSet<Digest>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, text: &str) {
        (self.world.watch)(Event::Notice { text: text.into() });
    }
}

/// `deps-ARCH-` and half of the key's name: 128 bits, and registries show the tag.
fn tagged(at: &RegistryRef, key: &Key) -> RegistryRef {
    let tag = format!("{STEP}-{}-{}", Platform::host().architecture, &key.hex()[..32]);
    RegistryRef { tag: Some(tag), ..at.repository_only() }
}

fn descriptor(layer: &Layer) -> Descriptor {
    Descriptor::new(layer_media_type(layer.compression), layer.digest.clone(), layer.size)
}
