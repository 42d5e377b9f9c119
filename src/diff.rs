//! `phial diff`: compares two images or layers, wherever they are. A layer that both sides have is neither fetched nor read.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};

use phial_layers::{Compression, Digest};

use crate::compare::{Comparison, Side, compare};
use crate::config;
use crate::context::Context;
use crate::error::{Error, ExitKind, IoError, UserError};
use crate::image::{BlobReader, Blobs, shown};
use crate::runtime::ResolvedImage;

/// A path that does not name a layer's file.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is not a layer: {reason}", path.display())]
pub struct DiffError {
    /// The path.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl UserError for DiffError {
    fn exit_kind(&self) -> ExitKind {
        ExitKind::Refused
    }

    fn hint(&self) -> Option<String> {
        Some(format!("for a layout directory write `oci:{}`", self.path.display()))
    }
}

/// One side of a comparison as the user names it.
#[derive(Clone, Copy, Debug)]
pub struct DiffArgument<'a> {
    /// An image's reference, or the path of a layer's file, which begins with `.` or `/`.
    pub name: &'a str,
    /// The one layer of the image to compare: its name, its number from below, or a digest. `None` for all.
    pub layer: Option<&'a str>,
}

/// An argument, resolved.
enum ResolvedSide {
    Image(Box<ResolvedImage>),
    LayerFile(String, Compression),
}

/// Compares two images, or two layers.
pub fn diff(left: DiffArgument<'_>, right: DiffArgument<'_>, context: &Context<'_>) -> Result<Comparison, Error> {
    let (resolved_left, resolved_right) = (resolve(left.name, context)?, resolve(right.name, context)?);
    let blob = |resolved: &ResolvedSide, digest: &Digest| match resolved {
        ResolvedSide::Image(image) => image.blob(context, digest),
        ResolvedSide::LayerFile(..) => Ok(None),
    };
    let (left_blobs, right_blobs) =
        (|digest: &Digest| blob(&resolved_left, digest), |digest: &Digest| blob(&resolved_right, digest));
    let start = context.step_started("compare");
    let left = side(&resolved_left, &left_blobs, left.layer)?;
    let right = side(&resolved_right, &right_blobs, right.layer)?;
    let comparison = compare(&left, &right)?;
    let differing = comparison.layers.iter().filter(|layer| !layer.files.is_empty()).count();
    let note = format!("{differing} of {} layers differ in files", comparison.layers.len());
    context.step_finished("compare", &note, Some(start));
    Ok(comparison)
}

fn resolve(name: &str, context: &Context<'_>) -> Result<ResolvedSide, Error> {
    if !name.starts_with(['.', '/']) {
        let image = ResolvedImage::resolve(context, &config::reference("image", name)?, None)?;
        return Ok(ResolvedSide::Image(Box::new(image)));
    }
    let path = Path::new(name);
    let refused = |reason| DiffError { path: path.into(), reason };
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Err(refused("it is not a regular file").into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(refused("it does not exist").into()),
        Err(error) => return Err(IoError::at("read", path)(error).into()),
    }
    let mut magic = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic));
    read.map_err(IoError::at("read", path))?;
    Ok(ResolvedSide::LayerFile(name.into(), Compression::sniff(&magic)))
}

fn side<'a>(resolved: &'a ResolvedSide, blobs: Blobs<'a>, layer: Option<&str>) -> Result<Side<'a>, Error> {
    match (resolved, layer) {
        (ResolvedSide::Image(image), None) => Ok(Side::image(&image.image, blobs)),
        (ResolvedSide::Image(image), Some(layer)) => Ok(Side::image(&image.image, blobs).only(layer)?),
        (ResolvedSide::LayerFile(path, compression), _) => Ok(Side::layer(&shown(path), *compression, move || {
            let file = File::open(path).map_err(IoError::at("open", Path::new(path)))?;
            Ok(Box::new(BufReader::new(file)) as BlobReader)
        })),
    }
}
