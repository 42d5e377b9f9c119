//! The `phial.toml` in an image.

use super::ResolvedImage;
use crate::context::Context;
use crate::error::Error;
use crate::image::{Image, Provenance, Recorded};
use crate::recipe::{AppDir, FORMAT};
use crate::store::TreeCheck;

/// The largest `phial.toml`, in bytes.
const MAX_SETTINGS: u64 = 1 << 20;

/// The text of `phial.toml` in the image's source layer, which is that of the commit: steps change other layers. `None` if the
/// commit had none or the image was not built by Phial.
pub(crate) fn settings_of(context: &Context<'_>, image: &ResolvedImage) -> Result<Option<String>, Error> {
    let Some(layer) = layer_made_by(&image.image, "phial app").and_then(|number| image.image.layers().nth(number))
    else {
        return Ok(None);
    };
    let tree = image.tree(context, &layer, TreeCheck::Entries)?;
    Ok(tree.root.open()?.read_text(format!("{}/phial.toml", app_of(&image.image).in_tree()), MAX_SETTINGS)?)
}

/// The directory of the app in an image: that of its record, or else the root of the repository.
pub(crate) fn app_of(image: &Image) -> AppDir {
    match Provenance::of(image, FORMAT) {
        Recorded::Here(record) => AppDir::new(&record.root.unwrap_or_default()),
        _ => AppDir::default(),
    }
}

/// The index of the topmost layer whose history entry has this `created_by`; the lowest is 0.
pub(crate) fn layer_made_by(image: &Image, created_by: &str) -> Option<usize> {
    let made: Vec<_> = image.config.history.iter().filter(|entry| !entry.empty_layer).collect();
    if made.len() != image.manifest.layers.len() {
        return None; // the history does not tell which entry belongs to which layer
    }
    made.iter().rposition(|entry| entry.created_by.as_deref() == Some(created_by))
}
