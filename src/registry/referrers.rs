//! What refers to a manifest (distribution specification, "listing referrers" and "pushing manifests with subject"): by
//! the API where it really works, else by the fallback tag.
//!
//! Whether it works is found out by asking, not by `OCI-Subject`: ECR sent that header before it had the API, and Quay has
//! the API without the header. What the fallback tag names is believed only if it is an index: GitLab resolves
//! `sha256-<hex>` to the manifest `sha256:<hex>` itself, so there the list lives under a tag of another form.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use phial_layers::Digest;
use reqwest::header::{ACCEPT, CONTENT_TYPE, LINK};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};

use super::client::{Client, Resolved, Site, header};
use super::error::RegistryError;
use super::http::{Call, bounded, place, refusal, request};
use crate::error::Error;
use crate::image::{
    Artifact, BlobReader, Blobs, Descriptor, EMPTY_BYTES, ImageError, Index, MAX_MANIFEST_PULL, ManifestOrIndex,
    OCI_INDEX, RegistryRef, canonical_json, fallback_tag, read_json, read_manifest,
};

/// Pages of one list.
const MAX_PAGES: usize = 100;
/// Looks whether the API lists what was put, with doubling pauses: some registries are a little late.
const LOOKS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Rounds of reading, writing and looking again at the fallback tag, while others write it too.
const ROUNDS: u32 = 24;
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// How a repository keeps what refers to a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// The registry's own API.
    Api,
    /// An index under the tag `sha256-<hex>`, or GitLab's stand-in for that.
    FallbackTag,
}

/// The list under the fallback tag: its entries as they were written, whoever wrote them.
struct Listed {
    tag: String,
    index: Value,
}

impl Client {
    /// How the registry keeps referrers in this repository: asked, not guessed.
    pub fn keeping(&self, repository: &RegistryRef, subject: &Digest) -> Result<Keeping, RegistryError> {
        let listed = self.by_api(&self.site(repository)?, subject)?;
        Ok(listed.map_or(Keeping::FallbackTag, |_| Keeping::Api))
    }

    /// What is said to refer to `subject`, in no order that means something. Entries by the fallback tag may lack their
    /// `artifactType`, or have a wrong one (cosign until 3.1 writes the config's): what a referrer is, its manifest says.
    pub fn referrers(&self, repository: &RegistryRef, subject: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let repository = repository.repository_only();
        if let Some(listed) = self.by_api(&self.site(&repository)?, subject)? {
            return Ok(listed);
        }
        let listed = self.by_tag(&repository, subject)?;
        let index: Index = serde_json::from_value(listed.index)
            .map_err(|source| ImageError::Json { what: "the index of referrers", source })
            .map_err(RegistryError::image(&under(&repository, &listed.tag)))?;
        Ok(index.manifests)
    }

