//! `phial base`: a root filesystem as an image of one layer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use phial_layers::{Compression, PackOptions, compress, decompressed};

use super::{BuildError, World, deliver};
use crate::base::{self, Debian, Wrapping};
use crate::config::{self};
use crate::image::{Image, NewLayer, Platform, Target, Terms, assemble};

/// What a base is made of.
#[derive(Clone, Debug)]
pub enum Foundation {
    /// Debian's packages.
    Debian(Debian),
    /// A root filesystem tar.
    Tar(PathBuf),
}

/// Makes the image and brings it to its targets. The layer is the tar as it is, compressed by us.
pub fn lay(of: &Foundation, to: &[String], world: &World<'_>) -> Result<(Image, Vec<Target>), BuildError> {
    let targets = config::targets(to)?;
    let scratch = world.store.scratch()?;
    let start = world.began("base");
    let (tar, env, created) = match of {
        Foundation::Debian(order) => {
            let rootfs = base::debian(order, world.host, scratch.path(), world.watch)?;
            (rootfs.tar, rootfs.env, order.epoch)
        }
        Foundation::Tar(path) => (path.clone(), BTreeMap::new(), crate::prepare::EPOCH),
    };
    let wrapping = match base::wrapping(&tar)? {
        Wrapping::Plain => Compression::None,
        Wrapping::Gzip => Compression::Gzip,
        Wrapping::Zstd => Compression::Zstd,
    };
    let file = BufReader::with_capacity(1 << 18, File::open(&tar).map_err(BuildError::io("open", &tar))?);
    let unpacked = decompressed(file, wrapping).map_err(BuildError::io("read", &tar))?;
    let terms = PackOptions { compression: Compression::Gzip, mtime: created, workers: world.host.cores };
    let mut blob = world.store.blob_writer()?;
    let packed = compress(unpacked, &terms, &mut blob)?;
    blob.keep(Some(&packed.digest))?;
    world.ended("base", &format!("{} bytes of files", packed.tar_size), Some(start));
    let layer = NewLayer {
        diff_id: packed.diff_id,
        digest: packed.digest,
        size: packed.size,
        compression: Compression::Gzip,
        created_by: "phial base".into(),
    };
    let said = Terms {
        created,
        entrypoint: None,
        cmd: Some(vec!["/bin/sh".into()]),
        env,
        working_dir: None,
        user: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    };
    let image = assemble(&Image::scratch(&Platform::host()), &[layer], &said);
    deliver::deliver_own(world, &image, &targets)?;
    Ok((image, targets))
}
