//! `phial diff`: two images or layers, from wherever they are; a layer that both have is neither fetched nor read.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use phial_layers::Compression;

use crate::compare::{Comparison, Side, compare};
use crate::config;
use crate::context::Context;
use crate::error::{Error, ExitKind, IoError, UserError};
use crate::image::{BlobReader, shown};
use crate::runtime::ResolvedImage;

/// A path that is no layer's file.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is not a layer: {why}", path.display())]
pub struct DiffError {
    /// The path.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: &'static str,
}

impl UserError for DiffError {
    fn exit_kind(&self) -> ExitKind {
        ExitKind::Refused
    }

    fn hint(&self) -> Option<String> {
        Some(format!("for a layout directory write `oci:{}`", self.path.display()))
    }
}

/// One side, resolved.
enum Found {
    Image(Box<ResolvedImage>),
    Layer(String, Compression),
}

/// An image's reference, or the path of a layer's file, which begins with `.` or `/`; and the one layer of the image that is
/// meant, if it is one.
type Wanted<'a> = (&'a str, Option<&'a str>);

/// Compares two images, or two layers.
pub fn diff(left: Wanted<'_>, right: Wanted<'_>, context: &Context<'_>) -> Result<Comparison, Error> {
    let (one, other) = (find(left.0, context)?, find(right.0, context)?);
    let blobs = |found: &Found, digest: &phial_layers::Digest| match found {
        Found::Image(base) => base.blob(context, digest),
        Found::Layer(..) => Ok(None),
    };
    let (blobs_of_one, blobs_of_other) = (|digest: &_| blobs(&one, digest), |digest: &_| blobs(&other, digest));
    let start = context.step_started("compare");
    let found = compare(&side(&one, &blobs_of_one, left.1)?, &side(&other, &blobs_of_other, right.1)?)?;
    let read = found.layers.iter().filter(|layer| !layer.files.is_empty()).count();
    context.step_finished("compare", &format!("{read} of {} layers differ in files", found.layers.len()), Some(start));
    Ok(found)
}

fn find(text: &str, context: &Context<'_>) -> Result<Found, Error> {
    if !text.starts_with(['.', '/']) {
        return Ok(Found::Image(Box::new(ResolvedImage::resolve(context, &config::reference("image", text)?, None)?)));
    }
    let path = Path::new(text);
    let mut magic = Vec::new();
    let refused = |why| DiffError { path: path.into(), why };
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Err(refused("it is not a regular file").into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(refused("it is not there").into()),
        Err(error) => return Err(IoError::at("read", path)(error).into()),
    }
    let opened = File::open(path).and_then(|file| file.take(4).read_to_end(&mut magic));
    opened.map_err(IoError::at("read", path))?;
    Ok(Found::Layer(text.into(), Compression::sniff(&magic)))
}

fn side<'a>(found: &'a Found, blobs: crate::image::Blobs<'a>, layer: Option<&str>) -> Result<Side<'a>, Error> {
    match (found, layer) {
        (Found::Image(base), None) => Ok(Side::image(&base.image, blobs)),
        (Found::Image(base), Some(wanted)) => Ok(Side::image(&base.image, blobs).only(wanted)?),
        (Found::Layer(path, compression), _) => Ok(Side::layer(&shown(path), *compression, move || {
            let file = File::open(path).map_err(IoError::at("open", Path::new(path)))?;
            Ok(Box::new(BufReader::new(file)) as BlobReader)
        })),
    }
}
