//! Asking a registry: manifests and blobs, every byte checked.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use phial_layers::Digest;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use reqwest::{Method, StatusCode, Url};

use super::auth::{Access, Auth};
use super::credentials::Credentials;
use super::error::RegistryError;
use super::http::{Call, Response, Transport, bounded, is_passing, place, refusal, request};
use super::mirrors::Reads;
use super::network::{Network, NetworkOptions};
use super::retry::{RetryPolicy, retry_once_if_corrupt};
use super::upload_journal::Journal;
use crate::host::Host;
use crate::image::{
    BlobError, DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Image, MAX_MANIFEST_PULL, ManifestOrIndex, OCI_INDEX,
    OCI_MANIFEST, Platform, RegistryRef, read_manifest, shown,
};

/// How deep an index may hold an index.
const MAX_DEPTH: usize = 3;
/// 401s that are answered with better credentials, for one request.
const MAX_EXCHANGES: usize = 2;
/// Tokens that others renewed meanwhile, for one request.
const MAX_RENEWED: usize = 8;

/// A client for any number of registries; it may be used from many threads, and its clones share what they learn.
#[derive(Clone)]
pub struct Client {
    pub(super) transport: Transport,
    pub(super) auth: Arc<Auth>,
    pub(super) sessions: Journal,
    pub(super) reads: Reads,
    /// Hosts of mirrors that are not asked again.
    pub(super) failed: Arc<Mutex<BTreeSet<String>>>,
}

/// What a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Digest of the bytes, computed here; the reference's own, if it has one.
    pub digest: Digest,
    /// What they are.
    pub media_type: String,
    /// The manifest or index as the registry stores it.
    pub bytes: Vec<u8>,
}

impl Client {
    /// A client that shows these credentials to whom they are for, without proxies; TLS roots are the system's.
    pub fn new(credentials: Credentials) -> Result<Self, RegistryError> {
        Self::over(credentials, Network::default())
    }

    /// A client as this machine and these flags want it: logins, certificates, proxies.
    pub fn from_host(host: &Host, wishes: &NetworkOptions) -> Result<Self, RegistryError> {
        Self::over(Credentials::told(host, wishes.authfile.as_deref()), Network::from_host(host, wishes)?)
    }

    fn over(credentials: Credentials, network: Network) -> Result<Self, RegistryError> {
        let (transport, auth) = (Transport::new(network)?, Arc::new(Auth::new(credentials)));
        Ok(Self { transport, auth, sessions: Journal::default(), reads: Reads::Named, failed: Arc::default() })
    }

    /// Where a repository is.
    pub(super) fn site(&self, reference: &RegistryRef) -> Result<Site, RegistryError> {
        let (host, repository) = (reference.host.clone(), reference.repository.clone());
        let network = self.transport.network();
        let entry = network.registries.entry(reference)?;
        let base = network.base(&host)?;
        let is_lax = match self.reads {
            Reads::At { insecure } => insecure,
            _ => entry.is_some_and(|entry| entry.insecure),
        };
        // What is plain anyway needs no leave.
        let is_lax = is_lax && base.scheme() == "https";
        let base = if is_lax { self.transport.insecure_base(base) } else { base };
        Ok(Site { host, repository, base, is_lax })
    }

    /// The same with other ideas of how long to wait.
    #[must_use]
    pub fn with_patience(mut self, patience: RetryPolicy) -> Self {
        self.transport.patience = patience;
        self
    }

    /// The same with a private folder for notes about uploads, so that a later run goes on with what this one could not end.
    #[must_use]
    pub fn with_notes(mut self, folder: PathBuf) -> Self {
        self.sessions = Journal(Some(folder));
        self
    }

    /// The manifest or index that a reference names; its digest, if it has one, wins over the tag.
    pub fn resolve(&self, reference: &RegistryRef) -> Result<Resolved, RegistryError> {
        self.through(reference, |client, at| client.get_manifest(at, false))
    }

    fn get_manifest(&self, reference: &RegistryRef, push: bool) -> Result<Resolved, RegistryError> {
        let patience = self.transport.patience;
        retry_once_if_corrupt(|| patience.retry(|| self.get_manifest_once(reference, push)))
    }

