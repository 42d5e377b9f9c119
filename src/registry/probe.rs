//! Finds out by requests what a registry allows in a repository, for `phial doctor`. Nothing is left there.

use phial_layers::Digest;
use reqwest::{Method, StatusCode, Url};

use super::access::{RepositoryAccess, Rights};
use super::client::Client;
use super::credentials::{LookupResult, LookupStep};
use super::ecr::ecr_region;
use super::error::RegistryError;
use super::http::HttpRequest;
use super::referrers::ReferrersSupport;
use super::url::{authority, display_url};
use crate::image::{Descriptor, ManifestOrIndex, RegistryRef, read_manifest, shown};

/// What `phial doctor` reports about a repository. It holds no secret.
pub struct DoctorReport {
    /// The URL of the registry.
    pub url: String,
    /// Certificates and proxy that are used, each with the file or variable that names it.
    pub connection: Vec<String>,
    /// The entry of `registries.conf`, if there is one.
    pub mirrors: Option<MirrorReport>,
    /// The sources of logins that were looked at, in order.
    pub login_lookup: Vec<LookupStep>,
    /// How the registry asks for a login, if it does.
    pub auth_scheme: Option<String>,
    /// The login; it fails if a file or helper is broken.
    pub login: Finding,
    /// Whether a manifest can be read.
    pub pull: Finding,
    /// Whether an upload can be begun.
    pub push: Finding,
    /// Whether a blob can be mounted from a repository.
    pub mount: Finding,
    /// Whether the registry has the referrers API.
    pub referrers: Finding,
}

/// The entry of `registries.conf` for a name.
pub struct MirrorReport {
    /// The entry, and the file that has it.
    pub entry: String,
    /// The mirrors and the location, in order, and whether each has the image.
    pub sources: Vec<(String, Finding)>,
}

/// The result of one check.
pub enum Finding {
    /// It works.
    Works(String),
    /// It is refused, but Phial works without it.
    Unsupported(String),
    /// It was not tried, or the result is not clear.
    Unknown(String),
    /// It fails.
    Failed(RegistryError),
}

impl Client {
    /// Checks what a build and a release need. Nothing is left in the repository: the upload that is begun is cancelled.
    pub fn diagnose(&self, reference: &RegistryRef) -> Result<DoctorReport, RegistryError> {
        let access = self.access(reference, Rights::Pull)?;
        let mut login_lookup = Vec::new();
        let found =
            self.auth.credentials().search(&access.host, &access.repository, &mut |step| login_lookup.push(step));
        let login = match found {
            Ok(Some(_)) => Finding::Works(String::new()),
            Ok(None) => Finding::Unknown("no login: anonymous access".into()),
            Err(error) => Finding::Failed(error),
        };
        let connection = self.connection(&access.endpoint.url)?;
        let mirrors = self.mirrors(reference)?;
        let head = self.head_manifest(reference);
        let image = head.as_ref().ok().and_then(Option::as_ref).cloned();
        let pull = match head {
            Ok(Some(digest)) => Finding::Works(format!("`{reference}` is `{digest}`")),
            Ok(None) => Finding::Works(format!("allowed, and `{reference}` is not there")),
            Err(error) => Finding::Failed(error),
        };
        let push = self.push_finding(&access, reference);
        let mount = match (&push, &image) {
            (Finding::Failed(_), _) => Finding::Unknown("not tried: pushing fails".into()),
            (_, None) => Finding::Unknown("not tried: the repository has no such image to mount a blob of".into()),
            (_, Some(digest)) => self.mount_finding(&access, reference, digest),
        };
        let referrers = self.referrers_finding(reference, image.as_ref());
        Ok(DoctorReport {
            url: display_url(&access.endpoint.url),
            connection,
            mirrors,
            login_lookup,
            auth_scheme: self.auth.auth_scheme(&access.host),
            login,
            pull,
            push,
            mount,
            referrers,
        })
    }

    fn mirrors(&self, reference: &RegistryRef) -> Result<Option<MirrorReport>, RegistryError> {
        let Some(entry) = self.transport.network().registries.entry(reference)? else { return Ok(None) };
        let insecure = if entry.insecure { ", insecure" } else { "" };
        let entry = format!("the entry `{}` of `{}`{insecure}", shown(&entry.prefix), entry.file.display());
        let mut sources = Vec::new();
        for (client, at) in self.through_mirrors(reference).sources(reference)? {
            let finding = match client.head_manifest(&at) {
                Ok(Some(digest)) => Finding::Works(format!("it is `{digest}`")),
                Ok(None) => Finding::Unsupported("it is not there".into()),
                Err(error) => Finding::Failed(error),
            };
            sources.push((shown(&at.to_string()), finding));
        }
        // The name itself is checked anyway.
        sources.retain(|(at, _)| *at != shown(&reference.to_string()));
        Ok(Some(MirrorReport { entry, sources }))
    }

