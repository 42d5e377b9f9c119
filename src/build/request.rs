//! What a build is asked to do.

use std::path::PathBuf;

use crate::config::BuildFlags;
use crate::image::{Provenance, RegistryRef};
use crate::registry::NetworkOptions;
use crate::remote_cache::RemoteCacheMode;
use crate::runtime::IsolationChoice;
use crate::source::{GitHost, Location};

/// One call of `phial build`.
#[derive(Debug)]
pub struct BuildRequest {
    /// The repository as the user wrote it: a path or URL.
    pub source: String,
    /// The same, parsed.
    pub location: Location,
    /// The servers that get the caller's credentials for git, those of submodules included.
    pub git_hosts: Vec<GitHost>,
    /// The git revision to build.
    pub rev: String,
    /// `--app`: the directory of the app in the repository.
    pub app: Option<String>,
    /// Flags that have precedence over `phial.toml`.
    pub flags: BuildFlags,
    /// A settings file to read instead of the commit's `phial.toml`.
    pub config: Option<PathBuf>,
    /// Whether versions of Elixir and Erlang that the commit asks for must be those of the base image, number by number.
    pub strict_versions: bool,
    /// The isolation of the steps.
    pub isolation: IsolationChoice,
    /// Ignores cached results.
    pub no_cache: bool,
    /// Builds a second time under other conditions and compares, before the image is published.
    pub twice: bool,
    /// Logins, certificates and plain HTTP, for the client of the second build.
    pub network_options: NetworkOptions,
    /// Whether the deps cache in a registry is read or written.
    pub remote_cache: RemoteCacheMode,
    /// The repository of that cache; `None` for the image's repository.
    pub remote_cache_repository: Option<RegistryRef>,
    /// The record of the image that `phial verify` rebuilds.
    pub rebuild_of: Option<Provenance>,
}
