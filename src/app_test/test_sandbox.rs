//! What the sandboxes of a test's commands and services have in common.

use std::collections::BTreeMap;

use crate::image::DEFAULT_PATH;
use crate::rootfs::Isolation;
use crate::sandbox::Network;
use crate::store::Scratch;

/// What the sandboxes of commands and services have in common.
pub(super) struct TestSandbox<'a> {
    pub(super) scratch: &'a Scratch,
    pub(super) isolation: Isolation,
    pub(super) network: Network,
    /// `/etc/hosts`.
    pub(super) hosts: &'a str,
}

/// The variables that every program is given: the least that it expects.
pub(super) fn default_env(home: &str) -> BTreeMap<String, String> {
    let pairs = [("PATH", DEFAULT_PATH), ("HOME", home), ("LANG", "C.UTF-8")];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}
