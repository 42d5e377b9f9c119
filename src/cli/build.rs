//! `phial build`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use phial_layers::Compression;
use serde_json::json;

use super::format::size;
use super::ui::Ui;
use super::{Common, ExitResult, IsolationArg, NetworkArg};
use crate::build::{self, BuildRequest, Built};
use crate::config::{BuildFlags, NetworkAccess};
use crate::context::Context;
use crate::image::{RegistryRef, Target};
use crate::remote_cache::RemoteCacheMode;
use crate::source::{GitHost, Location};
use crate::tree::OutputPath;

/// Build an image from a git commit
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct BuildArgs {
    /// Path or URL of a git repository
    #[arg(default_value = ".")]
    source: String,
    /// Directory of the app in the repository [default: `image.root`, or the app that SOURCE is in]
    #[arg(long, value_name = "DIR")]
    app: Option<String>,
    /// SHA, tag or branch
    #[arg(long, value_name = "REV", default_value = "HEAD")]
    rev: String,
    /// Base image: `registry/repo[:tag][@digest]`, `oci:DIR[:tag]` or `oci-archive:FILE[:tag]`
    #[arg(long, value_name = "REF")]
    base: Option<String>,
    /// Where to write the image: as for `--base`, or `docker-archive:FILE[:tag]`; may be repeated [default: `oci:./APP.oci`]
    #[arg(long, value_name = "TARGET")]
    to: Vec<String>,
    /// `MIX_ENV` to compile for; may be repeated [default: `image.envs`, or those of staging and prod that the app has a configuration for]
    #[arg(long, value_name = "ENV")]
    env: Vec<String>,
    /// Sandbox isolation
    #[arg(long, value_enum, default_value_t = IsolationArg::Auto)]
    isolation: IsolationArg,
    /// Network of the steps [default: host]
    #[arg(long, value_enum)]
    network: Option<NetworkArg>,
    /// Send your git credentials to this server too, if a submodule is there; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    git_host: Vec<GitHost>,
    /// Let the steps see this variable of yours; may be repeated
    #[arg(long, value_name = "NAME")]
    pass: Vec<String>,
    /// Layer compression [default: gzip]
    #[arg(long, value_enum)]
    compression: Option<CompressionArg>,
    /// Share compiled deps with other machines through a registry
    #[arg(long, value_enum, default_value_t = RemoteCacheArg::Off)]
    cache: RemoteCacheArg,
    /// Repository of the shared deps cache [default: the image's own]
    #[arg(long, value_name = "REPOSITORY")]
    cache_repo: Option<RegistryRef>,
    /// Ignore cached results
    #[arg(long)]
    no_cache: bool,
    /// Build twice under different conditions before anything is written, and exit with 8 if the results differ
    #[arg(long)]
    twice: bool,
    /// Fail unless the commit has a `phial.lock`
    #[arg(long)]
    locked: bool,
    /// Fail unless the base image has the versions of Elixir and Erlang that `.tool-versions`, `mise.toml` and `mix.exs` ask for
    #[arg(long)]
    strict_versions: bool,
    /// Settings file to use instead of the commit's `phial.toml`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the digest to this file
    #[arg(long, value_name = "FILE")]
    digest_file: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Clone, Copy, ValueEnum)]
enum RemoteCacheArg {
    /// Do not use it
    Off,
    /// Read from it: for builds of untrusted code
    Read,
    /// Read from it and write to it
    Write,
}

#[derive(Clone, Copy, ValueEnum)]
enum CompressionArg {
    Gzip,
    Zstd,
}

pub(super) fn build(args: &BuildArgs, context: &Context<'_>, ui: &Ui) -> ExitResult {
    let network = args.network.map(|network| match network {
        NetworkArg::Host => NetworkAccess::Host,
        NetworkArg::None => NetworkAccess::None,
    });
    let compression = args.compression.map(|compression| match compression {
        CompressionArg::Gzip => Compression::Gzip,
        CompressionArg::Zstd => Compression::Zstd,
    });
    let flags = BuildFlags {
        base: args.base.clone(),
        to: args.to.clone(),
        envs: args.env.clone(),
        network,
        compression,
        locked: args.locked,
        pass: args.pass.clone(),
    };
    let location: Location = args.source.parse()?;
    let request = BuildRequest {
        source: args.source.clone(),
        git_hosts: location.git_host().into_iter().chain(args.git_host.clone()).collect(),
        location,
        app: args.app.clone(),
        rev: args.rev.clone(),
        flags,
        config: args.config.clone(),
        strict_versions: args.strict_versions,
        isolation: args.isolation.into(),
        no_cache: args.no_cache,
        twice: args.twice,
        network_options: args.common.network_options(context.host),
        remote_cache: match args.cache {
            RemoteCacheArg::Off => RemoteCacheMode::Off,
            RemoteCacheArg::Read => RemoteCacheMode::Read,
            RemoteCacheArg::Write => RemoteCacheMode::Write,
        },
        remote_cache_repository: args.cache_repo.clone(),
        rebuild_of: None,
    };
    let digest_file = args.digest_file.as_deref().map(|path| OutputPath::new(path, &context.host.cwd));
    digest_file.as_ref().map_or(Ok(()), OutputPath::check_file)?;
    let built = build::build(&request, context)?;
    // Neither of the two outputs of the digest depends on the other.
    let written = digest_file.map(|path| path.write(format!("{}\n", built.digest).as_bytes()));
    for report in &built.layers {
        match &report.layer {
            Some(layer) => ui.info(&format!("  {:<16} {:>9}  {}", report.name, size(layer.size), layer.digest)),
            None => ui.info(&format!("  {:<16} {:>9}", report.name, "empty")),
        }
    }
    if args.json {
        ui.json(&as_json(&built))?;
    } else {
        ui.data(&format!("{}@{}", built.targets[0].without_digest(), built.digest))?;
    }
    written.unwrap_or(Ok(()))?;
    Ok(ExitCode::SUCCESS)
}

fn as_json(built: &Built) -> String {
    let layers: Vec<_> = built
        .layers
        .iter()
        .map(|report| json!({ "name": report.name, "layer": report.layer, "cached": report.cached, "key": report.key }))
        .collect();
    json!({
        "digest": built.digest,
        "targets": built.targets.iter().map(Target::without_digest).collect::<Vec<_>>(),
        "commit": built.commit,
        "base": { "digest": built.base, "layers": built.base_layers },
        "isolation": built.isolation.map(|isolation| isolation.to_string()),
        "layers": layers,
        "downloads": built.downloads,
        "unknown_manifests": built.unknown_manifests.iter()
            .map(|(path, version)| json!({ "path": path, "version": version }))
            .collect::<Vec<_>>(),
    })
    .to_string()
}
