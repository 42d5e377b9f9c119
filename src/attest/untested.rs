//! That an image was given a name without a proof, and why: so that nobody wonders later.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::image::{Artifact, Descriptor, canonical_json, rfc3339_millis};

/// The type of the artifact and of its document. It is of our own making, so that nothing which looks for verified
/// properties can take it for one.
pub const UNTESTED: &str = "application/vnd.phial.untested.v1+json";

/// A release without a passing test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Untested {
    /// As the user gave it.
    pub reason: String,
    /// What the records lacked.
    pub doubts: Vec<String>,
    /// The names that were given.
    pub names: Vec<String>,
    /// Version of Phial.
    pub version: String,
    /// Milliseconds since 1970.
    #[serde(serialize_with = "as_time")]
    pub time: i64,
    /// Where the run can be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_time<S: serde::Serializer>(millis: &i64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339_millis(*millis))
}

impl Untested {
    /// The referrer of `subject`, and the document that it names.
    pub fn record(&self, subject: Descriptor) -> (Artifact, Vec<u8>) {
        let document = canonical_json(self);
        let annotations = BTreeMap::from([
            ("org.opencontainers.image.created".to_owned(), rfc3339_millis(self.time)),
            ("dev.phial.untested".to_owned(), self.reason.clone()),
        ]);
        (Artifact::about(subject, UNTESTED, Descriptor::of(UNTESTED, &document), annotations), document)
    }
}
