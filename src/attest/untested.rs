//! The record of a release with `--untested`: that tests were missing, and why the image was released all the same.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::image::{Artifact, Descriptor, canonical_json, rfc3339_millis};

/// Media type of the artifact and of its document. It is our own, so that no tool takes it for proof of anything.
pub const UNTESTED_TYPE: &str = "application/vnd.phial.untested.v1+json";

/// A release of an image that is not proven by tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UntestedRecord {
    /// The argument of `--untested`.
    pub reason: String,
    /// Why the test records did not suffice.
    pub doubts: Vec<String>,
    /// The names that the image was given.
    pub names: Vec<String>,
    /// Version of Phial.
    pub version: String,
    /// When it was released, in milliseconds since 1970.
    #[serde(serialize_with = "as_time")]
    pub time: i64,
    /// The page of the run in its CI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_time<S: serde::Serializer>(millis: &i64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339_millis(*millis))
}

impl UntestedRecord {
    /// The record: an artifact that refers to `subject`, and the only blob of it.
    pub fn record(&self, subject: Descriptor) -> (Artifact, Vec<u8>) {
        let document = canonical_json(self);
        let annotations = BTreeMap::from([
            ("org.opencontainers.image.created".to_owned(), rfc3339_millis(self.time)),
            ("dev.phial.untested".to_owned(), self.reason.clone()),
        ]);
        (Artifact::about(subject, UNTESTED_TYPE, Descriptor::of(UNTESTED_TYPE, &document), annotations), document)
    }
}
