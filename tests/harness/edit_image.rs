//! An image in a layout with another config, as others could have made it.

use std::fs;
use std::path::{Path, PathBuf};

use phial_layers::Digest;
use serde_json::Value;

/// Changes the config of the only image in a layout; digests and sizes fit again.
pub(crate) fn edit_config(layout: &Path, change: impl FnOnce(&mut Value)) {
    edit(layout, |config, _| change(config));
}

/// The same for config and manifest.
pub(crate) fn edit(layout: &Path, change: impl FnOnce(&mut Value, &mut Value)) {
    let blob =
        |digest: &Value| -> PathBuf { layout.join("blobs").join(digest.as_str().expect("a digest").replace(':', "/")) };
    let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).expect("a file")).expect("JSON");
    let mut index = read(&layout.join("index.json"));
    let mut manifest = read(&blob(&index["manifests"][0]["digest"]));
    let mut config = read(&blob(&manifest["config"]["digest"]));
    change(&mut config, &mut manifest);
    let keep = |descriptor: &mut Value, document: &Value| {
        let bytes = document.to_string();
        let digest = Digest::of(bytes.as_bytes());
        fs::write(layout.join("blobs/sha256").join(digest.hex()), &bytes).expect("written");
        descriptor["digest"] = digest.to_string().into();
        descriptor["size"] = bytes.len().into();
    };
    keep(&mut manifest["config"], &config);
    keep(&mut index["manifests"][0], &manifest);
    fs::write(layout.join("index.json"), index.to_string()).expect("written");
}

/// Changes the build record in the config of the only image in a layout.
pub(crate) fn edit_record(layout: &Path, change: impl FnOnce(&mut Value)) {
    edit_config(layout, |config| {
        let label = &mut config["config"]["Labels"]["dev.phial.record"];
        let mut record: Value = serde_json::from_str(label.as_str().expect("a record")).expect("JSON");
        change(&mut record);
        *label = record.to_string().into();
    });
}
