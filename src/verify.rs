//! `phial verify`: rebuilds an image from its own record and compares the digests.

use std::io;
use std::path::PathBuf;

use phial_layers::Digest;

use crate::build::{BuildRequest, LeftSide, OtherImage, ReproducibilityError, build_unpublished, difference};
use crate::config::{self, BuildFlags, NetworkAccess};
use crate::context::Context;
use crate::error::Error;
use crate::image::{BlobSourceError, Provenance, Recorded, Reference};
use crate::recipe::FORMAT;
use crate::registry::NetworkOptions;
use crate::remote_cache::RemoteCacheMode;
use crate::runtime::{IsolationChoice, ResolvedImage};
use crate::source::{GitHost, Location};

/// One call of `phial verify`.
#[derive(Debug)]
pub struct VerifyRequest {
    /// The image's reference.
    pub image: String,
    /// Overrides the recorded repository.
    pub source: Option<String>,
    /// The servers that get the caller's credentials for git if the record names them.
    pub git_hosts: Vec<GitHost>,
    /// Names of the caller's variables that the steps may see besides those of the settings.
    pub pass: Vec<String>,
    /// Overrides the recorded name of the base image; its digest must be the recorded one.
    pub base: Option<String>,
    /// A settings file to read instead of the commit's `phial.toml`.
    pub config: Option<PathBuf>,
    /// The isolation of the steps.
    pub isolation: IsolationChoice,
}

/// An image that was rebuilt with the same digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyOutcome {
    /// Digest of the manifest of both builds.
    pub digest: Digest,
    /// The image's record of how it was made.
    pub record: Provenance,
}

/// Rebuilds the image, ignoring cached results, and compares.
pub fn verify(request: &VerifyRequest, context: &Context<'_>) -> Result<VerifyOutcome, Error> {
    let image = config::reference("image", &request.image)?;
    let original = ResolvedImage::resolve(context, &image, None)?;
    let record = match Provenance::of(&original.image, FORMAT) {
        Recorded::Here(record) => *record,
        Recorded::Format(found) => {
            return Err(ReproducibilityError::Format { image: request.image.clone(), found }.into());
        }
        Recorded::Not => return Err(ReproducibilityError::NoRecord(request.image.clone()).into()),
    };
    let build = build_request(request, &record)?;
    if let Some(host) = foreign_registry(request, &image, &build)? {
        context.client.withhold_login(&host);
    }
    context.host.wait_for_next_second(); // the image may be as new as this second
    let rebuilt = build_unpublished(&build, context)?;
    if rebuilt.image.manifest_digest == original.image.manifest_digest {
        check_layers(&original, rebuilt.built.base_layers, context)?;
        return Ok(VerifyOutcome { digest: rebuilt.built.digest, record });
    }
    let blobs = |digest: &Digest| original.blob_there(context, digest);
    let original = OtherImage { image: &original.image, blobs: &blobs };
    Err(difference(&rebuilt, &original, LeftSide::Other, context)?.into())
}

/// The registry of the base image, if only the record of the image names it.
fn foreign_registry(of: &VerifyRequest, image: &Reference, build: &BuildRequest) -> Result<Option<String>, Error> {
    let Some(base) = build.flags.base.as_ref().filter(|_| of.base.is_none()) else { return Ok(None) };
    let base = config::reference("base", base)?;
    let host = base.registry_host().filter(|host| image.registry_host() != Some(host));
    Ok(host.map(str::to_owned))
}

/// The build that the record describes.
fn build_request(of: &VerifyRequest, record: &Provenance) -> Result<BuildRequest, Error> {
    let unrecorded = |what, flag| ReproducibilityError::Unrecorded { image: of.image.clone(), what, flag };
    let source = of.source.clone().or_else(|| record.source.clone());
    let source = source.ok_or_else(|| unrecorded("repository", "--source"))?;
    let location: Location = source.parse()?;
    // An image names no repository of this machine, and no server that gets the caller's credentials.
    if of.source.is_none() && location.local().is_some() {
        return Err(unrecorded("repository", "--source").into());
    }
    let named = if of.source.is_some() { location.git_host() } else { None };
    let base = of.base.clone().or_else(|| Some(format!("{}@{}", record.base.as_ref()?, record.base_digest)));
    let base = base.ok_or_else(|| unrecorded("base image", "--base"))?;
    if of.base.is_none() && !matches!(config::reference("base", &base)?, Reference::Registry(_)) {
        return Err(unrecorded("base image", "--base").into());
    }
    let flags = BuildFlags {
        base: Some(base),
        envs: record.envs.clone(),
        network: Some(if record.network == "none" { NetworkAccess::None } else { NetworkAccess::Host }),
        compression: serde_json::from_value(record.compression.clone().into()).ok(),
        pass: of.pass.clone(),
        ..BuildFlags::default()
    };
    Ok(BuildRequest {
        location,
        source,
        app: None,
        git_hosts: of.git_hosts.iter().cloned().chain(named).collect(),
        rev: record.commit.clone(),
        flags,
        config: of.config.clone(),
        strict_versions: false,
        isolation: of.isolation,
        no_cache: true,
        twice: false,
        network_options: NetworkOptions::default(),
        remote_cache: RemoteCacheMode::Off,
        remote_cache_repository: None,
        rebuild_of: Some(record.clone()),
    })
}

/// Reads every layer above those of the base image from where the image is: equal manifests do not show that its blobs are
/// intact.
fn check_layers(image: &ResolvedImage, base_layers: usize, context: &Context<'_>) -> Result<(), Error> {
    for layer in image.image.manifest.layers.iter().skip(base_layers) {
        let damaged = |source| ReproducibilityError::Damaged { digest: layer.digest.clone(), source };
        let opened = image.blob_there(context, &layer.digest).map_err(|error| damaged(error.into()))?;
        let mut blob = opened.ok_or_else(|| damaged(BlobSourceError::Missing))?;
        io::copy(&mut blob, &mut io::sink()).map_err(|error| damaged(error.into()))?;
    }
    Ok(())
}
