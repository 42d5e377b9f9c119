//! Whether an image can start: its user must reach the program of its command.

use super::{BuildError, UnpublishedImage};
use crate::context::Context;
use crate::error::Error;
use crate::image::shown;
use crate::runtime::{AccessDenied, access_denied};
use crate::store::{CacheKey, Lookup, Tree, TreeCheck};

/// What `mix` starts by name.
const OF_MIX: [&str; 2] = ["elixir", "erl"];

/// Refuses an image whose user does not reach the program of its command. An image whose layers are not all unpacked on this
/// machine is not looked at: it was when they were made.
pub(super) fn check(unpublished: &UnpublishedImage<'_>, context: &Context<'_>) -> Result<(), Error> {
    let Some(denied) = found(unpublished, context)? else { return Ok(()) };
    Err(BuildError::Unreachable { user: shown(&unpublished.image.config.config.user), denied }.into())
}

fn found(unpublished: &UnpublishedImage<'_>, context: &Context<'_>) -> Result<Option<AccessDenied>, Error> {
    let image = &unpublished.image;
    let key = CacheKey::new("start").with("config", image.manifest.config.digest.as_str());
    let vacant = match context.store.result::<Option<AccessDenied>>(&key)? {
        Lookup::Hit(found) => return Ok(found),
        Lookup::Miss(vacant) => vacant,
    };
    let layers = unpublished.built.layers.iter().rev().filter_map(|built| built.layer.as_ref());
    let own = layers.map(|layer| context.store.find_tree(&layer.diff_id, TreeCheck::Root));
    let Some(mut trees) = own.collect::<Option<Vec<Tree>>>() else { return Ok(None) };
    trees.extend(unpublished.base.trees(context, TreeCheck::Root)?);
    let config = &image.config.config;
    let is_mix = config.entrypoint.first().or(config.cmd.first()).is_some_and(|program| program == "mix");
    let found = access_denied(image, &trees, if is_mix { &OF_MIX } else { &[] })?;
    vacant.keep(&found)?;
    Ok(found)
}
