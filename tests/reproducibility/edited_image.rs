//! An image in a layout, changed by hand, with digests that fit again.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use phial_layers::Digest;
use serde_json::Value;

/// A layout with one image, taken apart.
pub(super) struct Forged {
    dir: PathBuf,
    pub(super) manifest: Value,
    pub(super) config: Value,
}

impl Forged {
    pub(super) fn open(dir: &Path) -> Self {
        let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
        let index = read(&dir.join("index.json"));
        let manifest = read(&blob(dir, &index["manifests"][0]["digest"]));
        let config = read(&blob(dir, &manifest["config"]["digest"]));
        Self { dir: dir.to_owned(), manifest, config }
    }

    /// The path of a layer's blob; counted from the lowest, which is 0.
    pub(super) fn layer(&self, nth: usize) -> PathBuf {
        blob(&self.dir, &self.manifest["layers"][nth]["digest"])
    }

    /// Changes the tar of a layer.
    pub(super) fn change(&mut self, nth: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let mut tar = vec![];
        flate2::read::MultiGzDecoder::new(fs::File::open(self.layer(nth)).unwrap()).read_to_end(&mut tar).unwrap();
        change(&mut tar);
        let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        packed.write_all(&tar).unwrap();
        let descriptor = self.keep(&packed.finish().unwrap());
        self.manifest["layers"][nth]["digest"] = descriptor.0.into();
        self.manifest["layers"][nth]["size"] = descriptor.1.into();
        self.config["rootfs"]["diff_ids"][nth] = Digest::of(&tar).to_string().into();
    }

    /// Writes the image in place of the one that was there.
    pub(super) fn write(mut self) {
        let config = self.keep(self.config.to_string().as_bytes());
        self.manifest["config"]["digest"] = config.0.into();
        self.manifest["config"]["size"] = config.1.into();
        let manifest = self.keep(self.manifest.to_string().as_bytes());
        let path = self.dir.join("index.json");
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        index["manifests"][0]["digest"] = manifest.0.into();
        index["manifests"][0]["size"] = manifest.1.into();
        fs::write(path, index.to_string()).unwrap();
    }

    fn keep(&self, bytes: &[u8]) -> (String, usize) {
        let digest = Digest::of(bytes);
        fs::write(self.dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        (digest.to_string(), bytes.len())
    }
}

fn blob(dir: &Path, digest: &Value) -> PathBuf {
    dir.join("blobs").join(digest.as_str().unwrap().replacen(':', "/", 1))
}
