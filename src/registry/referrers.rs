//! Referrers of a manifest (distribution specification, "listing referrers" and "pushing manifests with subject"): by the
//! referrers API where it works, or else by the fallback tag.
//!
//! Whether the API works is found out by a request, not by `OCI-Subject`: ECR sent that header before it had the API, and
//! Quay has the API without the header. What the fallback tag names is used only if it is an index: GitLab resolves
//! `sha256-<hex>` to the manifest `sha256:<hex>` itself, so there the list has a tag of another form.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use phial_layers::Digest;
use reqwest::header::{ACCEPT, CONTENT_TYPE, LINK};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::access::{RepositoryAccess, Rights};
use super::client::{Client, ResolvedManifest};
use super::error::RegistryError;
use super::http::{HttpRequest, header, read_bounded, refusal};
use super::paging::{checked_page, next_page};
use super::url::display_url;
use crate::error::Error;
use crate::image::{
    Artifact, BlobReader, Blobs, Descriptor, EMPTY_BYTES, ImageError, Index, MAX_MANIFEST_PULL, ManifestOrIndex,
    OCI_INDEX, RegistryRef, canonical_json, fallback_tag, read_json, read_manifest,
};

/// Pages of one list that are read.
const MAX_PAGES: usize = 100;
/// Tries after which a registry must list what was put, with doubling pauses: some are a little late.
const MAX_CHECKS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Rounds of reading, writing and reading again of the fallback tag, while others write it too.
const MAX_ROUNDS: u32 = 24;
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// How a registry lists the referrers of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferrersSupport {
    /// By the referrers API.
    Api,
    /// By an index under the tag `sha256-<hex>`; on GitLab under another tag.
    FallbackTag,
}

/// An artifact to be put into a repository, and where its blobs are.
#[derive(Clone, Copy)]
pub struct ArtifactPush<'a> {
    /// The artifact.
    pub artifact: &'a Artifact,
    /// The source of its layers.
    pub blobs: Blobs<'a>,
    /// Repositories of the same registry that may have them.
    pub mount: &'a [&'a str],
}

/// The index under a fallback tag. Its entries keep all fields that other tools wrote.
struct FallbackIndex {
    tag: String,
    index: Value,
}

impl Client {
    /// How the registry lists referrers in this repository.
    pub fn referrers_support(
        &self,
        repository: &RegistryRef,
        subject: &Digest,
    ) -> Result<ReferrersSupport, RegistryError> {
        let listed = self.referrers_by_api(&self.access(repository, Rights::Pull)?, subject)?;
        Ok(listed.map_or(ReferrersSupport::FallbackTag, |_| ReferrersSupport::Api))
    }

    /// The descriptors that are listed as referrers of `subject`, in no particular order. Those by the fallback tag may have no
    /// `artifactType`, or a wrong one (cosign before 3.1 writes the config's): only a referrer's manifest is reliable.
    pub fn referrers(&self, repository: &RegistryRef, subject: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let repository = repository.repository_only();
        if let Some(listed) = self.referrers_by_api(&self.access(&repository, Rights::Pull)?, subject)? {
            return Ok(listed);
        }
        let listed = self.fallback_index(&repository, subject)?;
        let index: Index = serde_json::from_value(listed.index)
            .map_err(|source| ImageError::Json { what: "the index of referrers", source })
            .map_err(RegistryError::image(&tagged(&repository, &listed.tag)))?;
        Ok(index.manifests)
    }

