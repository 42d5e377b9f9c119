//! `phial verify`: rebuilds an image from its own record and compares.

use std::io;
use std::path::PathBuf;

use phial_layers::Digest;

use crate::build::{BuildRequest, Order, ReproducibilityError, build_unpublished, difference};
use crate::config::{self, Flags, Network};
use crate::context::Context;
use crate::error::Error;
use crate::image::{BlobSourceError, Provenance, Recorded};
use crate::recipe::FORMAT;
use crate::registry::NetworkOptions;
use crate::remote_cache::RemoteCacheMode;
use crate::runtime::{IsolationChoice, ResolvedImage};

/// One call of `phial verify`.
#[derive(Debug)]
pub struct VerifyRequest {
    /// The image.
    pub image: String,
    /// The repository, in place of the recorded one.
    pub source: Option<String>,
    /// The base, in place of the recorded name; its digest must be the recorded one.
    pub base: Option<String>,
    /// The settings that it was built with, if they are not those of the commit.
    pub config: Option<PathBuf>,
    /// How steps are isolated.
    pub isolation: IsolationChoice,
}

/// An image that is what its record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its digest, which the new build has too.
    pub digest: Digest,
    /// How it was made.
    pub record: Provenance,
}

/// Makes the image again, with nothing cached, and compares.
pub fn verify(of: &VerifyRequest, context: &Context<'_>) -> Result<Verified, Error> {
    let given = ResolvedImage::resolve(context, &config::reference("image", &of.image)?, None)?;
    let record = match Provenance::of(&given.image, FORMAT) {
        Recorded::Here(record) => *record,
        Recorded::Format(found) => return Err(ReproducibilityError::Format { image: of.image.clone(), found }.into()),
        Recorded::Not => return Err(ReproducibilityError::NoRecord(of.image.clone()).into()),
    };
    let rebuilt = build_unpublished(&request(of, &record)?, context)?;
    if rebuilt.image.manifest_digest == given.image.manifest_digest {
        whole(&given, rebuilt.built.base_layers, context)?;
        return Ok(Verified { digest: rebuilt.built.digest, record });
    }
    let blobs = |digest: &Digest| given.blob_there(context, digest);
    Err(difference(&rebuilt, (&given.image, &blobs), Order::OtherFirst, context)?.into())
}

/// What to build, as the record says it.
fn request(of: &VerifyRequest, record: &Provenance) -> Result<BuildRequest, Error> {
    let unrecorded = |what, flag| ReproducibilityError::Unrecorded { image: of.image.clone(), what, flag };
    let source = of.source.clone().or_else(|| record.source.clone());
    let source = source.ok_or_else(|| unrecorded("repository", "--source"))?;
    let base = of.base.clone().or_else(|| Some(format!("{}@{}", record.base.as_ref()?, record.base_digest)));
    let flags = Flags {
        base: Some(base.ok_or_else(|| unrecorded("base", "--base"))?),
        envs: record.envs.clone(),
        network: Some(if record.network == "none" { Network::None } else { Network::Host }),
        compression: serde_json::from_value(record.compression.clone().into()).ok(),
        ..Flags::default()
    };
    Ok(BuildRequest {
        location: source.parse()?,
        source,
        rev: record.commit.clone(),
        flags,
        config: of.config.clone(),
        isolation: of.isolation,
        no_cache: true,
        twice: false,
        network_options: NetworkOptions::default(),
        remote_cache: RemoteCacheMode::Off,
        remote_cache_repository: None,
        rebuild_of: Some(record.clone()),
    })
}

/// Reads every layer that lies over the base's, where the image is: equal manifests prove nothing of damaged blobs.
fn whole(given: &ResolvedImage, base_layers: usize, context: &Context<'_>) -> Result<(), Error> {
    for layer in given.image.manifest.layers.iter().skip(base_layers) {
        let damaged = |source| ReproducibilityError::Damaged { digest: layer.digest.clone(), source };
        let opened = given.blob_there(context, &layer.digest).map_err(|error| damaged(error.into()))?;
        let mut blob = opened.ok_or_else(|| damaged(BlobSourceError::Missing))?;
        io::copy(&mut blob, &mut io::sink()).map_err(|error| damaged(error.into()))?;
    }
    Ok(())
}
