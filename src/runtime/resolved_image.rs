//! An image that a reference names, resolved to a digest. Its layers are fetched and unpacked when they are needed.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use phial_layers::{Digest, Limits, UnpackError, unpack};

use super::RuntimeError;
use crate::context::Context;
use crate::determinism::shims::Libc;
use crate::error::{Error, IoError};
use crate::image::{BlobReader, Descriptor, Image, Layer, Platform, Reference, RegistryRef, shown};
use crate::layout::Layout;
use crate::rootfs::ImageFiles;
use crate::store::{BlobWriter, CacheKey, Lookup, Tree, TreeCheck, TreeLookup};
use crate::tree::{Enter, TreeDir, remove_tree};

/// Number of layers that are fetched and unpacked in parallel.
const PARALLEL: usize = 4;

/// An image and the origin of its blobs.
pub(crate) struct ResolvedImage {
    pub(crate) image: Image,
    pub(crate) origin: Origin,
}

/// Where the blobs of an image are.
pub(crate) enum Origin {
    /// In a repository, under this name.
    Registry(RegistryRef),
    /// In a layout or archive on disk.
    Layout(Layout),
}

/// Whether a blob may come from a mirror of its registry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mirrors {
    Allowed,
    Skipped,
}

impl ResolvedImage {
    /// Resolves a reference to an image for this machine. The digest `pinned` has precedence over the
    /// reference's tag.
    pub(crate) fn resolve(context: &Context<'_>, of: &Reference, pinned: Option<&Digest>) -> Result<Self, Error> {
        let platform = Platform::host();
        let layout =
            |open: fn(&Path) -> Result<Layout, crate::layout::LayoutError>, path, tag: &Option<String>, digest| {
                let layout = open(path)?;
                let image = layout.resolve(tag.as_deref(), digest, &platform)?;
                Ok::<_, Error>(Self { image, origin: Origin::Layout(layout) })
            };
        match of {
            Reference::Layout { dir, tag, digest } => layout(Layout::open_dir, dir, tag, pinned.or(digest.as_ref())),
            Reference::OciArchive { file, tag, digest } => {
                layout(Layout::open_archive, file, tag, pinned.or(digest.as_ref()))
            }
            Reference::Registry(name) => {
                let mut exact = name.clone();
                exact.digest = pinned.cloned().or(exact.digest);
                let image = context.client.through_mirrors(&exact).image(&exact, &platform)?;
                Ok(Self { image, origin: Origin::Registry(exact) })
            }
        }
    }

    /// The trees of its layers, topmost first. Those that the store does not have are fetched and unpacked in parallel.
    /// Another process that needs the same layer waits for it.
    pub(crate) fn trees(&self, context: &Context<'_>, check: TreeCheck) -> Result<Vec<Tree>, Error> {
        self.check_platform()?;
        let layers: Vec<Layer<'_>> = self.image.layers().collect();
        let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let unpack_next = || {
            let mut done = Vec::new();
            while !has_failed.load(Ordering::Relaxed) {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                let Some(layer) = layers.get(nth) else { break };
                let tree = self.tree(context, layer, check);
                has_failed.fetch_or(tree.is_err(), Ordering::Relaxed);
                done.push((nth, tree));
            }
            done
        };
        let mut trees = thread::scope(|scope| {
            let others: Vec<_> = (1..PARALLEL.min(layers.len())).map(|_| scope.spawn(unpack_next)).collect();
            let here = unpack_next();
            let others = others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            others.flatten().chain(here).collect::<Vec<_>>()
        });
        trees.sort_by_key(|(nth, _)| std::cmp::Reverse(*nth));
        trees.into_iter().map(|(_, tree)| tree).collect()
    }

    /// An error if programs of the image cannot run on this machine. An index need not name the platform of its images.
    pub(crate) fn check_platform(&self) -> Result<(), RuntimeError> {
        let (image, machine) = (self.image.platform(), Platform::host());
        let runs = image.os == machine.os
            && (image.architecture == machine.architecture
                || (image.architecture == "386" && machine.architecture == "amd64"));
        if runs {
            return Ok(());
        }
        Err(RuntimeError::Platform { image: shown(&image.to_string()), machine: machine.to_string() })
    }