    /// The manifest of a referrer; `None` if it was removed, or is an index.
    pub fn artifact(&self, repository: &RegistryRef, digest: &Digest) -> Result<Option<Artifact>, RegistryError> {
        let exact = RegistryRef { digest: Some(digest.clone()), ..repository.repository_only() };
        match self.resolve(&exact) {
            Ok(found) => {
                Artifact::read(digest, found.bytes, Some(&found.media_type)).map_err(RegistryError::image(&exact))
            }
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The checked bytes of a small blob, such as a test record: at most 8 MiB.
    pub fn document(&self, repository: &RegistryRef, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let reference = format!("{}@{}", repository.name(), descriptor.digest);
        if descriptor.size > MAX_MANIFEST_PULL {
            return Err(RegistryError::TooLarge { request: format!("GET {reference}"), limit: MAX_MANIFEST_PULL });
        }
        self.whole_blob(repository, descriptor)
    }

    /// Puts an artifact into the repository, and makes sure that it is listed as a referrer of its subject. It may be repeated,
    /// and run twice at the same time.
    pub fn put_referrer(
        &self,
        repository: &RegistryRef,
        push: ArtifactPush<'_>,
    ) -> Result<ReferrersSupport, RegistryError> {
        let to = repository.repository_only();
        let artifact = push.artifact;
        let Some(subject) = artifact.manifest.subject.as_ref().map(|subject| subject.digest.clone()) else {
            let source = ImageError::Ambiguous { why: "it has no `subject` to refer to" };
            return Err(RegistryError::Image { reference: artifact.digest.to_string(), source });
        };
        let open = |digest: &Digest| -> Result<Option<BlobReader>, Error> {
            if *digest == Digest::of(EMPTY_BYTES) { Ok(Some(Box::new(EMPTY_BYTES))) } else { (push.blobs)(digest) }
        };
        self.put_artifact(&to, ArtifactPush { blobs: &open, ..push })?;
        let access = self.access(&to, Rights::Pull)?;
        let mut pause = FIRST_PAUSE;
        for _ in 0..MAX_CHECKS {
            match self.referrers_by_api(&access, &subject)? {
                None => {
                    return self.add_to_fallback_index(&to, &subject, artifact).map(|()| ReferrersSupport::FallbackTag);
                }
                Some(listed) if listed.iter().any(|entry| entry.digest == artifact.digest) => {
                    return Ok(ReferrersSupport::Api);
                }
                Some(_) => sleep(pause),
            }
            pause *= 2;
        }
        let why = format!("it stores `{}`, but does not list it as a referrer of `{subject}`", artifact.digest);
        Err(RegistryError::NotARegistry { place: to.name(), why })
    }

    /// Puts an artifact without a subject under a tag, as cosign stores signatures.
    pub fn put_tagged(&self, to: &RegistryRef, tag: &str, push: ArtifactPush<'_>) -> Result<(), RegistryError> {
        self.put_artifact(to, push)?;
        self.put(to, tag, &push.artifact.bytes, push.artifact.manifest.media_type())
    }

    /// Puts blobs and manifest. In distribution 2.8, writers of the same blob disturb each other: for a moment the blob is
    /// missing for a manifest that names it. All artifacts share the empty config, so this happens.
    fn put_artifact(&self, to: &RegistryRef, push: ArtifactPush<'_>) -> Result<(), RegistryError> {
        let ArtifactPush { artifact, blobs, mount } = push;
        let mut pause = FIRST_PAUSE;
        for nth in 1.. {
            for blob in artifact.blobs() {
                self.push_blob(to, blob, blobs, mount)?;
            }
            match self.put(to, artifact.digest.as_str(), &artifact.bytes, artifact.manifest.media_type()) {
                Err(error) if nth < MAX_CHECKS && error.is_missing_content() => sleep(pause),
                result => return result,
            }
            pause *= 2;
        }
        Ok(())
    }

    /// Those of `manifests` that the repository does not have any more.
    fn removed(&self, at: &RegistryRef, manifests: &[Digest]) -> Result<Vec<String>, RegistryError> {
        let mut removed = Vec::new();
        for digest in manifests {
            if self.head(&RegistryRef { digest: Some(digest.clone()), ..at.clone() }, Rights::Push)?.is_none() {
                removed.push(digest.to_string());
            }
        }
        Ok(removed)
    }

    /// All pages of the referrers API; `None` if the registry does not have it.
    fn referrers_by_api(
        &self,
        access: &RepositoryAccess,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let first = access.url(&format!("referrers/{subject}"));
        let mut url = first.clone();
        let mut listed = Vec::new();
        for page in 0..MAX_PAGES {
            let request = HttpRequest::new(Method::GET, url.clone()).with(ACCEPT, OCI_INDEX);
            let response = self.send(access, &request)?;
            match response.status() {
                StatusCode::OK => {}
                // 404 by the specification; 400, 405 and 501 by registries without such a path.
                status if page == 0 && (status.is_client_error() || status.is_server_error()) => return Ok(None),
                _ => return Err(refusal(&request, response)),
            }
            let at = display_url(response.url());
            let announced = header(&response, CONTENT_TYPE.as_str()).unwrap_or_default();
            let is_announced = announced.split(';').next().unwrap_or_default().trim() == OCI_INDEX;
            let next = header(&response, LINK.as_str()).and_then(|link| next_page(&link, &url));
            let bytes = read_bounded(response, &request.describe(), MAX_MANIFEST_PULL)?;
            match read_manifest(&bytes, None) {
                Ok(ManifestOrIndex::Index(index)) if is_announced || index.media_type.as_deref() == Some(OCI_INDEX) => {
                    listed.extend(index.manifests);
                }
                // An HTML page, or whatever else some servers send for any path.
                _ if page == 0 && !is_announced => return Ok(None),
                Ok(_) => {
                    return Err(RegistryError::NotARegistry {
                        place: at,
                        why: "its list of referrers is not an index".into(),
                    });
                }
                Err(source) => return Err(RegistryError::Image { reference: at, source }),
            }
            match next {
                None => return Ok(Some(listed)),
                Some(next) => url = checked_page(&request, &first, next)?,
            }
        }
        Err(RegistryError::NotARegistry {
            place: display_url(&first),
            why: format!("it has more than {MAX_PAGES} pages"),
        })
    }

    /// The index under the fallback tag; an empty one if there is none yet.
    fn fallback_index(&self, repository: &RegistryRef, subject: &Digest) -> Result<FallbackIndex, RegistryError> {
        let tag = fallback_tag(subject);
        let other_form = format!("{tag}.referrers");
        for tag in [tag, other_form] {
            let named = tagged(repository, &tag);
            match self.resolve(&named) {
                Ok(found) if found.digest == *subject => {}
                Ok(found) => return Ok(FallbackIndex { index: checked_index(&named, &found)?, tag }),
                Err(RegistryError::NotFound { .. }) => {
                    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] });
                    return Ok(FallbackIndex { tag, index });
                }
                Err(error) => return Err(error),
            }
        }
        let why = format!("it returns `{subject}` itself for every tag that could list its referrers");
        Err(RegistryError::NotARegistry { place: repository.name(), why })
    }

    /// Adds the artifact to the index under the fallback tag. No registry in use honours a conditional PUT, so the index is
    /// read again a little later: another writer may have replaced it.
    fn add_to_fallback_index(
        &self,
        to: &RegistryRef,
        subject: &Digest,
        artifact: &Artifact,
    ) -> Result<(), RegistryError> {
        let entry = json!(artifact.descriptor());
        let mut gone: BTreeSet<String> = BTreeSet::new();
        for round in 0..MAX_ROUNDS {
            let began = Instant::now();
            let FallbackIndex { tag, mut index } = self.fallback_index(to, subject)?;
            let Some(list) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
                let source = ImageError::Ambiguous { why: "its `manifests` is not a list" };
                return Err(RegistryError::Image { reference: tagged(to, &tag).to_string(), source });
            };
            if list.contains(&entry) {
                return Ok(());
            }
            list.retain(|other| {
                other["digest"] != entry["digest"]
                    && !other["digest"].as_str().is_some_and(|digest| gone.contains(digest))
            });
            let others: Vec<Digest> = list.iter().filter_map(|other| other["digest"].as_str()?.parse().ok()).collect();
            list.push(entry.clone());
            match self.put(to, &tag, &canonical_json(&index), OCI_INDEX) {
                Ok(()) | Err(RegistryError::Verify { .. }) => {}
                // It names a manifest that was removed: such an entry is of no use.
                Err(error) if error.is_missing_content() && round < MAX_CHECKS => {
                    gone.extend(self.removed(to, &others)?);
                }
                Err(error) => return Err(error),
            }
            // Longer than another writer takes from reading to writing, and not in step with it.
            let uneven = u32::from(artifact.digest.hex().as_bytes()[round as usize] % 8);
            sleep((began.elapsed() * 2 + FIRST_PAUSE + FIRST_PAUSE * uneven / 2).min(LONGEST_PAUSE));
        }
        let why = "other writers kept replacing the list of referrers".into();
        Err(RegistryError::NotARegistry { place: tagged(to, &fallback_tag(subject)).to_string(), why })
    }
}

fn tagged(repository: &RegistryRef, tag: &str) -> RegistryRef {
    RegistryRef { tag: Some(tag.into()), ..repository.repository_only() }
}

/// The index that a fallback tag names. Anything else is an error, so that it is not overwritten.
fn checked_index(named: &RegistryRef, found: &ResolvedManifest) -> Result<Value, RegistryError> {
    let refused = RegistryError::image(named);
    if found.media_type != OCI_INDEX {
        let (announced, found) = ("an index of referrers".into(), crate::image::shown(&found.media_type));
        return Err(refused(ImageError::MediaType { announced, found }));
    }
    read_json("the index of referrers", &found.bytes).map_err(refused)
}
