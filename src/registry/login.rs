//! A login: what Phial authenticates with at a registry or its token server.

use crate::secret::Secret;

/// Credentials for a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A user and a password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// An `OAuth2` refresh token, which the token server exchanges for access tokens (distribution, `spec/auth/oauth.md`).
    Identity {
        /// The token.
        token: Secret,
        /// A user and a password for token servers without `OAuth2`.
        fallback: Option<(String, Secret)>,
    },
    /// An access token that the registry takes as it is.
    Bearer(Secret),
}

impl Login {
    /// A login from a user and a password. The user `<token>` is Docker's mark for an identity token in place of a
    /// password.
    pub(super) fn from_pair(user: String, password: Secret) -> Self {
        if user == "<token>" {
            Self::Identity { token: password, fallback: None }
        } else {
            Self::Basic { user, password }
        }
    }

    /// The user and the password, if there are any.
    pub(super) fn user_and_password(&self) -> Option<(&str, &Secret)> {
        match self {
            Self::Basic { user, password } => Some((user, password)),
            Self::Identity { fallback, .. } => fallback.as_ref().map(|(user, password)| (user.as_str(), password)),
            Self::Bearer(_) => None,
        }
    }

    /// What kind of login it is, for `phial doctor`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Basic { .. } => "user and password",
            Self::Identity { .. } => "identity token",
            Self::Bearer(_) => "registry token",
        }
    }
}
