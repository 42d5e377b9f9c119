//! Small images made by hand, and other people's tools.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::Command;

use phial::error::Error;
use phial::event::discard;
use phial::image::{BlobReader, Image, ImageOptions, NewLayer, PackedLayer, Platform, RegistryRef, assemble};
use phial::registry::{Client, Push, RegistryError};
use phial_layers::{Compression, DiffId, Digest};

/// Blobs by digest, in place of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlobMap(pub(crate) BTreeMap<Digest, Vec<u8>>);

impl BlobMap {
    /// Opens a blob for a writer.
    #[expect(clippy::unnecessary_wraps, reason = "the signature of a source of blobs")]
    pub(crate) fn open(&self, digest: &Digest) -> Result<Option<BlobReader>, Error> {
        Ok(self.0.get(digest).map(|bytes| Box::new(io::Cursor::new(bytes.clone())) as BlobReader))
    }

    /// Adds a layer with one file, compressed by gzip.
    pub(crate) fn layer(&mut self, name: &str, content: &[u8]) -> NewLayer {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).unwrap();
        let tar = tar.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let blob = gzip.finish().unwrap();
        let digest = Digest::of(&blob);
        let size = blob.len() as u64;
        self.0.insert(digest.clone(), blob);
        let created_by = format!("add {name}");
        let (diff_id, tar_size) = (DiffId(Digest::of(&tar)), tar.len() as u64);
        let layer = PackedLayer { diff_id, digest, size, tar_size, entries: Some(1), compression: Compression::Gzip };
        NewLayer { layer, created_by }
    }
}

/// Options with as few fields set as possible.
pub(crate) fn options(command: &str) -> ImageOptions {
    ImageOptions {
        created: 1_700_000_000,
        entrypoint: None,
        cmd: Some(vec![command.into()]),
        env: BTreeMap::from([("LANG".into(), "C.UTF-8".into())]),
        working_dir: Some("/app".into()),
        user: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::from([("org.opencontainers.image.revision".into(), "0123456789abcdef".into())]),
    }
}

/// An image of two layers.
pub(crate) fn two_layers(blob_map: &mut BlobMap, content: &[u8]) -> Image {
    let base = assemble(&Image::scratch(&Platform::host()), &[blob_map.layer("base", b"base")], &options("sh"));
    assemble(&base, &[blob_map.layer("app/file", content)], &options("run"))
}

/// Pushes an image of two layers, under the reference's tag if it has one.
pub(crate) fn pushed(client: &Client, to: &RegistryRef, content: &[u8]) -> Result<Image, RegistryError> {
    let mut blob_map = BlobMap::default();
    let image = two_layers(&mut blob_map, content);
    let blobs = |digest: &_| blob_map.open(digest);
    let tags: Vec<String> = to.tag.iter().cloned().collect();
    client.push(to, &Push { image: &image, blobs: &blobs, base: None, tags: &tags }, &discard)?;
    Ok(image)
}

/// Runs a tool and returns what it printed; panics with what it complained about.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Bytes that no compression makes shorter, the same for the same seed (xorshift).
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}
