//! A whole image into a registry: blobs, then the manifest by its digest, then a look, then the tags.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use phial_layers::Digest;

use super::client::Client;
use super::error::RegistryError;
use super::upload::{BlobUpload, Pushed};
use crate::event::{Event, Watch};
use crate::image::{BlobReader, BlobSourceError, Blobs, Descriptor, Image, RegistryRef};

/// Transfers at once: what go-containerregistry does, and no registry minds.
const TRANSFERS: usize = 4;
const TICK: Duration = Duration::from_millis(200);

/// What is to be pushed.
#[derive(Clone, Copy)]
pub struct Push<'a> {
    /// The image.
    pub image: &'a Image,
    /// Its layers, as far as they are at hand.
    pub blobs: Blobs<'a>,
    /// A repository that has the lowest so many layers: they are mounted from there, or streamed if they are not at hand.
    pub base: Option<(&'a RegistryRef, usize)>,
    /// The tags to move, in this order, after all else. None is fine.
    pub tags: &'a [String],
}

/// What a push did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Each blob, and how it came to be there; empty if the image was there already.
    pub blobs: Vec<(Digest, Pushed)>,
    /// Whether nothing had to be done: manifest and tags were there.
    pub was_there: bool,
}

/// One blob in work.
struct Transfer<'a> {
    descriptor: &'a Descriptor,
    in_base: bool,
    sent: Arc<AtomicU64>,
}

impl Client {
    /// Pushes an image to the repository of `to`. A tag moves only when everything it names is there, whatever is killed
    /// when; a second push of the same image costs one request for each tag, or one for the manifest if there is none.
    pub fn push(&self, to: &RegistryRef, push: &Push<'_>, watch: Watch<'_>) -> Result<Outcome, RegistryError> {
        let digest = &push.image.manifest_digest;
        let to = to.repository_only();
        let mut missing = Vec::new();
        for tag in push.tags {
            let named = RegistryRef { tag: Some(tag.clone()), ..to.clone() };
            if self.head(&named, true)?.as_ref() != Some(digest) {
                missing.push(tag);
            }
        }
        let by_digest = RegistryRef { digest: Some(digest.clone()), ..to.clone() };
        let is_named = missing.len() < push.tags.len();
        let has_manifest = is_named || self.head(&by_digest, true)?.is_some();
        if has_manifest && missing.is_empty() {
            return Ok(Outcome { blobs: Vec::new(), was_there: true });
        }
        let (bytes, media_type) = (&push.image.manifest_bytes, push.image.manifest.media_type());
        let mut outcome = Outcome::default();
        if !has_manifest {
            outcome.blobs = self.push_blobs(&to, push, true, watch)?;
            match self.put(&to, digest.as_str(), bytes, media_type) {
                // What was there when it was looked for is gone: the registry cleans up, or spoke for another machine.
                Err(error) if error.is_about_content() => {
                    outcome.blobs = self.push_blobs(&to, push, false, watch)?;
                    self.put(&to, digest.as_str(), bytes, media_type)?;
                }
                result => result?,
            }
        }
        for tag in missing {
            self.put(&to, tag, bytes, media_type)?;
        }
        Ok(outcome)
    }

    /// Gives a manifest that is in the repository another name: the same bytes under a tag.
    pub fn tag(&self, to: &RegistryRef, tag: &str, bytes: &[u8], media_type: &str) -> Result<(), RegistryError> {
        self.put(to, tag, bytes, media_type)
    }

    /// Puts one blob into a repository; `mount` names repositories of the same registry that may have it.
    pub fn push_blob(
        &self,
        to: &RegistryRef,
        descriptor: &Descriptor,
        blobs: Blobs<'_>,
        mount: &[&str],
    ) -> Result<Pushed, RegistryError> {
        let open = || match blobs(&descriptor.digest) {
            Ok(blob) => blob.ok_or_else(|| lost(descriptor, BlobSourceError::Missing)),
            Err(error) => Err(lost(descriptor, error)),
        };
        self.upload(to, &BlobUpload { descriptor, look: true, mount, open: &open, sent: &Arc::default() })
    }

