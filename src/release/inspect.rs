//! Looking: at the image, its settings, its records, and what the names are now. Nothing is written.

use std::collections::BTreeSet;
use std::fs;

use phial_layers::Digest;

use super::ReleaseRequest;
use super::error::ReleaseError;
use super::plan::{Facts, Seen};
use super::verdict::judge;
use crate::attest::{ImageLocation, records};
use crate::config::{self, ConfigError};
use crate::context::Context;
use crate::error::Error;
use crate::image::{
    Image, ManifestOrIndex, Platform, Reference, RegistryRef, Target, fallback_tag, read_manifest, shown,
};
use crate::layout::Layout;
use crate::runtime::{ResolvedImage, settings_of};

/// An image and where it is.
pub(super) struct Found {
    pub(super) place: ImageLocation,
    pub(super) image: Image,
}

/// Resolves a tag to a digest, once.
pub(super) fn find(ask: &ReleaseRequest, context: &Context<'_>) -> Result<Found, Error> {
    let reference = config::reference("image", &ask.image)?;
    let place = ImageLocation::of(&reference);
    let image = match &reference {
        Reference::Registry(name) => {
            let found = context.client.resolve(name)?;
            if let Ok(ManifestOrIndex::Index(_)) = read_manifest(&found.bytes, Some(&found.media_type)) {
                return Err(ReleaseError::Index(format!("{}@{}", name.name(), found.digest)).into());
            }
            context.client.image(&RegistryRef { digest: Some(found.digest), ..name.clone() }, &Platform::host())?
        }
        Reference::Layout { dir, tag, digest } => {
            of_layout(ask, &Layout::open_dir(dir)?, tag.as_ref(), digest.as_ref())?
        }
        Reference::OciArchive { file, tag, digest } => {
            of_layout(ask, &Layout::open_archive(file)?, tag.as_ref(), digest.as_ref())?
        }
    };
    Ok(Found { place, image })
}

fn of_layout(
    ask: &ReleaseRequest,
    layout: &Layout,
    tag: Option<&String>,
    digest: Option<&Digest>,
) -> Result<Image, Error> {
    let image = layout.resolve(tag.map(String::as_str), digest, &Platform::host())?;
    let mut names = layout.names()?;
    let named = digest.cloned().or_else(|| tag.and_then(|tag| names.remove(tag)));
    if named.is_some_and(|named| named != image.manifest_digest) {
        return Err(ReleaseError::Index(shown(&ask.image)).into());
    }
    Ok(image)
}

/// Everything that a decision needs.
pub(super) fn facts(ask: &ReleaseRequest, found: &Found, context: &Context<'_>) -> Result<Facts, Error> {
    let digest = found.image.manifest_digest.clone();
    let places = places(ask, found, context)?;
    let requires = requires(ask, found, context)?;
    let start = context.step_started("records");
    let listed = records(&found.place, context.client, &digest)?;
    let count = listed.len();
    let verdict = judge(listed, &requires);
    let proven: Vec<&str> = verdict.proven.keys().map(String::as_str).collect();
    let note = if proven.is_empty() { "nothing proven".into() } else { format!("proven: {}", proven.join(", ")) };
    context.step_finished("records", &format!("{count}; {}", shown(&note)), Some(start));
    Ok(Facts { source: found.place.clone(), digest, verdict, places })
}

/// The commands that must have passed: those asked for, else what the settings require, else what they test with.
fn requires(ask: &ReleaseRequest, found: &Found, context: &Context<'_>) -> Result<BTreeSet<String>, Error> {
    if !ask.requires.is_empty() {
        return Ok(ask.requires.iter().cloned().collect());
    }
    let (name, text) = match &ask.config {
        Some(path) => {
            let path = context.host.cwd.join(path);
            let text = fs::read_to_string(&path).map_err(|source| ConfigError::Io { path: path.clone(), source })?;
            (path.display().to_string(), Some(text))
        }
        None => (
            "phial.toml of the image".to_owned(),
            settings_of(context, &ResolvedImage::resolve(context, &exact(found), None)?)?,
        ),
    };
    let wish = text.map(|text| config::parse(&name, &text)).transpose()?.unwrap_or_default();
    let named = wish.release.requires.filter(|names| !names.is_empty());
    Ok(named.unwrap_or_else(|| wish.test.names()).into_iter().collect())
}

