//! A layer that is larger than the memory.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use phial::error::Error;
use phial::event::discard;
use phial::host::Host;
use phial::image::{BlobReader, NewLayer, PackedLayer, Platform, assemble};
use phial_layers::{Compression, DiffId, Digest, Sha256Writer};

use super::sample_images::options;
use crate::harness::busybox::busybox_base;
use crate::harness::{Registry, TestEnv, run};

/// What the process may have for itself, in KiB: private memory that can be written, stacks of threads included.
const MEMORY: u64 = 128 << 10;

/// The layer's bytes: twice the memory, or what `PHIAL_TEST_LAYER` says.
fn bytes() -> u64 {
    Host::read().var("PHIAL_TEST_LAYER").and_then(|bytes| bytes.parse().ok()).unwrap_or(MEMORY * 2048)
}

/// The small base with one large file, as a layout; the file has holes, its layer is not compressed.
fn base(dir: &Path) -> String {
    let size = bytes();
    let tar = dir.with_extension("tar");
    let mut header = tar::Header::new_ustar();
    header.set_path("large").unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    let file = File::create(&tar).unwrap();
    file.write_all_at(header.as_bytes(), 0).unwrap();
    file.set_len(512 + size.next_multiple_of(512) + 1024).unwrap();
    let mut hash = Sha256Writer::new(io::sink());
    io::copy(&mut File::open(&tar).unwrap(), &mut hash).unwrap();
    let (_, digest, size) = hash.finish();
    let small = phial::layout::Layout::open_dir(&busybox_base()).unwrap();
    let below = small.resolve(None, None, &Platform::host()).unwrap();
    let (diff_id, compression) = (DiffId(digest.clone()), Compression::None);
    let layer = PackedLayer { diff_id, digest: digest.clone(), size, tar_size: size, entries: Some(1), compression };
    let layer = NewLayer { layer, created_by: "large".into() };
    let image = assemble(&below, &[layer], &options("sh"));
    let open = |wanted: &Digest| -> Result<Option<BlobReader>, Error> {
        Ok(Some(match below.manifest.layers.iter().find(|layer| layer.digest == *wanted) {
            Some(layer) => Box::new(small.blob(layer)?),
            None => Box::new(File::open(&tar).expect("the layer")),
        }))
    };
    phial::layout::write_layout(dir, &image, Some("1"), &open, &discard).unwrap();
    fs::remove_file(tar).unwrap();
    format!("oci:{}:1", dir.display())
}

/// The command, with little memory.
fn narrow(env: &TestEnv, phial: &Command) -> Command {
    let mut narrow = Command::new("sh");
    narrow.args(["-c", &format!("ulimit -d {MEMORY}; exec \"$0\" \"$@\"")]).arg(phial.get_program());
    narrow.args(phial.get_args()).env_clear().current_dir(env.dir());
    narrow.envs(phial.get_envs().filter_map(|(name, value)| Some((name, value?))));
    narrow
}

#[test]
fn a_layer_larger_than_the_memory_is_pushed_and_pulled() {
    let registry = Registry::start();
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let base = base(&env.dir().join("base"));
    let to = registry.reference("team/app:v1");
    let build = env.phial(["build", repo.source(), "--base", &base, "--to", &to, "--progress", "quiet"]);
    run(narrow(&env, &build)).ok();
    let elsewhere = TestEnv::with_empty_cache();
    let show = elsewhere.phial(["run", "--progress", "quiet", &to, "--", "wc", "-c", "/large"]);
    let output = run(narrow(&elsewhere, &show)).ok();
    assert_eq!(output.split_whitespace().next(), Some(bytes().to_string().as_str()));
}
