//! A client of registries: manifests, images and tags by name, and requests with their authorization.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use phial_layers::Digest;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use reqwest::{Method, StatusCode, Url};

use super::access::{RepositoryAccess, Rights};
use super::auth::Auth;
use super::credentials::Credentials;
use super::error::{RegistryError, is_retryable};
use super::http::{HttpRequest, Response, Transport, header, read_bounded, refusal};
use super::network::{NetworkOptions, NetworkSettings};
use super::registries::NamedBy;
use super::retry::{RetryPolicy, retry_once_if_corrupt};
use super::upload_journal::UploadJournal;
use super::url::{Endpoint, Tls, display_url};
use crate::host::Host;
use crate::image::{
    BlobError, DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, DocumentSource, Image, ImageError,
    MAX_MANIFEST_PULL, ManifestOrIndex, OCI_INDEX, OCI_MANIFEST, Platform, RegistryRef, read_manifest,
};

/// Responses of status 401 to one request that are answered with other credentials.
const MAX_EXCHANGES: usize = 2;
/// Tokens that other threads got in the meantime, for one request.
const MAX_RENEWED: usize = 8;
/// The header in which a registry states a digest.
pub(super) const DIGEST_HEADER: &str = "docker-content-digest";

/// A client for any number of registries. Threads share it; clones of it share tokens, connections and what is known of
/// registries.
#[derive(Clone)]
pub struct Client {
    pub(super) transport: Transport,
    pub(super) auth: Arc<Auth>,
    pub(super) uploads: UploadJournal,
    pub(super) reads: ReadFrom,
    /// Hosts of mirrors that failed and are not asked again.
    pub(super) failed_mirrors: Arc<Mutex<BTreeSet<String>>>,
}

/// Where a client reads images from.
#[derive(Clone, Copy)]
pub(super) enum ReadFrom {
    /// The registry that the reference names.
    Reference,
    /// The mirrors of `registries.conf`, then the location.
    Mirrors {
        named_by: NamedBy,
        /// Whether the mirrors are left out.
        skip: bool,
    },
    /// A mirror or location that an entry of `registries.conf` names.
    Location { tls: Tls },
}

/// The manifest or index that a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedManifest {
    /// Digest of the bytes, computed here; it is the reference's own, if that has one.
    pub digest: Digest,
    /// The media type of the bytes.
    pub media_type: String,
    /// The manifest or index as the registry stores it.
    pub bytes: Vec<u8>,
}

impl Client {
    /// A client with these logins, without proxies; trusted certificates are the system's.
    pub fn new(credentials: Credentials) -> Result<Self, RegistryError> {
        Self::over(credentials, NetworkSettings::default())
    }

    /// A client with the logins, certificates and proxies of this machine and of the command line.
    pub fn from_host(host: &Host, options: &NetworkOptions) -> Result<Self, RegistryError> {
        let credentials = Credentials::from_options(host, options.authfile.as_deref());
        Self::over(credentials, NetworkSettings::from_host(host, options)?)
    }

    fn over(credentials: Credentials, network: NetworkSettings) -> Result<Self, RegistryError> {
        Ok(Self {
            transport: Transport::new(network)?,
            auth: Arc::new(Auth::new(credentials)),
            uploads: UploadJournal::default(),
            reads: ReadFrom::Reference,
            failed_mirrors: Arc::default(),
        })
    }