    /// A referrer's manifest; `None` if it is gone, or is an index.
    pub fn artifact(&self, repository: &RegistryRef, of: &Digest) -> Result<Option<Artifact>, RegistryError> {
        let exact = RegistryRef { digest: Some(of.clone()), ..repository.repository_only() };
        match self.resolve(&exact) {
            Ok(found) => Artifact::read(of, found.bytes, Some(&found.media_type)).map_err(RegistryError::image(&exact)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes of a blob that may be held in memory, as a test record may.
    pub fn document(&self, repository: &RegistryRef, of: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let reference = format!("{}@{}", repository.name(), of.digest);
        if of.size > MAX_MANIFEST_PULL {
            return Err(RegistryError::TooLarge { request: format!("GET {reference}"), limit: MAX_MANIFEST_PULL });
        }
        self.whole_blob(repository, of)
    }

    /// Puts `artifact` into the repository, so that whoever lists what refers to its subject finds it. `blobs` gives its
    /// layers; `mount` names repositories of the same registry that may have them. Safe to repeat and to run twice at once.
    pub fn refer(
        &self,
        repository: &RegistryRef,
        artifact: &Artifact,
        blobs: Blobs<'_>,
        mount: &[&str],
    ) -> Result<Keeping, RegistryError> {
        let to = repository.repository_only();
        let Some(subject) = artifact.manifest.subject.as_ref().map(|subject| subject.digest.clone()) else {
            let source = ImageError::Ambiguous { why: "it has no `subject` to refer to" };
            return Err(RegistryError::Image { reference: artifact.digest.to_string(), source });
        };
        let open = |digest: &Digest| -> Result<Option<BlobReader>, Error> {
            if *digest == Digest::of(EMPTY_BYTES) { Ok(Some(Box::new(EMPTY_BYTES))) } else { blobs(digest) }
        };
        self.put_artifact(&to, artifact, &open, mount)?;
        let site = self.site(&to)?;
        let mut pause = FIRST_PAUSE;
        for _ in 0..LOOKS {
            match self.by_api(&site, &subject)? {
                None => return self.join(&to, &subject, artifact).map(|()| Keeping::FallbackTag),
                Some(listed) if listed.iter().any(|entry| entry.digest == artifact.digest) => return Ok(Keeping::Api),
                Some(_) => sleep(pause),
            }
            pause *= 2;
        }
        let why = format!("it took `{}`, and does not list it as referring to `{subject}`", artifact.digest);
        Err(RegistryError::NotARegistry { place: to.name(), why })
    }

    /// Puts an artifact that refers to nothing under a tag, as cosign keeps its signatures beside the image.
    pub fn put_tagged(
        &self,
        to: &RegistryRef,
        tag: &str,
        (artifact, blobs): (&Artifact, Blobs<'_>),
        mount: &[&str],
    ) -> Result<(), RegistryError> {
        self.put_artifact(to, artifact, blobs, mount)?;
        self.put(to, tag, &artifact.bytes, artifact.manifest.media_type())
    }

    /// Blobs and manifest. Writers of the same blob disturb each other in distribution 2.8: for a moment it is not there
    /// for whoever puts a manifest that names it, though it was. All artifacts share the empty config.
    fn put_artifact(
        &self,
        to: &RegistryRef,
        artifact: &Artifact,
        blobs: Blobs<'_>,
        mount: &[&str],
    ) -> Result<(), RegistryError> {
        let mut pause = FIRST_PAUSE;
        for nth in 1.. {
            for blob in artifact.blobs() {
                self.push_blob(to, blob, blobs, mount)?;
            }
            match self.put(to, artifact.digest.as_str(), &artifact.bytes, artifact.manifest.media_type()) {
                Err(error) if nth < LOOKS && error.is_about_content() => sleep(pause),
                result => return result,
            }
            pause *= 2;
        }
        Ok(())
    }

    /// Those of `manifests` that are not there any more.
    fn removed(&self, at: &RegistryRef, manifests: &[Digest]) -> Result<Vec<String>, RegistryError> {
        let mut removed = Vec::new();
        for digest in manifests {
            if self.head(&RegistryRef { digest: Some(digest.clone()), ..at.clone() }, true)?.is_none() {
                removed.push(digest.to_string());
            }
        }
        Ok(removed)
    }

    /// All pages of the API's answer; `None` if there is no such API.
    fn by_api(&self, site: &Site, subject: &Digest) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let first = site.url(&format!("referrers/{subject}"));
        let mut url = first.clone();
        let mut listed = Vec::new();
        for page in 0..MAX_PAGES {
            let call = Call::new(Method::GET, url.clone()).with(ACCEPT, OCI_INDEX);
            let response = self.send(&site.access(false), &call)?;
            match response.status() {
                StatusCode::OK => {}
                // 404 by the specification; 400, 405 and 501 by those that know no such path.
                status if page == 0 && (status.is_client_error() || status.is_server_error()) => return Ok(None),
                _ => return Err(refusal(&call, response)),
            }
            let at = place(response.url());
            let announced = header(&response, CONTENT_TYPE.as_str()).unwrap_or_default();
            let is_announced = announced.split(';').next().unwrap_or_default().trim() == OCI_INDEX;
            let next = header(&response, LINK.as_str()).and_then(|link| next_page(&link, &url));
            let bytes = bounded(response, &request(&call), MAX_MANIFEST_PULL)?;
            match read_manifest(&bytes, None) {
                Ok(ManifestOrIndex::Index(index)) if is_announced || index.media_type.as_deref() == Some(OCI_INDEX) => {
                    listed.extend(index.manifests);
                }
                // A page for people, or whatever else is answered to any path.
                _ if page == 0 && !is_announced => return Ok(None),
                Ok(_) => return Err(RegistryError::NotARegistry { place: at, why: "that is no index".into() }),
                Err(source) => return Err(RegistryError::Image { reference: at, source }),
            }
            match next {
                None => return Ok(Some(listed)),
                Some(next) if next.origin() == first.origin() => url = next,
                Some(next) => {
                    let why = "a list goes on where it began";
                    return Err(RegistryError::Redirect { request: request(&call), to: place(&next), why });
                }
            }
        }
        Err(RegistryError::NotARegistry { place: place(&first), why: format!("it has more than {MAX_PAGES} pages") })
    }

    /// The list under the fallback tag; an empty one if there is none yet.
    fn by_tag(&self, repository: &RegistryRef, subject: &Digest) -> Result<Listed, RegistryError> {
        let tag = fallback_tag(subject);
        let stand_in = format!("{tag}.referrers");
        for tag in [tag, stand_in] {
            let named = under(repository, &tag);
            match self.resolve(&named) {
                Ok(found) if found.digest == *subject => {}
                Ok(found) => return Ok(Listed { index: entries(&named, &found)?, tag }),
                Err(RegistryError::NotFound { .. }) => {
                    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] });
                    return Ok(Listed { tag, index });
                }
                Err(error) => return Err(error),
            }
        }
        let why = format!("it answers with `{subject}` to any tag that could list what refers to it");
        Err(RegistryError::NotARegistry { place: repository.name(), why })
    }

