//! `phial base`: a root filesystem, from Debian's packages or from a tar, as an image of one layer.
//!
//! The same packages make the same bytes, on any machine and any day.

mod call;
pub mod debian;
mod error;
mod import;
mod mirrors;
mod packages;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use phial_layers::{Compression, PackOptions, compress, decompressed};

pub use self::error::BaseError;
use self::import::tar_compression;
pub use self::packages::{Debian, EPOCH, Purpose, suite};
use crate::config;
use crate::context::Context;
use crate::error::{Error, IoError};
use crate::image::{Image, ImageOptions, NewLayer, PackedLayer, Platform, Target, assemble};
use crate::publish::{check_targets, publish_stored};

/// What a base is made of.
#[derive(Clone, Debug)]
pub enum BaseSource {
    /// Debian's packages.
    Debian(Debian),
    /// A root filesystem tar.
    Tar(PathBuf),
}

/// Makes the image and brings it to its targets. The layer is the tar as it is, compressed by us.
pub fn create(of: &BaseSource, to: &[String], context: &Context<'_>) -> Result<(Image, Vec<Target>), Error> {
    let targets = config::targets(to)?;
    check_targets(&targets, context)?;
    let scratch = context.store.scratch()?;
    let start = context.step_started("base");
    let (tar, env, created) = match of {
        BaseSource::Debian(order) => {
            let rootfs = debian::debian(order, context.host, scratch.path(), context.watch)?;
            (rootfs.tar, rootfs.env, order.epoch)
        }
        BaseSource::Tar(path) => (path.clone(), BTreeMap::new(), crate::recipe::EPOCH),
    };
    let compression = tar_compression(&tar)?;
    let file = BufReader::with_capacity(1 << 18, File::open(&tar).map_err(IoError::at("open", &tar))?);
    let unpacked = decompressed(file, compression).map_err(IoError::at("read", &tar))?;
    let options = PackOptions { compression: Compression::Gzip, mtime: created, workers: context.host.cores };
    let mut blob = context.store.blob_writer()?;
    let packed = compress(unpacked, &options, &mut blob)?;
    blob.keep(Some(&packed.digest))?;
    context.step_finished("base", &format!("{} bytes of files", packed.tar_size), Some(start));
    let layer = PackedLayer::from_tar(packed, Compression::Gzip);
    let layer = NewLayer { layer, created_by: "phial base".into() };
    let options = ImageOptions {
        created,
        entrypoint: None,
        cmd: Some(vec!["/bin/sh".into()]),
        env,
        working_dir: None,
        user: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    };
    let image = assemble(&Image::scratch(&Platform::host()), &[layer], &options);
    publish_stored(context, &image, &targets)?;
    Ok((image, targets))
}
