//! The words of in-toto: statement v1, resource descriptors, test result v0.1 (in-toto/attestation, `spec/v1` and
//! `spec/predicates/test-result.md`). Fields that are not known are passed over, as the parsing rules ask.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The type of every statement.
pub const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// The type of a predicate that tells how tests ended.
pub const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Statement {
    #[serde(rename = "_type")]
    pub(super) kind: String,
    pub(super) subject: Vec<Resource>,
    pub(super) predicate_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) predicate: Option<TestResult>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TestResult {
    pub(super) result: String,
    pub(super) configuration: Vec<Resource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) passed_tests: Vec<String>,
    #[serde(default)]
    pub(super) warned_tests: Vec<String>,
    #[serde(default)]
    pub(super) failed_tests: Vec<String>,
}

/// A resource descriptor (`spec/v1/resource_descriptor.md`): one of `uri`, `digest` and `content` is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resource {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) uri: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) digest: BTreeMap<String, String>,
    /// Bytes, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(super) annotations: Map<String, Value>,
}