    /// The tree of one layer.
    pub(crate) fn tree(&self, context: &Context<'_>, layer: &Layer<'_>, check: TreeCheck) -> Result<Tree, Error> {
        let algorithm = layer.diff_id.0.algorithm();
        if algorithm != "sha256" {
            let (digest, algorithm) = (layer.descriptor.digest.clone(), algorithm.to_owned());
            return Err(RuntimeError::DiffIdAlgorithm { digest, algorithm }.into());
        }
        let vacant = match context.store.tree(layer.diff_id, check)? {
            TreeLookup::Hit(tree) => return Ok(tree),
            TreeLookup::Miss(vacant) => vacant,
        };
        let digest = &layer.descriptor.digest;
        let name = format!("unpack {}", &digest.hex()[..12]);
        let start = context.step_started(&name);
        let stored = stored(context, layer.descriptor)?;
        let unpacked = match stored.map(|blob| unpack(blob, layer.compression, &vacant.root, &Limits::GENEROUS)) {
            // The stored blob is damaged, whatever the error is.
            Some(Err(error)) if is_about_bytes(&error) => {
                context.store.quarantine(digest)?;
                empty(&vacant.root).map_err(IoError::at("empty", &vacant.root))?;
                self.fetch_and_unpack(context, layer, &vacant.root)?
            }
            Some(unpacked) => unpacked,
            None => self.fetch_and_unpack(context, layer, &vacant.root)?,
        };
        let unpacked = unpacked.map_err(|source| RuntimeError::Unpack { digest: digest.clone(), source })?;
        if unpacked.diff_id != *layer.diff_id {
            return Err(RuntimeError::DiffId { digest: digest.clone(), expected: layer.diff_id.0.clone() }.into());
        }
        if unpacked.skipped_devices > 0 {
            let text = format!(
                "{} device nodes of `{digest}` are not unpacked; the layer still has them",
                unpacked.skipped_devices
            );
            context.notice(text);
        }
        let tree = vacant.keep(&unpacked.metadata, unpacked.skipped_devices)?;
        context.step_finished(&name, &format!("{} files", unpacked.entries), Some(start));
        Ok(tree)
    }

    /// Unpacks a blob while it arrives. A blob that arrives damaged from a registry is fetched once more, from no mirror.
    fn fetch_and_unpack(
        &self,
        context: &Context<'_>,
        layer: &Layer<'_>,
        root: &Path,
    ) -> Result<Result<phial_layers::Unpacked, UnpackError>, Error> {
        let first = self.fetch_once(context, layer, root, Mirrors::Allowed)?;
        let is_remote = matches!(self.origin, Origin::Registry(_));
        if first.as_ref().is_err_and(|error| is_remote && is_about_bytes(error)) {
            empty(root).map_err(IoError::at("empty", root))?;
            return self.fetch_once(context, layer, root, Mirrors::Skipped);
        }
        Ok(first)
    }

    fn fetch_once(
        &self,
        context: &Context<'_>,
        layer: &Layer<'_>,
        root: &Path,
        mirrors: Mirrors,
    ) -> Result<Result<phial_layers::Unpacked, UnpackError>, Error> {
        let mut blob_writer = context.store.blob_writer()?;
        let from = self.open(context, layer.descriptor, mirrors)?;
        let tee = Tee { from, to: &mut blob_writer };
        let unpacked = unpack(tee, layer.compression, root, &Limits::GENEROUS);
        if unpacked.is_ok() {
            let digest = &layer.descriptor.digest;
            // The reader has checked the digest; the store names blobs by sha256 alone.
            blob_writer.keep(Some(digest).filter(|digest| digest.algorithm() == "sha256"))?;
        }
        Ok(unpacked)
    }

    /// Opens a blob where the image is.
    fn open(&self, context: &Context<'_>, of: &Descriptor, mirrors: Mirrors) -> Result<BlobReader, Error> {
        Ok(match &self.origin {
            Origin::Layout(layout) => Box::new(layout.blob(of)?),
            Origin::Registry(named) if mirrors == Mirrors::Skipped => {
                Box::new(context.client.through_mirrors(named).without_mirrors().blob(named, of)?)
            }
            Origin::Registry(named) => Box::new(context.client.through_mirrors(named).blob(named, of)?),
        })
    }

    /// The blob of a layer from the store, or else from where the image is; `None` if the image has no such layer.
    pub(crate) fn blob(&self, context: &Context<'_>, digest: &Digest) -> Result<Option<BlobReader>, Error> {
        let Some(layer) = self.layer(digest) else { return Ok(None) };
        match stored(context, layer)? {
            Some(blob) => Ok(Some(Box::new(blob))),
            None => self.open(context, layer, Mirrors::Allowed).map(Some),
        }
    }

    /// The blob of a layer from where the image is, whatever the store has; `None` if the image has no such layer.
    pub(crate) fn blob_there(&self, context: &Context<'_>, digest: &Digest) -> Result<Option<BlobReader>, Error> {
        self.layer(digest).map(|layer| self.open(context, layer, Mirrors::Allowed)).transpose()
    }

