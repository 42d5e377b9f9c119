//! What a registry lets one do with a repository, found out by doing it and leaving nothing behind: for `phial doctor`.

use phial_layers::Digest;
use reqwest::{Method, StatusCode};

use super::client::{Client, Site};
use super::credentials::{LookupResult, LookupStep, ecr_region};
use super::error::RegistryError;
use super::http::Call;
use super::network::authority;
use super::referrers::Keeping;
use super::upload_session::Session;
use crate::image::{Descriptor, ManifestOrIndex, RegistryRef, read_manifest, shown};

/// What is known of a repository and the way to it. It holds no secret.
pub struct DoctorReport {
    /// Where the registry is spoken to.
    pub at: String,
    /// Certificates of its own or of the user's, and the proxy, each with the place that names it.
    pub way: Vec<String>,
    /// What `registries.conf` says, if it says anything.
    pub mirrored: Option<Mirrored>,
    /// Where a login was looked for, in order.
    pub looks: Vec<LookupStep>,
    /// How the registry asks for one, if it does.
    pub asks: Option<String>,
    /// The login itself, if a file or helper is broken.
    pub login: Finding,
    /// Reading a manifest.
    pub pull: Finding,
    /// Beginning an upload.
    pub push: Finding,
    /// Taking a blob over from a repository that has it.
    pub mount: Finding,
    /// The referrers API.
    pub referrers: Finding,
}

/// What `registries.conf` says about a name.
pub struct Mirrored {
    /// The entry, and the file that has it.
    pub entry: String,
    /// The places to pull from but for the name itself, in order, and what each has.
    pub sources: Vec<(String, Finding)>,
}

/// What one trial showed.
pub enum Finding {
    /// It works.
    Works(String),
    /// It is refused in a way that Phial can do without.
    Not(String),
    /// It was not tried, or says nothing.
    Unknown(String),
    /// It fails.
    Failed(RegistryError),
}

impl Client {
    /// Tries what a build and a release need. Nothing is left in the repository: the upload that is begun is cancelled.
    pub fn examine(&self, reference: &RegistryRef) -> Result<DoctorReport, RegistryError> {
        let site = self.site(reference)?;
        let mut looks = Vec::new();
        let found = self.auth.credentials().search(&site.host, &site.repository, &mut |look| looks.push(look));
        let login = match found {
            Ok(Some(_)) => Finding::Works(String::new()),
            Ok(None) => Finding::Unknown("no login: as anybody".into()),
            Err(error) => Finding::Failed(error),
        };
        let way = self.way(&site)?;
        let mirrored = self.mirrored(reference)?;
        let head = self.head_manifest(reference);
        let image = head.as_ref().ok().and_then(Option::as_ref).cloned();
        let pull = match head {
            Ok(Some(digest)) => Finding::Works(format!("`{reference}` is `{digest}`")),
            Ok(None) => Finding::Works(format!("allowed, and `{reference}` is not there")),
            Err(error) => Finding::Failed(error),
        };
        let push = self.push_finding(&site, reference);
        let mount = match (&push, &image) {
            (Finding::Failed(_), _) => Finding::Unknown("not tried: there is no pushing".into()),
            (_, None) => Finding::Unknown("not tried: it takes an image in the repository to mount a blob of".into()),
            (_, Some(digest)) => self.mount_finding(&site, reference, digest),
        };
        let referrers = self.referrers_finding(reference, image.as_ref());
        let (at, asks) = (super::http::place(&site.base), self.auth.asks(&site.host));
        Ok(DoctorReport { at, way, mirrored, looks, asks, login, pull, push, mount, referrers })
    }

    fn mirrored(&self, reference: &RegistryRef) -> Result<Option<Mirrored>, RegistryError> {
        let Some(entry) = self.transport.network().registries.entry(reference)? else { return Ok(None) };
        let insecure = if entry.insecure { ", insecure" } else { "" };
        let entry = format!("the entry `{}` of `{}`{insecure}", shown(&entry.prefix), entry.file.display());
        let mut sources = Vec::new();
        for (client, at) in self.pulling(reference).sources(reference)? {
            let finding = match client.head_manifest(&at) {
                Ok(Some(digest)) => Finding::Works(format!("it is `{digest}`")),
                Ok(None) => Finding::Not("it is not there".into()),
                Err(error) => Finding::Failed(error),
            };
            sources.push((shown(&at.to_string()), finding));
        }
        // The name itself is looked at anyway.
        sources.retain(|(at, _)| *at != shown(&reference.to_string()));
        Ok(Some(Mirrored { entry, sources }))
    }