    fn push_blobs(
        &self,
        to: &RegistryRef,
        push: &Push<'_>,
        look: bool,
        watch: Watch<'_>,
    ) -> Result<Vec<(Digest, Pushed)>, RegistryError> {
        let transfers = transfers(push);
        let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
        let results = Mutex::new(Vec::new());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let ticker = scope.spawn(|| tick(&transfers, &done, watch));
            let workers: Vec<_> = (0..TRANSFERS.min(transfers.len()))
                .map(|_| {
                    scope.spawn(|| {
                        while let Some(transfer) = transfers.get(next.fetch_add(1, Ordering::Relaxed)) {
                            if stopped.load(Ordering::Relaxed) {
                                return;
                            }
                            let result = self.transfer(to, push, look, transfer);
                            if result.is_err() {
                                stopped.store(true, Ordering::Relaxed);
                            }
                            let digest = transfer.descriptor.digest.clone();
                            results.lock().unwrap_or_else(PoisonError::into_inner).push((digest, result));
                        }
                    })
                })
                .collect();
            for worker in workers {
                let _ = worker.join(); // a panic shows when the scope ends
            }
            done.store(true, Ordering::Relaxed);
            ticker.thread().unpark();
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by(|a, b| a.0.cmp(&b.0));
        results.into_iter().map(|(digest, result)| result.map(|pushed| (digest, pushed))).collect()
    }

    fn transfer(
        &self,
        to: &RegistryRef,
        push: &Push<'_>,
        look: bool,
        transfer: &Transfer<'_>,
    ) -> Result<Pushed, RegistryError> {
        let descriptor = transfer.descriptor;
        let base = push.base.map(|(base, _)| base).filter(|_| transfer.in_base);
        let mount: Vec<&str> =
            base.filter(|base| base.host == to.host).map(|base| base.repository.as_str()).into_iter().collect();
        let open = || -> Result<BlobReader, RegistryError> {
            if descriptor.digest == push.image.manifest.config.digest {
                return Ok(Box::new(io::Cursor::new(push.image.config_bytes.clone())));
            }
            match ((push.blobs)(&descriptor.digest), base) {
                (Ok(Some(blob)), _) => Ok(blob),
                (Ok(None), Some(base)) => Ok(Box::new(self.blob(base, descriptor)?)),
                (Ok(None), None) => Err(lost(descriptor, BlobSourceError::Missing)),
                (Err(error), _) => Err(lost(descriptor, error)),
            }
        };
        self.upload(to, &BlobUpload { descriptor, look, mount: &mount, open: &open, sent: &transfer.sent })
    }
}

fn lost(descriptor: &Descriptor, source: impl Into<BlobSourceError>) -> RegistryError {
    RegistryError::Source { digest: descriptor.digest.clone(), source: source.into() }
}

/// Each blob once, the large ones first, so that no large one is left for the end.
fn transfers<'a>(push: &Push<'a>) -> Vec<Transfer<'a>> {
    let in_base = push.base.map_or(0, |(_, layers)| layers);
    let manifest = &push.image.manifest;
    let mut seen = BTreeSet::new();
    let mut transfers: Vec<Transfer<'a>> = manifest
        .layers
        .iter()
        .chain([&manifest.config])
        .enumerate()
        .filter(|(_, descriptor)| seen.insert(&descriptor.digest))
        .map(|(n, descriptor)| Transfer { descriptor, in_base: n < in_base, sent: Arc::default() })
        .collect();
    transfers.sort_by_key(|transfer| std::cmp::Reverse(transfer.descriptor.size));
    transfers
}

/// Says how far the transfers are, until all are done.
fn tick(transfers: &[Transfer<'_>], done: &AtomicBool, watch: Watch<'_>) {
    let mut said = vec![0; transfers.len()];
    loop {
        let is_over = done.load(Ordering::Relaxed);
        for (transfer, said) in transfers.iter().zip(&mut said) {
            let sent = transfer.sent.load(Ordering::Relaxed);
            if sent != *said {
                *said = sent;
                let descriptor = transfer.descriptor;
                watch(Event::BytesTransferred {
                    digest: descriptor.digest.clone(),
                    done: sent,
                    total: descriptor.size,
                });
            }
        }
        if is_over {
            return;
        }
        thread::park_timeout(TICK);
    }
}