    /// The same client with another retry policy.
    #[must_use]
    pub fn with_retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.transport.retry_policy = policy;
        self
    }

    /// The same client with a private directory in which uploads are recorded, so that a later run resumes them.
    #[must_use]
    pub fn with_upload_journal(mut self, dir: PathBuf) -> Self {
        self.uploads = UploadJournal(Some(dir));
        self
    }

    /// From here on this client and its clones send the registry no login: only others than the caller name it.
    pub fn withhold_login(&self, host: &str) {
        self.auth.withhold(host);
    }

    /// The repository of a reference at its endpoint.
    pub(super) fn access(&self, reference: &RegistryRef, rights: Rights) -> Result<RepositoryAccess, RegistryError> {
        let network = self.transport.network();
        let entry = network.registries.entry(reference)?;
        let url = network.base_url(&reference.host)?;
        let tls = match self.reads {
            ReadFrom::Location { tls } => tls,
            _ => Tls::from_insecure(entry.is_some_and(|entry| entry.insecure)),
        };
        let endpoint = match tls {
            Tls::Unverified if url.scheme() == "https" => self.transport.unverified_endpoint(url),
            _ => Endpoint { url, tls: Tls::Verified },
        };
        let (host, repository) = (reference.host.clone(), reference.repository.clone());
        Ok(RepositoryAccess { host, repository, endpoint, rights, mount_from: None })
    }

    /// The manifest or index that a reference names; its digest, if it has one, wins over the tag.
    pub fn resolve(&self, reference: &RegistryRef) -> Result<ResolvedManifest, RegistryError> {
        self.read_from_each(reference, |client, at| client.get_manifest(at, Rights::Pull))
    }

    fn get_manifest(&self, reference: &RegistryRef, rights: Rights) -> Result<ResolvedManifest, RegistryError> {
        let policy = self.transport.retry_policy;
        retry_once_if_corrupt(|| policy.retry(|| self.get_manifest_once(reference, rights)))
    }

    fn get_manifest_once(&self, reference: &RegistryRef, rights: Rights) -> Result<ResolvedManifest, RegistryError> {
        let access = self.access(reference, rights)?;
        let request = manifest_request(Method::GET, access.manifest_url(reference.selector()));
        let response = self.send_once(&access, &request)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(RegistryError::NotFound { reference: reference.to_string() }),
            _ => return Err(refusal(&request, response)),
        }
        let url = display_url(response.url());
        let announced = header(&response, CONTENT_TYPE.as_str());
        let stated = stated_digest(&response);
        if announced.as_deref().is_some_and(|kind| kind.starts_with("text/html")) {
            return Err(RegistryError::NotARegistry {
                place: url,
                why: "an HTML page came instead of a manifest".into(),
            });
        }
        let bytes = read_bounded(response, &request.describe(), MAX_MANIFEST_PULL)?;
        // Without a digest in the reference, the digest that the registry states must at least fit what it sent.
        for digest in reference.digest.iter().chain(stated.as_ref().filter(|_| reference.digest.is_none())) {
            BlobError::check(digest, &bytes).map_err(RegistryError::blob(reference))?;
        }
        let read = read_manifest(&bytes, announced.as_deref()).map_err(RegistryError::image(reference))?;
        let (own, usual) = match read {
            ManifestOrIndex::Manifest(manifest) => (manifest.media_type, OCI_MANIFEST),
            ManifestOrIndex::Index(index) => (index.media_type, OCI_INDEX),
        };
        let announced = announced.as_deref().map(without_parameters);
        let media_type = own.or(announced).unwrap_or_else(|| usual.to_owned());
        let digest = reference.digest.clone().unwrap_or_else(|| Digest::of(&bytes));
        Ok(ResolvedManifest { digest, media_type, bytes })
    }

    /// The image that a reference names; through an index the one for `platform`, whose config must agree.
    pub fn image(&self, reference: &RegistryRef, platform: &Platform) -> Result<Image, RegistryError> {
        self.read_from_each(reference, |client, at| {
            let found = client.resolve(at)?;
            let source = RegistryDocuments { client, reference: at };
            Document { bytes: found.bytes, media_type: found.media_type }.into_image(platform, &source)
        })
    }

    /// The digest that a name has now, or `None` if it has none: as the registry states it, or else computed here.
    pub fn head_manifest(&self, reference: &RegistryRef) -> Result<Option<Digest>, RegistryError> {
        self.head(reference, Rights::Pull)
    }

    /// As [`Client::head_manifest`]. Some registries refuse access to a repository that does not exist to
    /// requests without the right to push.
    pub(super) fn head(&self, reference: &RegistryRef, rights: Rights) -> Result<Option<Digest>, RegistryError> {
        let access = self.access(reference, rights)?;
        let request = manifest_request(Method::HEAD, access.manifest_url(reference.selector()));
        let response = self.send(&access, &request)?;
        match response.status() {
            StatusCode::OK => {
                if let Some(stated) = stated_digest(&response) {
                    return Ok(Some(stated));
                }
            }
            StatusCode::NOT_FOUND => return Ok(None),
            _ => {} // a registry without HEAD, or an error whose text only a GET has
        }
        match self.get_manifest(reference, rights) {
            Ok(found) => Ok(Some(found.digest)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the registry states that the repository has the blob.
    pub fn has_blob(&self, repository: &RegistryRef, descriptor: &Descriptor) -> Result<bool, RegistryError> {
        self.has(&self.access(repository, Rights::Pull)?, descriptor)
    }

    pub(super) fn has(&self, access: &RepositoryAccess, descriptor: &Descriptor) -> Result<bool, RegistryError> {
        let url = access.blob_url(&descriptor.digest);
        let request = HttpRequest::new(Method::HEAD, url).with(ACCEPT_ENCODING, "identity");
        let response = self.send(access, &request)?;
        let size = header(&response, "content-length").and_then(|text| text.parse::<u64>().ok());
        Ok(response.status() == StatusCode::OK && size.is_none_or(|size| size == descriptor.size))
    }

    /// Sends a request with the credentials that it needs, and again as the retry policy says. Retryable statuses, 401 and
    /// 403 are errors; all other responses are for the caller to judge.
    pub(super) fn send(&self, access: &RepositoryAccess, request: &HttpRequest<'_>) -> Result<Response, RegistryError> {
        self.transport.retry_policy.retry(|| self.send_once(access, request))
    }

    /// As [`Client::send`], without another try.
    pub(super) fn send_once(
        &self,
        access: &RepositoryAccess,
        request: &HttpRequest<'_>,
    ) -> Result<Response, RegistryError> {
        let origin = access.endpoint.url.origin();
        let to_registry = request.url.origin() == origin;
        let transport = self.transport.toward(&access.endpoint);
        let (mut exchanges, mut renewed) = (0, 0);
        let mut header = if to_registry { self.auth.header(&transport, access)? } else { None };
        loop {
            let response = transport.send(request, header.as_ref())?;
            let from_registry = to_registry && response.url().origin() == origin;
            match response.status() {
                StatusCode::UNAUTHORIZED if from_registry && exchanges < MAX_EXCHANGES => {
                    let now = self.auth.header(&transport, access)?;
                    // Another thread was refused too, and has got a newer token already.
                    if header.is_some() && now.is_some() && now != header && renewed < MAX_RENEWED {
                        renewed += 1;
                        header = now;
                        continue;
                    }
                    exchanges += 1;
                    self.auth.learn(&transport, access, header.as_ref(), response)?;
                    header = self.auth.header(&transport, access)?;
                }
                StatusCode::UNAUTHORIZED if from_registry => return Err(self.auth.refused(access, response)),
                // The reason is only in the body of a GET.
                StatusCode::FORBIDDEN if from_registry && request.method != Method::HEAD => {
                    return Err(self.auth.refused(access, response));
                }
                status if is_retryable(status.as_u16()) => return Err(refusal(request, response)),
                _ => return Ok(response),
            }
        }
    }
}

/// The manifests and configs of one repository.
struct RegistryDocuments<'a> {
    client: &'a Client,
    reference: &'a RegistryRef,
}

impl RegistryDocuments<'_> {
    fn by_digest(&self, digest: &Digest) -> RegistryRef {
        RegistryRef { digest: Some(digest.clone()), ..self.reference.clone() }
    }
}

impl DocumentSource for RegistryDocuments<'_> {
    type Error = RegistryError;

    fn manifest(&self, descriptor: &Descriptor) -> Result<Document, RegistryError> {
        let found = self.client.resolve(&self.by_digest(&descriptor.digest))?;
        Ok(Document { bytes: found.bytes, media_type: found.media_type })
    }

    fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        retry_once_if_corrupt(|| self.client.whole_blob(self.reference, descriptor))
    }

    fn refused(&self, digest: Option<&Digest>, error: ImageError) -> RegistryError {
        let reference = digest.map_or_else(|| self.reference.clone(), |digest| self.by_digest(digest));
        RegistryError::image(&reference)(error)
    }
}

fn stated_digest(response: &Response) -> Option<Digest> {
    header(response, DIGEST_HEADER).and_then(|text| text.parse().ok())
}

fn without_parameters(media_type: &str) -> String {
    media_type.split(';').next().map_or(String::new(), |kind| kind.trim().to_owned())
}

fn manifest_request(method: Method, url: Url) -> HttpRequest<'static> {
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST]
        .into_iter()
        .fold(HttpRequest::new(method, url), |request, kind| request.with(ACCEPT, kind))
}
