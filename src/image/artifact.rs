//! Artifacts: manifests that are not an image, but describe one, such as test records, signatures and SBOMs.

use std::collections::{BTreeMap, BTreeSet};

use phial_layers::Digest;

use super::error::ImageError;
use super::json::canonical_json;
use super::manifest::{Descriptor, Manifest, ManifestOrIndex, read_manifest};
use super::media::{EMPTY, OCI_MANIFEST};

/// The whole content of an empty config (`manifest.md`, "guidance for an empty descriptor").
pub const EMPTY_BYTES: &[u8] = b"{}";

/// An artifact: its manifest as bytes and parsed. The bytes are never serialized again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The manifest as stored and sent.
    pub bytes: Vec<u8>,
    /// Digest of those bytes.
    pub digest: Digest,
    /// The bytes, parsed.
    pub manifest: Manifest,
}

impl Artifact {
    /// A document about `subject` (`manifest.md`, "guidelines for artifact usage"). `kind` is the `artifactType`; the
    /// document's own blob is the one layer.
    pub fn about(subject: Descriptor, kind: &str, document: Descriptor, annotations: BTreeMap<String, String>) -> Self {
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.into()),
            artifact_type: Some(kind.into()),
            config: Descriptor::of(EMPTY, EMPTY_BYTES),
            layers: vec![document],
            subject: Some(subject),
            annotations,
        };
        let bytes = canonical_json(&manifest);
        Self { digest: Digest::of(&bytes), bytes, manifest }
    }

    /// An artifact from its bytes; `None` for an index. The caller has checked the bytes against `digest`.
    pub fn read(digest: &Digest, bytes: Vec<u8>, announced: Option<&str>) -> Result<Option<Self>, ImageError> {
        Ok(match read_manifest(&bytes, announced)? {
            ManifestOrIndex::Manifest(manifest) => Some(Self { digest: digest.clone(), bytes, manifest: *manifest }),
            ManifestOrIndex::Index(_) => None,
        })
    }

    /// Its type: `artifactType`, or else the config's media type (distribution specification, "listing referrers").
    pub fn kind(&self) -> &str {
        self.manifest.artifact_type.as_deref().unwrap_or(&self.manifest.config.media_type)
    }

    /// Whether its subject is this manifest.
    pub fn is_about(&self, subject: &Digest) -> bool {
        self.manifest.subject.as_ref().is_some_and(|found| found.digest == *subject)
    }

    /// Its entry in a list of referrers, with its type and all its annotations.
    pub fn descriptor(&self) -> Descriptor {
        let size = self.bytes.len() as u64;
        Descriptor {
            artifact_type: Some(self.kind().to_owned()),
            annotations: self.manifest.annotations.clone(),
            ..Descriptor::new(self.manifest.media_type(), self.digest.clone(), size)
        }
    }

    /// Its layers and its config, each blob once.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        let mut seen = BTreeSet::new();
        self.manifest.layers.iter().chain([&self.manifest.config]).filter(|blob| seen.insert(&blob.digest)).collect()
    }
}

/// The tag that replaces the referrers API (distribution specification, "referrers tag schema"): the algorithm
/// cut to 32 characters, a hyphen, the hash cut to 64.
pub fn fallback_tag(subject: &Digest) -> String {
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    format!("{}-{}", cut(subject.algorithm(), 32), cut(subject.hex(), 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_is_the_bytes_that_the_specification_shows() {
        let subject = Descriptor::new(OCI_MANIFEST, Digest::of(b"image"), 5);
        let document = Descriptor::of("application/json", b"{\"a\":1}");
        let artifact = Artifact::about(subject, "application/x", document.clone(), BTreeMap::new());
        assert_eq!(
            String::from_utf8(artifact.bytes.clone()).unwrap(),
            format!(
                "{{\"artifactType\":\"application/x\",\"config\":{{\"digest\":\"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\
                 \"mediaType\":\"application/vnd.oci.empty.v1+json\",\"size\":2}},\"layers\":[{{\"digest\":\"{}\",\
                 \"mediaType\":\"application/json\",\"size\":7}}],\"mediaType\":\"{OCI_MANIFEST}\",\"schemaVersion\":2,\
                 \"subject\":{{\"digest\":\"{}\",\"mediaType\":\"{OCI_MANIFEST}\",\"size\":5}}}}",
                document.digest,
                Digest::of(b"image")
            )
        );
        let again = Artifact::read(&artifact.digest, artifact.bytes.clone(), Some(OCI_MANIFEST)).unwrap().unwrap();
        assert_eq!(again, artifact);
        assert!(again.is_about(&Digest::of(b"image")) && !again.is_about(&Digest::of(b"other")));
        assert_eq!(again.descriptor().artifact_type.as_deref(), Some("application/x"));
    }

    #[test]
    fn a_fallback_tag_is_never_longer_than_a_tag_may_be() {
        assert_eq!(fallback_tag(&Digest::of(b"")), format!("sha256-{}", Digest::of(b"").hex()));
        let long: Digest = format!("sha512:{}", "ab".repeat(64)).parse().unwrap();
        assert_eq!(fallback_tag(&long), format!("sha512-{}", "ab".repeat(32)));
    }
}
