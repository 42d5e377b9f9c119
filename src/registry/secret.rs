//! A redacted string.

/// A password or token. It has no `Display` and no `Debug`, so that no message can hold it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for a request to the server that it is for.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}
