//! Referrers in a layout: entries without a tag in `index.json`, as oras writes them, and lists under the fallback tag, as
//! regctl writes them. Image-spec 1.1 does not define this, so both are read; the first form is written.

use std::collections::{BTreeMap, BTreeSet};

use phial_layers::Digest;
use serde_json::Value;

use super::REF_NAME;
use super::error::LayoutError;
use super::read::Layout;
use crate::image::{Artifact, Descriptor, Index, ManifestOrIndex, fallback_tag, read_manifest};

/// Referrers by digest; a damaged one has an error.
pub type ReferrerList = Vec<(Digest, Result<Artifact, LayoutError>)>;

impl Layout {
    /// The digest that each tag names: of an image, an index or an artifact.
    pub fn names(&self) -> Result<BTreeMap<String, Digest>, LayoutError> {
        let entries = self.index()?.manifests.into_iter();
        Ok(entries.filter_map(|mut entry| Some((entry.annotations.remove(REF_NAME)?, entry.digest))).collect())
    }

    /// The referrers of `subject`, by their own manifests: tools that rewrite `index.json` lose its `artifactType`. A manifest
    /// that cannot be read is listed with the error, if its entry has an `artifactType`.
    pub fn referrers(&self, subject: &Digest) -> Result<ReferrerList, LayoutError> {
        let index = self.index()?;
        let tag = fallback_tag(subject);
        let (mut entries, mut lists) = (Vec::new(), BTreeSet::new());
        for entry in index.manifests {
            if entry.annotations.get(REF_NAME).is_some_and(|name| *name == tag) {
                // One list under many entries is read once, and of its entries only what is looked at is kept.
                if lists.insert(entry.digest.clone()) {
                    let listed = self.list(&entry)?.into_iter();
                    entries.extend(listed.map(|entry| Descriptor { annotations: BTreeMap::new(), ..entry }));
                }
            } else {
                entries.push(entry);
            }
        }
        entries.sort_by(|a, b| a.digest.cmp(&b.digest));
        entries.dedup_by(|a, b| a.digest == b.digest);
        let mut found = Vec::new();
        for entry in entries.iter().filter(|entry| entry.digest != *subject) {
            let kept = match self.artifact(entry) {
                Ok(found) => found.filter(|artifact| artifact.is_about(subject)).map(Ok),
                Err(error) => entry.artifact_type.is_some().then_some(Err(error)),
            };
            found.extend(kept.map(|kept| (entry.digest.clone(), kept)));
        }
        Ok(found)
    }

    /// Whether an entry of `index.json` is a referrer of another manifest, or a list of referrers.
    pub(super) fn is_referrer(&self, entry: &Value) -> bool {
        let Ok(entry) = serde_json::from_value::<Descriptor>(entry.clone()) else { return false };
        self.is_referrer_entry(&entry)
    }

    pub(super) fn is_referrer_entry(&self, entry: &Descriptor) -> bool {
        let is_list = entry.annotations.get(REF_NAME).is_some_and(|name| {
            name.split_once('-').is_some_and(|(algorithm, hex)| {
                matches!(algorithm, "sha256" | "sha512")
                    && hex.len() == 64
                    && hex.bytes().all(|b| b.is_ascii_hexdigit())
            })
        });
        let subject = |artifact: &Artifact| artifact.manifest.subject.is_some();
        is_list
            || entry.artifact_type.is_some()
            || self.artifact(entry).is_ok_and(|found| found.is_some_and(|it| subject(&it)))
    }

    /// The artifact of an entry; `None` for an index, or if another tool did not copy the manifest.
    fn artifact(&self, entry: &Descriptor) -> Result<Option<Artifact>, LayoutError> {
        let bytes = match self.bytes(entry) {
            Err(LayoutError::MissingBlob { .. }) => return Ok(None),
            bytes => bytes?,
        };
        Artifact::read(&entry.digest, bytes, Some(&entry.media_type)).map_err(LayoutError::image(&self.path))
    }

    fn list(&self, entry: &Descriptor) -> Result<Vec<Descriptor>, LayoutError> {
        match read_manifest(&self.bytes(entry)?, Some(&entry.media_type)).map_err(LayoutError::image(&self.path))? {
            ManifestOrIndex::Index(Index { manifests, .. }) => Ok(manifests),
            ManifestOrIndex::Manifest(_) => Ok(Vec::new()), // an image with that name
        }
    }
}