    fn connection(&self, url: &Url) -> Result<Vec<String>, RegistryError> {
        let network = self.transport.network();
        let mut lines = Vec::new();
        if url.scheme() == "https" {
            let certs = network.certs.of(&authority(url))?;
            lines.extend(
                network.roots.describe().map(|place| format!("trusts {place} instead of the system's certificates")),
            );
            lines.extend(network.ca_file.iter().map(|path| format!("trusts `{}`", path.display())));
            lines.extend(certs.map(|certs| {
                let client = if certs.identity.is_some() { ", with a client certificate" } else { "" };
                format!("certificates of `{}`{client}", certs.dir.display())
            }));
        }
        if let Some((proxy, variable)) = network.proxy_for(url) {
            lines.push(format!("through the proxy `{proxy}` of `{variable}`"));
        }
        Ok(lines)
    }

    /// Begins an upload and cancels it. False if the registry does not let uploads be cancelled.
    pub fn probe_push(&self, repository: &RegistryRef) -> Result<bool, RegistryError> {
        let access = self.access(repository, Rights::Push)?;
        let session = self.transport.retry_policy.retry(|| self.open_session(&access))?;
        Ok(self.cancel(&access, &session))
    }

    fn push_finding(&self, access: &RepositoryAccess, reference: &RegistryRef) -> Finding {
        // In ECR, an upload may create the repository, which would then stay.
        if ecr_region(&access.host).is_some() {
            let list = HttpRequest::new(Method::GET, access.url("tags/list"));
            match self.send(access, &list) {
                Ok(response) if response.status() == StatusCode::NOT_FOUND => {
                    return Finding::Unknown(
                        "not tried: the repository does not exist, and the check might create it".into(),
                    );
                }
                Ok(_) => {}
                Err(error) => return Finding::Failed(error),
            }
        }
        match self.probe_push(reference) {
            Ok(true) => Finding::Works("an upload was begun and cancelled".into()),
            Ok(false) => Finding::Works(
                "an upload was begun; the registry does not cancel it on request, and drops it by itself".into(),
            ),
            Err(error) => Finding::Failed(error),
        }
    }

    /// Mounts a blob from the repository into the same repository.
    fn mount_finding(&self, access: &RepositoryAccess, reference: &RegistryRef, digest: &Digest) -> Finding {
        let named = RegistryRef { digest: Some(digest.clone()), ..reference.clone() };
        let blob = match self.resolve(&named).map(|found| some_blob(&found.bytes, &found.media_type)) {
            Ok(Some(blob)) => blob,
            Ok(None) => return Finding::Unknown("not tried: it is an index, which has no blobs".into()),
            Err(error) => return Finding::Failed(error),
        };
        match self.mount(access, &blob, &access.repository) {
            Ok(None) => Finding::Works(
                "a blob was mounted from the repository itself; from others, the login needs the right to pull".into(),
            ),
            Ok(Some(session)) => {
                let left = if self.cancel(access, &session) { "" } else { ", which could not be cancelled" };
                Finding::Unsupported(format!("the registry does not mount, and opened an upload{left}"))
            }
            Err(error) => Finding::Unsupported(error.to_string()),
        }
    }

    fn referrers_finding(&self, reference: &RegistryRef, image: Option<&Digest>) -> Finding {
        let nothing = Digest::of(b"");
        match self.referrers_support(reference, image.unwrap_or(&nothing)) {
            Ok(ReferrersSupport::Api) => Finding::Works("the registry has the referrers API".into()),
            Ok(ReferrersSupport::FallbackTag) if image.is_some() => {
                Finding::Unsupported("no API: referrers are listed under a tag `sha256-...`".into())
            }
            Ok(ReferrersSupport::FallbackTag) => {
                Finding::Unknown("no API, at least while the image is not there".into())
            }
            Err(error) => Finding::Failed(error),
        }
    }
}

/// The config of an image's manifest; none of an index.
fn some_blob(bytes: &[u8], media_type: &str) -> Option<Descriptor> {
    match read_manifest(bytes, Some(media_type)).ok()? {
        ManifestOrIndex::Manifest(manifest) => Some(manifest.config),
        ManifestOrIndex::Index(_) => None,
    }
}

impl std::fmt::Display for LookupStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place, result } = self;
        match result {
            LookupResult::Absent => write!(f, "{place}: not there"),
            LookupResult::NoLogin => write!(f, "{place}: nothing for this repository"),
            LookupResult::HelperWithoutLogin { helper } => write!(f, "{place}: `{helper}` has nothing"),
            LookupResult::Login { key, helper, kind } => {
                write!(f, "{place}: {kind} under the key `{}`", shown(key))?;
                helper.iter().try_for_each(|helper| write!(f, ", from `{helper}`"))
            }
        }
    }
}

impl DoctorReport {
    /// The first check that failed.
    pub fn first_failure(&self) -> Option<&RegistryError> {
        [&self.login, &self.pull, &self.push, &self.referrers].into_iter().find_map(|finding| match finding {
            Finding::Failed(error) => Some(error),
            _ => None,
        })
    }
}