    fn way(&self, site: &Site) -> Result<Vec<String>, RegistryError> {
        let network = self.transport.network();
        let mut way = Vec::new();
        if site.base.scheme() == "https" {
            let certs = network.certs.of(&authority(&site.base))?;
            way.extend(
                network.roots.shown().map(|place| format!("trusts {place} instead of the system's certificates")),
            );
            way.extend(network.ca_file.iter().map(|path| format!("trusts `{}`", path.display())));
            way.extend(certs.map(|certs| {
                let own = if certs.own.is_some() { ", with a client certificate" } else { "" };
                format!("certificates of `{}`{own}", certs.dir.display())
            }));
        }
        if let Some((proxy, variable)) = network.proxy_for(&site.base) {
            way.push(format!("through the proxy `{proxy}` of `{variable}`"));
        }
        Ok(way)
    }

    /// Begins an upload and cancels it. Whether it is gone: some registries let nobody cancel.
    pub fn probe_push(&self, repository: &RegistryRef) -> Result<bool, RegistryError> {
        let site = self.site(repository)?;
        let session = self.transport.patience.retry(|| self.begin(&site))?;
        Ok(self.is_cancelled(&site, &session))
    }

    fn is_cancelled(&self, site: &Site, session: &Session) -> bool {
        let call = Call::new(Method::DELETE, session.url.clone());
        self.send_once(&site.access(true), &call).is_ok_and(|answer| answer.status().is_success())
    }

    fn push_finding(&self, site: &Site, reference: &RegistryRef) -> Finding {
        // There an upload may create the repository, which nobody would take back.
        if ecr_region(&site.host).is_some() {
            let list = Call::new(Method::GET, site.url("tags/list"));
            match self.send(&site.access(false), &list) {
                Ok(answer) if answer.status() == StatusCode::NOT_FOUND => {
                    return Finding::Unknown(
                        "not tried: the repository is not there, and a trial might create it".into(),
                    );
                }
                Ok(_) => {}
                Err(error) => return Finding::Failed(error),
            }
        }
        match self.probe_push(reference) {
            Ok(true) => Finding::Works("an upload was begun and cancelled".into()),
            Ok(false) => Finding::Works(
                "an upload was begun; the registry does not let it be cancelled, and forgets it by itself".into(),
            ),
            Err(error) => Finding::Failed(error),
        }
    }

    /// Mounts a blob from the repository into itself, where it is already.
    fn mount_finding(&self, site: &Site, reference: &RegistryRef, digest: &Digest) -> Finding {
        let named = RegistryRef { digest: Some(digest.clone()), ..reference.clone() };
        let blob = match self.resolve(&named).map(|found| some_blob(&found.bytes, &found.media_type)) {
            Ok(Some(blob)) => blob,
            Ok(None) => return Finding::Unknown("not tried: that is an index, which has no blobs".into()),
            Err(error) => return Finding::Failed(error),
        };
        match self.mount(site, &blob, &site.repository) {
            Ok(None) => Finding::Works(
                "a blob was mounted where it is already; of other repositories it takes the right to pull them".into(),
            ),
            Ok(Some(session)) => {
                let left = if self.is_cancelled(site, &session) { "" } else { ", which could not be cancelled" };
                Finding::Not(format!("the registry wants the bytes instead, and opened an upload{left}"))
            }
            Err(error) => Finding::Not(error.to_string()),
        }
    }

    fn referrers_finding(&self, reference: &RegistryRef, image: Option<&Digest>) -> Finding {
        let nothing = Digest::of(b"");
        match self.keeping(reference, image.unwrap_or(&nothing)) {
            Ok(Keeping::Api) => Finding::Works("the API answers".into()),
            Ok(Keeping::FallbackTag) if image.is_some() => {
                Finding::Not("no API: what refers to an image is listed under a tag `sha256-...`".into())
            }
            Ok(Keeping::FallbackTag) => Finding::Unknown("no API, at least while the image is not there".into()),
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
        let place = &self.place;
        match &self.sight {
            LookupResult::Absent => write!(f, "{place}: not there"),
            LookupResult::Nothing => write!(f, "{place}: nothing for this repository"),
            LookupResult::Silent { helper } => write!(f, "{place}: `{helper}` has nothing"),
            LookupResult::Login { key, helper, kind } => {
                write!(f, "{place}: {kind} under the key `{}`", shown(key))?;
                helper.iter().try_for_each(|helper| write!(f, ", from `{helper}`"))
            }
        }
    }
}

impl DoctorReport {
    /// The first trial that failed.
    pub fn first_failure(&self) -> Option<&RegistryError> {
        [&self.login, &self.pull, &self.push, &self.referrers].into_iter().find_map(|finding| match finding {
            Finding::Failed(error) => Some(error),
            _ => None,
        })
    }
}
