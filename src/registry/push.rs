//! Pushes an image: its blobs, then the manifest by its digest, which is checked, then the tags.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use phial_layers::Digest;

use super::access::Rights;
use super::client::Client;
use super::error::RegistryError;
use super::upload::{ExistenceCheck, Pushed};
use super::upload_session::BlobUpload;
use crate::event::{Event, Watch};
use crate::image::{BlobReader, BlobSourceError, Blobs, Descriptor, Image, RegistryRef};

/// Uploads at the same time, as in go-containerregistry.
const MAX_TRANSFERS: usize = 4;
/// How often progress is reported.
const TICK: Duration = Duration::from_millis(200);

/// An image to be pushed, and where to.
#[derive(Clone, Copy)]
pub struct Push<'a> {
    /// The image.
    pub image: &'a Image,
    /// The source of its layers.
    pub blobs: Blobs<'a>,
    /// The lowest layers, if a registry has them already. They are mounted from there, or copied if `blobs` does
    /// not have them.
    pub base: Option<BaseLayers<'a>>,
    /// The tags to set, in this order, after all else; there may be none.
    pub tags: &'a [String],
}

/// The lowest layers of an image: those of its base image.
#[derive(Clone, Copy)]
pub struct BaseLayers<'a> {
    /// The repository that has them.
    pub repository: &'a RegistryRef,
    /// How many they are.
    pub count: usize,
}

/// What a push did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushOutcome {
    /// Each blob, and how it came into the repository; empty if the image was there before.
    pub blobs: Vec<(Digest, Pushed)>,
    /// Whether manifest and tags were there before, so that nothing had to be done.
    pub existed: bool,
}

/// One blob of a push.
struct Transfer<'a> {
    descriptor: &'a Descriptor,
    /// Whether it is a layer of the base image.
    in_base: bool,
    /// Bytes sent so far.
    sent: Arc<AtomicU64>,
}