    fn get_manifest_once(&self, reference: &RegistryRef, push: bool) -> Result<Resolved, RegistryError> {
        let site = self.site(reference)?;
        let call = manifest_call(Method::GET, site.manifest(reference.selector()));
        let response = self.send_once(&site.access(push), &call)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(RegistryError::NotFound { reference: reference.to_string() }),
            _ => return Err(refusal(&call, response)),
        }
        let place = place(response.url());
        let announced = header(&response, CONTENT_TYPE.as_str());
        let said = header(&response, DIGEST_HEADER).and_then(|text| text.parse::<Digest>().ok());
        if announced.as_deref().is_some_and(|kind| kind.starts_with("text/html")) {
            return Err(RegistryError::NotARegistry { place, why: "an HTML page came instead of a manifest".into() });
        }
        let bytes = bounded(response, &request(&call), MAX_MANIFEST_PULL)?;
        // Without a digest of our own to hold it to, the registry's word must at least fit what it sent.
        for digest in reference.digest.iter().chain(said.as_ref().filter(|_| reference.digest.is_none())) {
            BlobError::check(digest, &bytes).map_err(RegistryError::blob(reference))?;
        }
        let read = read_manifest(&bytes, announced.as_deref()).map_err(RegistryError::image(reference))?;
        let (own, usual) = match read {
            ManifestOrIndex::Manifest(manifest) => (manifest.media_type, OCI_MANIFEST),
            ManifestOrIndex::Index(index) => (index.media_type, OCI_INDEX),
        };
        let media_type = own.or_else(|| announced.as_deref().map(bare)).unwrap_or_else(|| usual.to_owned());
        let digest = reference.digest.clone().unwrap_or_else(|| Digest::of(&bytes));
        Ok(Resolved { digest, media_type, bytes })
    }

    /// The image that a reference names; through an index the one for `platform`, whose config must agree.
    pub fn image(&self, reference: &RegistryRef, platform: &Platform) -> Result<Image, RegistryError> {
        self.through(reference, |client, at| client.image_at(at, platform))
    }

    fn image_at(&self, reference: &RegistryRef, platform: &Platform) -> Result<Image, RegistryError> {
        let mut reference = reference.clone();
        let mut chosen = false;
        for _ in 0..=MAX_DEPTH {
            let refused = RegistryError::image(&reference);
            let found = self.resolve(&reference)?;
            match read_manifest(&found.bytes, Some(&found.media_type)) {
                Err(error) => return Err(refused(error)),
                Ok(ManifestOrIndex::Manifest(manifest)) => {
                    if let Err(error) = manifest.check_image() {
                        return Err(refused(error));
                    }
                    let config = retry_once_if_corrupt(|| self.whole_blob(&reference, &manifest.config))?;
                    let image = Image::read(found.bytes, Some(&found.media_type), config);
                    let checked = image.and_then(|image| {
                        if chosen {
                            image.check_platform(platform)?;
                        }
                        Ok(image)
                    });
                    return checked.map_err(refused);
                }
                Ok(ManifestOrIndex::Index(index)) => {
                    let digest = platform.select(&index).map_err(refused)?.digest.clone();
                    reference.digest = Some(digest);
                    chosen = true;
                }
            }
        }
        let why = format!("indexes are nested deeper than {MAX_DEPTH}");
        Err(RegistryError::NotARegistry { place: shown(&reference.to_string()), why })
    }

    /// The digest that a name has now, or `None` if it has none: the registry's word where it gives one, else our own hash.
    pub fn head_manifest(&self, reference: &RegistryRef) -> Result<Option<Digest>, RegistryError> {
        self.head(reference, false)
    }

    /// With `push`, as one who may push: some registries deny to others that a repository is not there yet.
    pub(super) fn head(&self, reference: &RegistryRef, push: bool) -> Result<Option<Digest>, RegistryError> {
        let site = self.site(reference)?;
        let call = manifest_call(Method::HEAD, site.manifest(reference.selector()));
        let response = self.send(&site.access(push), &call)?;
        match response.status() {
            StatusCode::OK => {
                let said = header(&response, DIGEST_HEADER).and_then(|text| text.parse().ok());
                if said.is_some() {
                    return Ok(said);
                }
            }
            StatusCode::NOT_FOUND => return Ok(None),
            _ => {} // a registry that knows no HEAD, or an error whose text only a GET has
        }
        match self.get_manifest(reference, push) {
            Ok(found) => Ok(Some(found.digest)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the repository has the blob, as far as the registry says.
    pub fn has_blob(&self, repository: &RegistryRef, descriptor: &Descriptor) -> Result<bool, RegistryError> {
        self.has(&self.site(repository)?.access(false), descriptor)
    }

    pub(super) fn has(&self, access: &Access<'_>, descriptor: &Descriptor) -> Result<bool, RegistryError> {
        let url = blob_url(access, &descriptor.digest);
        let call = Call::new(Method::HEAD, url).with(ACCEPT_ENCODING, "identity");
        let response = self.send(access, &call)?;
        let size = header(&response, "content-length").and_then(|text| text.parse::<u64>().ok());
        Ok(response.status() == StatusCode::OK && size.is_none_or(|size| size == descriptor.size))
    }

    /// Sends a request with the credentials that its access needs, retry. Answers that may pass are errors; all others
    /// but 401 and 403 are the caller's to judge.
    pub(super) fn send(&self, access: &Access<'_>, call: &Call<'_>) -> Result<Response, RegistryError> {
        self.transport.patience.retry(|| self.send_once(access, call))
    }

    pub(super) fn send_once(&self, access: &Access<'_>, call: &Call<'_>) -> Result<Response, RegistryError> {
        let own = call.url.origin() == access.base.origin();
        let transport = self.transport.toward(access);
        let (mut exchanges, mut renewed) = (0, 0);
        let mut header = if own { self.auth.header(&transport, access)? } else { None };
        loop {
            let response = transport.follow(call, header.as_ref())?;
            let is_own = own && response.url().origin() == access.base.origin();
            match response.status() {
                StatusCode::UNAUTHORIZED if is_own && exchanges < MAX_EXCHANGES => {
                    let now = self.auth.header(&transport, access)?;
                    // Another request had the same trouble, and there is a newer token already.
                    if header.is_some() && now.is_some() && now != header && renewed < MAX_RENEWED {
                        renewed += 1;
                        header = now;
                        continue;
                    }
                    exchanges += 1;
                    self.auth.learn(&transport, access, header.as_ref(), response)?;
                    header = self.auth.header(&transport, access)?;
                }
                StatusCode::UNAUTHORIZED if is_own => return Err(self.auth.refused(access, response)),
                // Why is only in the body of a GET.
                StatusCode::FORBIDDEN if is_own && call.method != Method::HEAD => {
                    return Err(self.auth.refused(access, response));
                }
                status if is_passing(status) => return Err(refusal(call, response)),
                _ => return Ok(response),
            }
        }
    }
}

pub(super) const DIGEST_HEADER: &str = "docker-content-digest";

pub(super) fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// A media type without its parameters.
fn bare(kind: &str) -> String {
    kind.split(';').next().map_or(String::new(), |kind| kind.trim().to_owned())
}

fn manifest_call(method: Method, url: Url) -> Call<'static> {
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST]
        .into_iter()
        .fold(Call::new(method, url), |call, kind| call.with(ACCEPT, kind))
}

pub(super) fn blob_url(access: &Access<'_>, digest: &Digest) -> Url {
    let mut url = access.base.clone();
    url.set_path(&format!("/v2/{}/blobs/{digest}", access.repository));
    url
}

/// A repository and where its registry is spoken to.
pub(super) struct Site {
    pub(super) host: String,
    pub(super) repository: String,
    pub(super) base: Url,
    /// Whether TLS need not be right, nor be there at all.
    pub(super) is_lax: bool,
}

impl Site {
    pub(super) fn access(&self, push: bool) -> Access<'_> {
        let (host, repository) = (self.host.as_str(), self.repository.as_str());
        Access { host, base: &self.base, is_lax: self.is_lax, repository, push, mount: None }
    }

    pub(super) fn url(&self, rest: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{rest}", self.repository));
        url
    }

    pub(super) fn manifest(&self, selector: &str) -> Url {
        self.url(&format!("manifests/{selector}"))
    }

    pub(super) fn blob(&self, digest: &Digest) -> Url {
        self.url(&format!("blobs/{digest}"))
    }
}
