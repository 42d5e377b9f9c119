//! Inspects the image of a release, its settings, its test records, and its destinations. Nothing is written.

use std::collections::BTreeSet;

use phial_layers::Digest;

use super::ReleaseRequest;
use super::error::ReleaseError;
use super::plan::{Destination, Inspection, TagState};
use super::verdict::evaluate;
use crate::attest::{ImageLocation, records};
use crate::config::{self, ConfigError};
use crate::context::Context;
use crate::error::Error;
use crate::image::{
    Image, ManifestOrIndex, Platform, Reference, RegistryRef, Target, fallback_tag, read_manifest, shown,
};
use crate::layout::Layout;
use crate::runtime::{ResolvedImage, settings_of};

/// The image that is released, and where it is.
pub(super) struct SourceImage {
    pub(super) location: ImageLocation,
    pub(super) image: Image,
}

/// Finds the image; its tag is resolved to a digest here and nowhere else.
pub(super) fn source(request: &ReleaseRequest, context: &Context<'_>) -> Result<SourceImage, Error> {
    let reference = config::reference("image", &request.image)?;
    let location = ImageLocation::of(&reference);
    let image = match &reference {
        Reference::Registry(name) => {
            let found = context.client.resolve(name)?;
            if let Ok(ManifestOrIndex::Index(_)) = read_manifest(&found.bytes, Some(&found.media_type)) {
                return Err(ReleaseError::Index(format!("{}@{}", name.name(), found.digest)).into());
            }
            context.client.image(&RegistryRef { digest: Some(found.digest), ..name.clone() }, &Platform::host())?
        }
        Reference::Layout { dir, tag, digest } => {
            of_layout(request, &Layout::open_dir(dir)?, tag.as_ref(), digest.as_ref())?
        }
        Reference::OciArchive { file, tag, digest } => {
            of_layout(request, &Layout::open_archive(file)?, tag.as_ref(), digest.as_ref())?
        }
    };
    Ok(SourceImage { location, image })
}

/// The image of a layout; an index of several is refused.
fn of_layout(
    request: &ReleaseRequest,
    layout: &Layout,
    tag: Option<&String>,
    digest: Option<&Digest>,
) -> Result<Image, Error> {
    let image = layout.resolve(tag.map(String::as_str), digest, &Platform::host())?;
    let mut names = layout.names()?;
    let named = digest.cloned().or_else(|| tag.and_then(|tag| names.remove(tag)));
    if named.is_some_and(|named| named != image.manifest_digest) {
        return Err(ReleaseError::Index(shown(&request.image)).into());
    }
    Ok(image)
}

/// Inspects everything that the plan depends on.
pub(super) fn inspect(
    request: &ReleaseRequest,
    source: &SourceImage,
    context: &Context<'_>,
) -> Result<Inspection, Error> {
    let digest = source.image.manifest_digest.clone();
    let destinations = destinations(request, source, context)?;
    let requires = required_commands(request, source, context)?;
    let start = context.step_started("records");
    let listed = records(&source.location, context.client, &digest)?;
    let count = listed.len();
    let verdict = evaluate(listed, &requires);
    let proven: Vec<&str> = verdict.proven.keys().map(String::as_str).collect();
    let note = if proven.is_empty() { "no passed test".into() } else { format!("passed: {}", proven.join(", ")) };
    context.step_finished("records", &format!("{count}; {}", shown(&note)), Some(start));
    Ok(Inspection { source: source.location.clone(), digest, verdict, destinations })
}

/// The commands that must have passed: `--require`, else `release.requires`, else the commands of `test`.
fn required_commands(
    request: &ReleaseRequest,
    source: &SourceImage,
    context: &Context<'_>,
) -> Result<BTreeSet<String>, Error> {
    if !request.requires.is_empty() {
        return Ok(request.requires.iter().cloned().collect());
    }
    let settings = if let Some(path) = &request.config {
        config::read(&context.host.cwd.join(path))?
    } else {
        let image = ResolvedImage::resolve(context, &by_digest(source), None)?;
        config::parse("phial.toml of the image", &settings_of(context, &image)?.unwrap_or_default())?
    };
    let required = settings.release.requires.filter(|names| !names.is_empty());
    Ok(required.unwrap_or_else(|| settings.test.names()).into_iter().collect())
}

/// The reference of the image by its digest.
fn by_digest(source: &SourceImage) -> Reference {
    let digest = Some(source.image.manifest_digest.clone());
    match &source.location {
        ImageLocation::Registry(name) => Reference::Registry(RegistryRef { digest, ..name.clone() }),
        ImageLocation::Layout(dir) => Reference::Layout { dir: dir.clone(), tag: None, digest },
        ImageLocation::Archive(file) => Reference::OciArchive { file: file.clone(), tag: None, digest },
    }
}

/// The locations of `--to`, each once; without any, where the image is.
fn destinations(
    request: &ReleaseRequest,
    source: &SourceImage,
    context: &Context<'_>,
) -> Result<Vec<Destination>, Error> {
    if request.tags.is_empty() && request.to.is_empty() {
        return Err(ReleaseError::Nothing.into());
    }
    let mut locations: Vec<ImageLocation> = Vec::new();
    for text in &request.to {
        let location = parse_location(text)?;
        if !locations.contains(&location) {
            locations.push(location);
        }
    }
    if request.to.is_empty() {
        if let ImageLocation::Archive(_) = &source.location {
            let why = "an archive is written once";
            return Err(ReleaseError::Location { location: source.location.to_string(), why }.into());
        }
        locations.push(source.location.clone());
    }
    locations.into_iter().map(|location| destination(request, location, source, context)).collect()
}

/// Reads an argument of `--to`.
fn parse_location(text: &str) -> Result<ImageLocation, Error> {
    let refused = |why| ReleaseError::Location { location: shown(text), why };
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

/// The tags that the image is to get in one location, and what each points to.
fn destination(
    request: &ReleaseRequest,
    location: ImageLocation,
    source: &SourceImage,
    context: &Context<'_>,
) -> Result<Destination, Error> {
    location.check_links(&context.host.cwd)?;
    let mut tags: Vec<TagState> = Vec::new();
    for tag in &request.tags {
        // Parsed as part of a reference, so that both follow the same rules.
        let _: Target = format!("{location}:{tag}")
            .parse()
            .map_err(|source| ConfigError::Reference { key: "tag".into(), source })?;
        if is_reserved(tag) || *tag == fallback_tag(&source.image.manifest_digest) {
            return Err(ReleaseError::Reserved(tag.clone()).into());
        }
        if tags.iter().any(|other| other.tag == *tag) {
            continue;
        }
        let current = match &location {
            ImageLocation::Registry(name) => {
                context.client.head_manifest(&RegistryRef { tag: Some(tag.clone()), ..name.clone() })?
            }
            ImageLocation::Layout(dir) if dir.join("oci-layout").symlink_metadata().is_ok() => {
                Layout::open_dir(dir)?.names()?.remove(tag)
            }
            ImageLocation::Layout(_) | ImageLocation::Archive(_) => None,
        };
        tags.push(TagState { tag: tag.clone(), current });
    }
    Ok(Destination { location, tags })
}

/// Whether a tag has the form of the referrers tag schema (distribution-spec), or of a tag of cosign.
fn is_reserved(tag: &str) -> bool {
    let rest = tag.strip_prefix("sha256-").or_else(|| tag.strip_prefix("sha512-"));
    rest.is_some_and(|rest| rest.len() >= 64 && rest.bytes().take(64).all(|b| b.is_ascii_hexdigit()))
}
