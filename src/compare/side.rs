//! The two sides of a comparison.

use phial_layers::Compression;

use super::comparison::LayerId;
use super::error::CompareError;
use super::files::{self, Listing};
use super::pairs;
use crate::error::Error;
use crate::image::{BlobReader, BlobSourceError, Blobs, Image};

/// Opens the blob of a layer; `None` if it is not available.
type Open<'a> = Box<dyn Fn(&LayerId) -> Result<Option<BlobReader>, Error> + Sync + 'a>;

/// One side of a comparison: an image, one layer of an image, or a layer's file.
pub struct Side<'a> {
    /// `None` for a single layer.
    pub(super) image: Option<&'a Image>,
    pub(super) layers: Vec<LayerId>,
    open: Open<'a>,
}

impl<'a> Side<'a> {
    /// An image whose layers' blobs come from `blobs`.
    pub fn image(image: &'a Image, blobs: Blobs<'a>) -> Self {
        let open = move |layer: &LayerId| match &layer.digest {
            Some(digest) => blobs(digest),
            None => Ok(None),
        };
        Self { image: Some(image), layers: pairs::layers(image), open: Box::new(open) }
    }

    /// A layer's file.
    pub fn layer(
        name: &str,
        compression: Compression,
        open: impl Fn() -> Result<BlobReader, Error> + Sync + 'a,
    ) -> Self {
        let (digest, diff_id, size, created_by) = (None, None, None, None);
        let layer = LayerId { name: name.into(), number: 1, digest, diff_id, size, created_by, compression };
        Self { image: None, layers: vec![layer], open: Box::new(move |_| open().map(Some)) }
    }

    /// One layer of the image: by its name, its number from below, or the digest of its blob or tar.
    pub fn only(mut self, wanted: &str) -> Result<Self, CompareError> {
        let is_it = |layer: &LayerId| {
            let digest = layer.digest.as_ref().is_some_and(|digest| digest.as_str() == wanted);
            let tar = layer.diff_id.as_ref().is_some_and(|diff_id| diff_id.0.as_str() == wanted);
            layer.name == wanted || digest || tar
        };
        let number = wanted.parse().ok();
        let by_number = self.layers.iter().find(|layer| Some(layer.number) == number);
        // Of two layers with one name the upper one is taken.
        let Some(layer) = self.layers.iter().rev().find(|layer| is_it(layer)).or(by_number).cloned() else {
            let offered = self.layers.iter().map(|layer| layer.name.clone()).collect();
            return Err(CompareError::NoLayer { wanted: wanted.into(), offered });
        };
        self.layers = vec![layer];
        self.image = None;
        Ok(self)
    }

    /// The bytes of a file of the layer `name`, if it has no more than `max`; `shown` is its path as a difference shows it.
    pub(super) fn content(&self, name: &str, shown: &str, max: u64) -> Option<Vec<u8>> {
        let layer = self.layers.iter().find(|layer| layer.name == name)?;
        files::content((self.open)(layer).ok()??, layer, shown, max)
    }

    /// Lists a layer. Its tar must be the one that the config names.
    pub(super) fn list(&self, layer: &LayerId) -> Result<Listing, CompareError> {
        let opened = (self.open)(layer).map_err(BlobSourceError::from);
        let blob = opened.and_then(|blob| blob.ok_or(BlobSourceError::Missing));
        let blob = blob.map_err(|source| CompareError::Open { layer: layer.to_string(), source })?;
        let listing = files::list(blob, layer.compression).map_err(|source| CompareError::layer(layer, source))?;
        match &layer.diff_id {
            Some(expected) if listing.diff_id != *expected => {
                Err(CompareError::DiffId { layer: layer.to_string(), expected: expected.clone() })
            }
            _ => Ok(listing),
        }
    }
}
