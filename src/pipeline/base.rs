//! An image that is built on or run: resolved to a digest, its layers fetched only when somebody needs them.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use phial_layers::{Digest, Limits, UnpackError, unpack};

use super::{BuildError, World};
use crate::event::Event;
use crate::image::{Descriptor, Image, Layer, Platform, Reference, RegistryRef};
use crate::layout::Layout;
use crate::store::{About, BlobWriter, Key, Recall, Tree, Trees, remove_tree};

/// Layers that are fetched and unpacked at once.
const FETCHES: usize = 4;

/// An image and where its blobs come from.
pub(crate) struct Base {
    pub(crate) image: Image,
    pub(super) origin: Origin,
}

/// Where blobs come from.
pub(super) enum Origin {
    /// A repository of a registry, and how the image was named in it.
    Registry(RegistryRef),
    /// A layout or archive on disk.
    Layout(Layout),
}

impl Base {
    /// Resolves a reference to an image for this machine. `pinned` is a digest that stands above the reference's tag.
    pub(crate) fn resolve(world: &World<'_>, of: &Reference, pinned: Option<&Digest>) -> Result<Self, BuildError> {
        let platform = Platform::host();
        let layout =
            |open: fn(&Path) -> Result<Layout, crate::layout::LayoutError>, path, tag: &Option<String>, digest| {
                let layout = open(path)?;
                let image = layout.resolve(tag.as_deref(), digest, &platform)?;
                Ok::<_, BuildError>(Self { image, origin: Origin::Layout(layout) })
            };
        match of {
            Reference::Layout { dir, tag, digest } => layout(Layout::open_dir, dir, tag, pinned.or(digest.as_ref())),
            Reference::OciArchive { file, tag, digest } => {
                layout(Layout::open_archive, file, tag, pinned.or(digest.as_ref()))
            }
            Reference::Registry(name) => {
                let mut exact = name.clone();
                exact.digest = pinned.cloned().or(exact.digest);
                let image = world.client.pulling(&exact).image(&exact, &platform)?;
                Ok(Self { image, origin: Origin::Registry(exact) })
            }
        }
    }

