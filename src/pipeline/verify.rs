//! `phial verify`: an image is made again from what it records of itself, and compared.

use std::io;
use std::path::PathBuf;

use phial_layers::Digest;

use super::base::Base;
use super::proof::ProofError;
use super::{BuildError, Far, Isolation, Product, Request, World, deliver, make};
use crate::compare::{Side, compare};
use crate::config::{self, Flags, Network};
use crate::image::{Image, Provenance, Recorded};
use crate::prepare::FORMAT;
use crate::registry::Wishes;

/// One call of `phial verify`.
#[derive(Debug)]
pub struct Verify {
    /// The image.
    pub image: String,
    /// The repository, in place of the recorded one.
    pub source: Option<String>,
    /// The base, in place of the recorded name; its digest must be the recorded one.
    pub base: Option<String>,
    /// The settings that it was built with, if they are not those of the commit.
    pub config: Option<PathBuf>,
    /// The rung.
    pub isolation: Isolation,
}

/// An image that is what its record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its digest, which the new build has too.
    pub digest: Digest,
    /// How it was made.
    pub record: Provenance,
}

/// Makes the image again, with nothing recalled, and compares.
pub fn verify(of: &Verify, world: &World<'_>) -> Result<Verdict, BuildError> {
    let given = Base::resolve(world, &config::reference("image", &of.image)?, None)?;
    let record = match Provenance::of(&given.image, FORMAT) {
        Recorded::Here(record) => *record,
        Recorded::Format(found) => return Err(ProofError::Format { image: of.image.clone(), found }.into()),
        Recorded::Not => return Err(ProofError::NoRecord(of.image.clone()).into()),
    };
    let product = make(&request(of, &record)?, world)?;
    if product.image.manifest_digest == given.image.manifest_digest {
        whole(&given, product.built.base_layers, world)?;
        return Ok(Verdict { digest: product.built.digest, record });
    }
    let blobs = |digest: &Digest| given.blob_there(world, digest);
    Err(difference(&product, world, (&given.image, &blobs), true)?.into())
}

/// What to build, as the record says it.
fn request(of: &Verify, record: &Provenance) -> Result<Request, BuildError> {
    let unsaid = |what, flag| ProofError::Unsaid { image: of.image.clone(), what, flag };
    let source = of.source.clone().or_else(|| record.source.clone());
    let source = source.ok_or_else(|| unsaid("repository", "--source"))?;
    let base = of.base.clone().or_else(|| Some(format!("{}@{}", record.base.as_ref()?, record.base_digest)));
    let flags = Flags {
        base: Some(base.ok_or_else(|| unsaid("base", "--base"))?),
        envs: record.envs.clone(),
        network: Some(if record.network == "none" { Network::None } else { Network::Host }),
        compression: serde_json::from_value(record.compression.clone().into()).ok(),
        ..Flags::default()
    };
    Ok(Request {
        place: source.parse()?,
        source,
        rev: record.commit.clone(),
        flags,
        config: of.config.clone(),
        isolation: of.isolation,
        no_cache: true,
        twice: false,
        wishes: Wishes::default(),
        far: Far::Off,
        far_at: None,
        again: Some(record.clone()),
    })
}

/// Reads every layer that lies over the base's, where the image is: equal manifests prove nothing of damaged blobs.
fn whole(given: &Base, base_layers: usize, world: &World<'_>) -> Result<(), BuildError> {
    for layer in given.image.manifest.layers.iter().skip(base_layers) {
        let read = given.blob_there(world, &layer.digest).and_then(|mut blob| io::copy(&mut blob, &mut io::sink()));
        read.map_err(|source| ProofError::Damaged { digest: layer.digest.clone(), source })?;
    }
    Ok(())
}

type There<'a> = (&'a Image, &'a (dyn Fn(&Digest) -> io::Result<Box<dyn io::Read + Send>> + Sync));

/// Where a product and another image differ. `given_first` puts the other one on the left.
pub(super) fn difference(
    product: &Product<'_>,
    world: &World<'_>,
    (image, blobs): There<'_>,
    given_first: bool,
) -> Result<ProofError, BuildError> {
    let own = |digest: &Digest| match deliver::own(world, &product.image, digest)? {
        Some(blob) => Ok(blob),
        None => product.base.blob(world, digest),
    };
    let (made, other) = (Side::image(&product.image, &own), Side::image(image, blobs));
    let (left, right) = if given_first { (&other, &made) } else { (&made, &other) };
    let comparison = compare(left, right)?;
    let digests = (image.manifest_digest.clone(), product.image.manifest_digest.clone());
    let (first, second) = if given_first { digests } else { (digests.1, digests.0) };
    Ok(ProofError::Differs { first, second, culprit: comparison.first(), comparison: Box::new(comparison) })
}
