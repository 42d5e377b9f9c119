//! A word that must not be said.

/// A password or token. It has no `Display` and no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one request it is meant for.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}