    fn layer(&self, digest: &Digest) -> Option<&Descriptor> {
        self.image.manifest.layers.iter().find(|layer| layer.digest == *digest)
    }

    /// The C library of the image's programs: musl, if the image has its dynamic linker.
    pub(crate) fn libc(&self, context: &Context<'_>) -> Result<Libc, Error> {
        let key = CacheKey::new("musl").with("base", self.image.manifest_digest.as_str());
        let has_musl = match context.store.result::<bool>(&key)? {
            Lookup::Hit(has_musl) => has_musl,
            Lookup::Miss(vacant) => {
                let files = ImageFiles::open(&self.trees(context, TreeCheck::Root)?)?;
                let has_musl = files.find(format!("/lib/ld-musl-{}.so.1", std::env::consts::ARCH))?.is_some();
                vacant.keep(&has_musl)?;
                has_musl
            }
        };
        Ok(if has_musl { Libc::Musl } else { Libc::Other })
    }

    /// The newest modification time of the toolchain, in seconds since 1970; 0 without one. That is of files below directories
    /// named `erlang` or `elixir`, and below those that Erlang or Elixir is installed in under another name. Files of an app must not be older, or Mix would compile again those that include
    /// such a file.
    pub(crate) fn toolchain_mtime(&self, context: &Context<'_>) -> Result<i64, Error> {
        let key = CacheKey::new("toolchain time").with("base", self.image.manifest_digest.as_str());
        match context.store.result::<i64>(&key)? {
            Lookup::Hit(time) => Ok(time),
            Lookup::Miss(vacant) => {
                let trees = self.trees(context, TreeCheck::Root)?;
                let dirs = trees.iter().map(|tree| tree.root.open()).collect::<Result<Vec<_>, _>>()?;
                let mut roots = BTreeSet::new();
                dirs.iter().try_for_each(|tree| add_installations(tree, &mut roots))?;
                let newest = dirs.iter().map(|tree| newest_in(tree, &roots)).collect::<Result<Vec<_>, _>>()?;
                let newest = newest.into_iter().max().unwrap_or(0);
                vacant.keep(&newest)?;
                Ok(newest)
            }
        }
    }
}

/// The blob in the store.
fn stored(context: &Context<'_>, of: &Descriptor) -> Result<Option<crate::store::VerifiedBlob>, Error> {
    Ok(context.store.blob(&of.digest, of.size)?)
}

/// Whether the bytes of the blob are the cause, not the disk or the machine.
fn is_about_bytes(error: &UnpackError) -> bool {
    !matches!(
        error,
        UnpackError::Write { .. } | UnpackError::Root(_) | UnpackError::Thread(_) | UnpackError::RootNotEmpty
    )
}

fn empty(dir: &Path) -> io::Result<()> {
    remove_tree(dir)?;
    fs::create_dir(dir)
}

/// The directories that Erlang or Elixir is installed in: what has `bin/start.boot` or `lib/elixir/ebin/elixir.app`.
fn add_installations(tree: &TreeDir, roots: &mut BTreeSet<PathBuf>) -> Result<(), IoError> {
    tree.walk(|entry| {
        let of = ["bin/start.boot", "lib/elixir/ebin/elixir.app"].into_iter().find(|path| entry.path.ends_with(path));
        let root = of.and_then(|path| entry.path.ancestors().nth(Path::new(path).iter().count()));
        roots.extend(root.filter(|root| !is_shared(root)).map(Path::to_owned));
        Ok::<_, IoError>(Enter::Yes)
    })
}

/// Whether other programs are installed there, too.
fn is_shared(dir: &Path) -> bool {
    ["", "usr", "usr/local"].iter().any(|shared| dir == Path::new(shared))
}

fn newest_in(tree: &TreeDir, roots: &BTreeSet<PathBuf>) -> Result<i64, IoError> {
    let mut newest = 0;
    tree.walk(|entry| {
        let is_of_toolchain = entry.path.parent().is_some_and(|dir| {
            dir.iter().any(|part| part == "erlang" || part == "elixir")
                || dir.ancestors().any(|dir| roots.contains(dir))
        });
        if is_of_toolchain && entry.stat.is_regular_file() {
            newest = newest.max(entry.stat.mtime().0);
        }
        Ok::<_, IoError>(Enter::Yes)
    })?;
    Ok(newest)
}

/// A reader that copies what it reads to the store.
struct Tee<'a> {
    from: Box<dyn Read + Send>,
    to: &'a mut BlobWriter,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        let written = self.to.write_all(&buffer[..n]);
        written.map_err(|e| io::Error::new(e.kind(), format!("cannot write it to the cache: {e}")))?;
        Ok(n)
    }
}