/// The image by its digest.
fn exact(found: &Found) -> Reference {
    let digest = Some(found.image.manifest_digest.clone());
    match &found.place {
        ImageLocation::Registry(name) => Reference::Registry(RegistryRef { digest, ..name.clone() }),
        ImageLocation::Layout(dir) => Reference::Layout { dir: dir.clone(), tag: None, digest },
        ImageLocation::Archive(file) => Reference::OciArchive { file: file.clone(), tag: None, digest },
    }
}

fn places(ask: &ReleaseRequest, found: &Found, context: &Context<'_>) -> Result<Vec<Seen>, Error> {
    if ask.tags.is_empty() && ask.to.is_empty() {
        return Err(ReleaseError::Nothing.into());
    }
    let mut places: Vec<ImageLocation> = Vec::new();
    for text in &ask.to {
        let place = place(text)?;
        if !places.contains(&place) {
            places.push(place);
        }
    }
    if ask.to.is_empty() {
        if let ImageLocation::Archive(_) = &found.place {
            let why = "an archive is written once";
            return Err(ReleaseError::NoPlace { place: found.place.to_string(), why }.into());
        }
        places.push(found.place.clone());
    }
    places.into_iter().map(|place| seen(ask, place, found, context)).collect()
}

/// What `--to` names.
fn place(text: &str) -> Result<ImageLocation, Error> {
    let refused = |why| ReleaseError::NoPlace { place: shown(text), why };
    let parsed: Target = text.parse().map_err(|source| ConfigError::Reference { key: "to".into(), source })?;
    let has_name = match &parsed {
        Target::Registry(RegistryRef { tag, digest, .. }) | Target::Layout { tag, digest, .. } => {
            tag.is_some() || digest.is_some()
        }
        Target::OciArchive { .. } | Target::DockerArchive { .. } => return Err(refused("it is an archive").into()),
    };
    if has_name {
        return Err(refused("it has a tag or digest").into());
    }
    Ok(match parsed {
        Target::Layout { dir, .. } => ImageLocation::Layout(dir),
        Target::Registry(name) => ImageLocation::Registry(name),
        Target::OciArchive { file, .. } | Target::DockerArchive { file, .. } => ImageLocation::Archive(file),
    })
}

/// What each tag names in a place.
fn seen(ask: &ReleaseRequest, place: ImageLocation, found: &Found, context: &Context<'_>) -> Result<Seen, Error> {
    let mut tags: Vec<(String, Option<Digest>)> = Vec::new();
    for tag in &ask.tags {
        // Parsed as part of a name, so that both follow the same rules.
        let _: Target =
            format!("{place}:{tag}").parse().map_err(|source| ConfigError::Reference { key: "tag".into(), source })?;
        if is_reserved(tag) || *tag == fallback_tag(&found.image.manifest_digest) {
            return Err(ReleaseError::Reserved(tag.clone()).into());
        }
        if tags.iter().any(|(other, _)| other == tag) {
            continue;
        }
        let now = match &place {
            ImageLocation::Registry(name) => {
                context.client.head_manifest(&RegistryRef { tag: Some(tag.clone()), ..name.clone() })?
            }
            ImageLocation::Layout(dir) if dir.join("oci-layout").symlink_metadata().is_ok() => {
                Layout::open_dir(dir)?.names()?.remove(tag)
            }
            ImageLocation::Layout(_) | ImageLocation::Archive(_) => None,
        };
        tags.push((tag.clone(), now));
    }
    Ok(Seen { place, tags })
}

/// Whether a tag has the form of one that lists referrers, or of what cosign keeps beside it.
fn is_reserved(tag: &str) -> bool {
    let rest = tag.strip_prefix("sha256-").or_else(|| tag.strip_prefix("sha512-"));
    rest.is_some_and(|rest| rest.len() >= 64 && rest.bytes().take(64).all(|b| b.is_ascii_hexdigit()))
}
