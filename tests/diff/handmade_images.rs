//! Images made by hand, so that a test decides every byte of them.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::num::NonZeroUsize;

use phial::event::discard;
use phial::image::{BlobReader, Image, ImageOptions, NewLayer, PackedLayer, Platform, assemble};
use phial::layout::write_layout;
use phial_layers::{Compression, DiffId, Digest, compress};

use crate::harness::TestEnv;

/// One entry of a layer's tar.
#[derive(Clone)]
pub(crate) struct Entry {
    header: tar::Header,
    name: String,
    body: Vec<u8>,
    xattr: Option<(String, String)>,
}

impl Entry {
    fn new(kind: tar::EntryType, name: &str, body: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(body.len() as u64);
        Self { header, name: name.into(), body: body.into(), xattr: None }
    }

    pub(crate) fn file(name: &str, body: impl AsRef<[u8]>) -> Self {
        Self::new(tar::EntryType::Regular, name, body.as_ref())
    }

    pub(crate) fn dir(name: &str) -> Self {
        Self::new(tar::EntryType::Directory, name, b"").mode(0o755)
    }

    pub(crate) fn link(name: &str, target: &str) -> Self {
        let mut entry = Self::new(tar::EntryType::Symlink, name, b"");
        entry.header.set_link_name_literal(target).expect("made");
        entry
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.header.set_mode(mode);
        self
    }

    pub(crate) fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.header.set_uid(uid);
        self.header.set_gid(gid);
        self
    }

    pub(crate) fn mtime(mut self, mtime: u64) -> Self {
        self.header.set_mtime(mtime);
        self
    }

    pub(crate) fn xattr(mut self, name: &str, value: &str) -> Self {
        self.xattr = Some((format!("SCHILY.xattr.{name}"), value.into()));
        self
    }

    /// A name of the owner, which no reader of layers looks at.
    pub(crate) fn user(mut self, name: &str) -> Self {
        self.header.set_username(name).expect("made");
        self
    }
}

pub(crate) fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        if let Some((key, value)) = &entry.xattr {
            tar.append_pax_extensions([(key.as_str(), value.as_bytes())]).expect("made");
        }
        tar.append_data(&mut entry.header.clone(), &entry.name, entry.body.as_slice()).expect("made");
    }
    tar.into_inner().expect("made")
}

/// A layer and its blob.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) digest: Digest,
    pub(crate) diff_id: DiffId,
    pub(crate) blob: Vec<u8>,
    compression: Compression,
    created_by: String,
}

/// A layer of this tar, compressed by gzip.
pub(crate) fn layer(created_by: &str, tar: &[u8]) -> Layer {
    packed(created_by, tar, Compression::Gzip)
}

pub(crate) fn packed(created_by: &str, tar: &[u8], compression: Compression) -> Layer {
    let mut blob = Vec::new();
    let options = phial_layers::PackOptions { compression, mtime: 0, workers: NonZeroUsize::MIN };
    let packed = compress(tar, &options, &mut blob).expect("made");
    Layer { digest: packed.digest, diff_id: packed.diff_id, blob, compression, created_by: created_by.into() }
}

/// Options with as few fields set as possible.
pub(crate) fn plain() -> ImageOptions {
    ImageOptions {
        created: 1_700_000_000,
        entrypoint: None,
        cmd: Some(vec!["run".into()]),
        env: BTreeMap::new(),
        working_dir: None,
        user: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
    }
}

/// Pairs as a map of texts.
pub(crate) fn texts<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// The image of these layers as a layout in the test's directory; its reference.
pub(crate) fn image(env: &TestEnv, name: &str, layers: &[Layer], options: &ImageOptions) -> String {
    let new: Vec<NewLayer> = layers
        .iter()
        .map(|layer| NewLayer {
            layer: PackedLayer {
                diff_id: layer.diff_id.clone(),
                digest: layer.digest.clone(),
                size: layer.blob.len() as u64,
                tar_size: 0,
                entries: None,
                compression: layer.compression,
            },
            created_by: layer.created_by.clone(),
        })
        .collect();
    let image = assemble(&Image::scratch(&Platform::host()), &new, options);
    let blobs = |digest: &Digest| {
        let found = layers.iter().find(|layer| layer.digest == *digest).expect("a layer of the image");
        Ok(Some(Box::new(Cursor::new(found.blob.clone())) as BlobReader))
    };
    write_layout(&env.dir().join(name), &image, None, &blobs, &discard).expect("made");
    format!("oci:{}", env.path(name))
}