    /// The trees of its layers, topmost first; those that are not kept are fetched and unpacked, some at once. Who builds on
    /// the same layer at the same time waits for it and does not fetch it too.
    pub(crate) fn trees(&self, world: &World<'_>) -> Result<Vec<Tree>, BuildError> {
        let layers: Vec<Layer<'_>> = self.image.layers().collect();
        let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let mut done = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                let Some(layer) = layers.get(nth) else { break };
                let tree = self.tree(world, layer);
                stopped.fetch_or(tree.is_err(), Ordering::Relaxed);
                done.push((nth, tree));
            }
            done
        };
        let mut trees = thread::scope(|scope| {
            let others: Vec<_> = (1..FETCHES.min(layers.len())).map(|_| scope.spawn(work)).collect();
            let own = work();
            let others = others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            others.flatten().chain(own).collect::<Vec<_>>()
        });
        trees.sort_by_key(|(nth, _)| std::cmp::Reverse(*nth));
        trees.into_iter().map(|(_, tree)| tree).collect()
    }

    /// The tree of one of its layers.
    pub(super) fn tree(&self, world: &World<'_>, layer: &Layer<'_>) -> Result<Tree, BuildError> {
        let slot = match world.store.tree(layer.diff_id)? {
            Trees::Hit(tree) => return Ok(tree),
            Trees::Miss(slot) => slot,
        };
        let digest = &layer.descriptor.digest;
        let name = format!("unpack {}", &digest.hex()[..12]);
        let start = world.began(&name);
        let kept = kept(world, layer.descriptor)?;
        let unpacked = match kept.map(|kept| unpack(kept, layer.compression, &slot.root, &Limits::GENEROUS)) {
            // The kept blob is damaged, whatever the first thing to go wrong was: it is set aside and fetched again.
            Some(Err(error)) if matches!(error.exit_code(), 3 | 4) => {
                world.store.set_aside(digest)?;
                empty(&slot.root).map_err(BuildError::io("empty", &slot.root))?;
                self.fetch_and_unpack(world, layer, &slot.root)?
            }
            Some(unpacked) => unpacked,
            None => self.fetch_and_unpack(world, layer, &slot.root)?,
        };
        let unpacked = unpacked.map_err(|source| BuildError::Unpack { digest: digest.clone(), source })?;
        if unpacked.diff_id != *layer.diff_id {
            return Err(BuildError::DiffId { digest: digest.clone(), expected: layer.diff_id.0.clone() });
        }
        if unpacked.skipped_devices > 0 {
            let text = format!(
                "{} device nodes of `{digest}` are not unpacked; the layer still has them",
                unpacked.skipped_devices
            );
            (world.watch)(Event::Notice { text });
        }
        let about = About { skipped_devices: unpacked.skipped_devices };
        let tree = slot.keep(&unpacked.records, about)?;
        world.ended(&name, &format!("{} files", unpacked.entries), Some(start));
        Ok(tree)
    }

    /// Unpacks what comes while it comes. Other bytes than were asked for are asked for once more: something on the way may
    /// have had a bad moment.
    fn fetch_and_unpack(
        &self,
        world: &World<'_>,
        layer: &Layer<'_>,
        root: &Path,
    ) -> Result<Result<phial_layers::Unpacked, UnpackError>, BuildError> {
        let first = self.fetch_once(world, layer, root, false)?;
        let is_remote = matches!(self.origin, Origin::Registry(_));
        if first.as_ref().is_err_and(|error| is_remote && matches!(error.exit_code(), 3 | 4)) {
            empty(root).map_err(BuildError::io("empty", root))?;
            return self.fetch_once(world, layer, root, true);
        }
        Ok(first)
    }

    fn fetch_once(
        &self,
        world: &World<'_>,
        layer: &Layer<'_>,
        root: &Path,
        again: bool,
    ) -> Result<Result<phial_layers::Unpacked, UnpackError>, BuildError> {
        let mut keeper = world.store.blob_writer()?;
        let from = self.open(world, layer.descriptor, again)?;
        let tee = Tee { from, to: &mut keeper };
        let unpacked = unpack(tee, layer.compression, root, &Limits::GENEROUS);
        if unpacked.is_ok() {
            keeper.keep(Some(&layer.descriptor.digest))?;
        }
        Ok(unpacked)
    }

    /// `again` is not answered by a mirror.
    fn open(&self, world: &World<'_>, of: &Descriptor, again: bool) -> Result<Box<dyn Read + Send>, BuildError> {
        Ok(match &self.origin {
            Origin::Layout(layout) => Box::new(layout.blob(of)?),
            Origin::Registry(named) if again => Box::new(world.client.pulling(named).past_mirrors().blob(named, of)?),
            Origin::Registry(named) => Box::new(world.client.pulling(named).blob(named, of)?),
        })
    }

    /// A blob of this image as a stream: the kept one, or from where it comes.
    pub(super) fn blob(&self, world: &World<'_>, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        let found = self.image.manifest.layers.iter().find(|layer| layer.digest == *digest);
        let of = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        match kept(world, of).map_err(io::Error::other)? {
            Some(kept) => Ok(Box::new(kept)),
            None => self.open(world, of, false).map_err(io::Error::other),
        }
    }

    /// A blob of this image as a stream, from where the image is, whatever is kept.
    pub(super) fn blob_there(&self, world: &World<'_>, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        let found = self.image.manifest.layers.iter().find(|layer| layer.digest == *digest);
        let of = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        self.open(world, of, false).map_err(io::Error::other)
    }

    /// The newest modification time of the toolchain in the base, in seconds since 1970: files below a directory named
    /// `erlang` or `elixir`; 0 without any. No file that we write may be older, or Mix would compile again what includes
    /// such a file.
    pub(super) fn toolchain(&self, world: &World<'_>) -> Result<i64, BuildError> {
        let key = Key::new("toolchain").with("base", self.image.manifest_digest.as_str());
        match world.store.recall::<i64>(&key)? {
            Recall::Hit(time) => Ok(time),
            Recall::Miss(slot) => {
                let mut newest = 0;
                for tree in self.trees(world)? {
                    newest = newest.max(newest_below(&tree.root).map_err(BuildError::io("read", &tree.root))?);
                }
                slot.keep(&newest)?;
                Ok(newest)
            }
        }
    }
}

fn kept(world: &World<'_>, of: &Descriptor) -> Result<Option<crate::store::Verified>, BuildError> {
    Ok(world.store.blob(&of.digest, of.size)?)
}

fn empty(dir: &Path) -> io::Result<()> {
    remove_tree(dir)?;
    fs::create_dir(dir)
}

fn newest_below(root: &Path) -> io::Result<i64> {
    let mut newest = 0;
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry?;
        let of_toolchain = entry.path().strip_prefix(root).is_ok_and(|path| {
            path.parent().is_some_and(|dir| dir.iter().any(|part| part == "erlang" || part == "elixir"))
        });
        if of_toolchain && entry.file_type().is_file() {
            newest = newest.max(fs::symlink_metadata(entry.path())?.mtime());
        }
    }
    Ok(newest)
}

/// Reads and keeps at once.
struct Tee<'a> {
    from: Box<dyn Read + Send>,
    to: &'a mut BlobWriter,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        let kept = self.to.write_all(&buffer[..n]);
        kept.map_err(|e| io::Error::new(e.kind(), format!("cannot write it to the cache: {e}")))?;
        Ok(n)
    }
}
