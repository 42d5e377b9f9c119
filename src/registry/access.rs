//! A repository at the endpoint of its registry, and the rights that a request needs there.

use std::collections::BTreeSet;

use phial_layers::Digest;
use reqwest::Url;

use super::url::Endpoint;

/// What a request may do in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// Read it.
    Pull,
    /// Read and write it.
    Push,
}

/// A repository, where its registry is reached, and the rights that are asked for.
#[derive(Clone, Debug)]
pub(super) struct RepositoryAccess {
    /// The registry as references name it: the key of its logins.
    pub(super) host: String,
    /// The repository's name in the registry.
    pub(super) repository: String,
    pub(super) endpoint: Endpoint,
    pub(super) rights: Rights,
    /// Another repository of the same registry, to mount a blob from.
    pub(super) mount_from: Option<String>,
}

impl RepositoryAccess {
    /// The same repository with other rights.
    pub(super) fn with(&self, rights: Rights) -> Self {
        Self { rights, ..self.clone() }
    }

    /// The same repository with the right to push here and to pull from `source`.
    pub(super) fn mounting(&self, source: &str) -> Self {
        Self { rights: Rights::Push, mount_from: Some(source.to_owned()), ..self.clone() }
    }

    /// `host/repository`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// The scopes that a token must have (distribution, `spec/auth/scope.md`).
    pub(super) fn scopes(&self) -> BTreeSet<String> {
        let actions = if self.rights == Rights::Push { "pull,push" } else { "pull" };
        let own = format!("repository:{}:{actions}", self.repository);
        let mount = self.mount_from.as_ref().map(|source| format!("repository:{source}:pull"));
        [own].into_iter().chain(mount).collect()
    }

    /// `/v2/<repository>/<path>`.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.endpoint.url.clone();
        url.set_path(&format!("/v2/{}/{path}", self.repository));
        url
    }

    /// The URL of a manifest by tag or digest.
    pub(super) fn manifest_url(&self, selector: &str) -> Url {
        self.url(&format!("manifests/{selector}"))
    }

    /// The URL of a blob.
    pub(super) fn blob_url(&self, digest: &Digest) -> Url {
        self.url(&format!("blobs/{digest}"))
    }
}