    /// Writes the artifact's entry into the list under the fallback tag, beside those of others. No registry in use
    /// honours a conditional PUT, so whoever wrote looks again a little later whether another's list has replaced it.
    fn join(&self, to: &RegistryRef, subject: &Digest, artifact: &Artifact) -> Result<(), RegistryError> {
        let entry = json!(artifact.descriptor());
        let mut gone: BTreeSet<String> = BTreeSet::new();
        for round in 0..ROUNDS {
            let began = Instant::now();
            let Listed { tag, mut index } = self.by_tag(to, subject)?;
            let Some(list) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
                let source = ImageError::Ambiguous { why: "its `manifests` is no list" };
                return Err(RegistryError::Image { reference: under(to, &tag).to_string(), source });
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
                // It names a manifest that somebody removed: such an entry is of no use to anybody.
                Err(error) if error.is_about_content() && round < LOOKS => gone.extend(self.removed(to, &others)?),
                Err(error) => return Err(error),
            }
            // Longer than another's way from reading to writing takes, and not in step with it.
            let uneven = u32::from(artifact.digest.hex().as_bytes()[round as usize] % 8);
            sleep((began.elapsed() * 2 + FIRST_PAUSE + FIRST_PAUSE * uneven / 2).min(LONGEST_PAUSE));
        }
        let why = "others wrote the list of referrers over and over".into();
        Err(RegistryError::NotARegistry { place: under(to, &fallback_tag(subject)).to_string(), why })
    }
}

fn under(repository: &RegistryRef, tag: &str) -> RegistryRef {
    RegistryRef { tag: Some(tag.into()), ..repository.repository_only() }
}

/// What a fallback tag names, if it is an index. Anything else is not written over.
fn entries(named: &RegistryRef, found: &Resolved) -> Result<Value, RegistryError> {
    let refused = RegistryError::image(named);
    if found.media_type != OCI_INDEX {
        let (announced, found) = ("an index of referrers".into(), crate::image::shown(&found.media_type));
        return Err(refused(ImageError::MediaType { announced, found }));
    }
    read_json("the index of referrers", &found.bytes).map_err(refused)
}

/// The target of a `Link` with `rel="next"` (RFC 8288).
pub(super) fn next_page(link: &str, from: &Url) -> Option<Url> {
    link.split(',').find_map(|one| {
        let (target, rest) = one.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = rest.split(';').any(|part| matches!(part.trim(), "rel=\"next\"" | "rel=next"));
        if is_next { from.join(target).ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        let from: Url = "http://r/v2/a/referrers/sha256:1".parse().unwrap();
        for (link, next) in [
            ("</v2/a/referrers/sha256:1?n=2>; rel=\"next\"", Some("http://r/v2/a/referrers/sha256:1?n=2")),
            ("<http://o/x>; rel=prev, <?page=2>; rel=next", Some("http://r/v2/a/referrers/sha256:1?page=2")),
            ("</v2/a>; rel=\"first\"", None),
            ("nonsense", None),
        ] {
            assert_eq!(next_page(link, &from).as_ref().map(Url::as_str), next, "{link}");
        }
    }
}