impl Client {
    /// Pushes an image to the repository of `to`. A tag is set only when everything that it names is there, whenever the
    /// process is killed. Pushing the same image again costs one request for each tag, or one for the manifest without tags.
    pub fn push(&self, to: &RegistryRef, push: &Push<'_>, watch: Watch<'_>) -> Result<PushOutcome, RegistryError> {
        let digest = &push.image.manifest_digest;
        let to = to.repository_only();
        let mut missing = Vec::new();
        for tag in push.tags {
            let named = RegistryRef { tag: Some(tag.clone()), ..to.clone() };
            if self.head(&named, Rights::Push)?.as_ref() != Some(digest) {
                missing.push(tag);
            }
        }
        let by_digest = RegistryRef { digest: Some(digest.clone()), ..to.clone() };
        let has_tag = missing.len() < push.tags.len();
        let has_manifest = has_tag || self.head(&by_digest, Rights::Push)?.is_some();
        if has_manifest && missing.is_empty() {
            return Ok(PushOutcome { blobs: Vec::new(), existed: true });
        }
        let (bytes, media_type) = (&push.image.manifest_bytes, push.image.manifest.media_type());
        let mut outcome = PushOutcome::default();
        if !has_manifest {
            outcome.blobs = self.push_blobs(&to, push, ExistenceCheck::Head, watch)?;
            match self.put(&to, digest.as_str(), bytes, media_type) {
                // A blob that HEAD reported is missing: the registry is collecting garbage, or one of its machines is behind.
                Err(error) if error.is_missing_content() => {
                    outcome.blobs = self.push_blobs(&to, push, ExistenceCheck::Skip, watch)?;
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

    /// Puts a manifest that is in the repository under a tag.
    pub fn tag(&self, to: &RegistryRef, tag: &str, bytes: &[u8], media_type: &str) -> Result<(), RegistryError> {
        self.put(to, tag, bytes, media_type)
    }

    /// Puts one blob into a repository. `mount` are repositories of the same registry that may have it.
    pub fn push_blob(
        &self,
        to: &RegistryRef,
        descriptor: &Descriptor,
        blobs: Blobs<'_>,
        mount: &[&str],
    ) -> Result<Pushed, RegistryError> {
        let open = || match blobs(&descriptor.digest) {
            Ok(blob) => blob.ok_or_else(|| source_error(descriptor, BlobSourceError::Missing)),
            Err(error) => Err(source_error(descriptor, error)),
        };
        let upload = BlobUpload { descriptor, open: &open, sent: &Arc::default() };
        self.upload(to, &upload, mount, ExistenceCheck::Head)
    }

    fn push_blobs(
        &self,
        to: &RegistryRef,
        push: &Push<'_>,
        check: ExistenceCheck,
        watch: Watch<'_>,
    ) -> Result<Vec<(Digest, Pushed)>, RegistryError> {
        let transfers = transfers(push);
        let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
        let results = Mutex::new(Vec::new());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let reporter = scope.spawn(|| report_progress(&transfers, &done, watch));
            let workers: Vec<_> = (0..MAX_TRANSFERS.min(transfers.len()))
                .map(|_| {
                    scope.spawn(|| {
                        while let Some(transfer) = transfers.get(next.fetch_add(1, Ordering::Relaxed)) {
                            if stopped.load(Ordering::Relaxed) {
                                return;
                            }
                            let result = self.transfer(to, push, check, transfer);
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
                let _ = worker.join(); // a panic is raised again when the scope ends
            }
            done.store(true, Ordering::Relaxed);
            reporter.thread().unpark();
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by(|a, b| a.0.cmp(&b.0));
        results.into_iter().map(|(digest, result)| result.map(|pushed| (digest, pushed))).collect()
    }

    fn transfer(
        &self,
        to: &RegistryRef,
        push: &Push<'_>,
        check: ExistenceCheck,
        transfer: &Transfer<'_>,
    ) -> Result<Pushed, RegistryError> {
        let descriptor = transfer.descriptor;
        let base = push.base.map(|base| base.repository).filter(|_| transfer.in_base);
        let mount: Vec<&str> =
            base.filter(|base| base.host == to.host).map(|base| base.repository.as_str()).into_iter().collect();
        let open = || -> Result<BlobReader, RegistryError> {
            if descriptor.digest == push.image.manifest.config.digest {
                return Ok(Box::new(io::Cursor::new(push.image.config_bytes.clone())));
            }
            match ((push.blobs)(&descriptor.digest), base) {
                (Ok(Some(blob)), _) => Ok(blob),
                (Ok(None), Some(base)) => Ok(Box::new(self.blob(base, descriptor)?)),
                (Ok(None), None) => Err(source_error(descriptor, BlobSourceError::Missing)),
                (Err(error), _) => Err(source_error(descriptor, error)),
            }
        };
        let upload = BlobUpload { descriptor, open: &open, sent: &transfer.sent };
        self.upload(to, &upload, &mount, check)
    }
}

fn source_error(descriptor: &Descriptor, source: impl Into<BlobSourceError>) -> RegistryError {
    RegistryError::Source { digest: descriptor.digest.clone(), source: source.into() }
}

/// Each blob once, the large ones first, so that no large one is left for the end.
fn transfers<'a>(push: &Push<'a>) -> Vec<Transfer<'a>> {
    let in_base = push.base.map_or(0, |base| base.count);
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

/// Reports the progress of transfers until all are done.
fn report_progress(transfers: &[Transfer<'_>], done: &AtomicBool, watch: Watch<'_>) {
    let mut reported = vec![0; transfers.len()];
    loop {
        let is_last = done.load(Ordering::Relaxed);
        for (transfer, reported) in transfers.iter().zip(&mut reported) {
            let sent = transfer.sent.load(Ordering::Relaxed);
            if sent != *reported {
                *reported = sent;
                let descriptor = transfer.descriptor;
                watch(Event::BytesTransferred {
                    digest: descriptor.digest.clone(),
                    done: sent,
                    total: descriptor.size,
                });
            }
        }
        if is_last {
            return;
        }
        thread::park_timeout(TICK);
    }
}
