//! SIGKILL in the middle of a push, over and over: a rerun goes on from there.

use std::process::Stdio;
use std::time::Duration;

use phial::event::discard;
use phial::host::Host;
use phial::image::{BlobReader, Image, Platform, assemble};
use phial_layers::Digest;

use super::sample_images::{BlobMap, noise, options};
use super::scripted::{Fault, Kind, Quirks, Registry, When};
use crate::harness::busybox::busybox_base;
use crate::harness::{TestEnv, run};

/// Kills, and bytes of the image: enough to meet every part of a push, or what `PHIAL_TEST_KILLS` asks for.
fn amount() -> (usize, usize) {
    let from_env = Host::read().var("PHIAL_TEST_KILLS").and_then(|kills| kills.parse().ok());
    from_env.map_or((12, 32_000_000), |kills| (kills, 300_000_000))
}

/// A base for the small app that is mostly noise, as a layout.
pub(super) fn base(dir: &std::path::Path, bytes: usize) -> String {
    let small = phial::layout::Layout::open_dir(&busybox_base()).unwrap();
    let image = small.resolve(None, None, &Platform::host()).unwrap();
    let mut blob_map = BlobMap::default();
    let layers: Vec<_> = (0..6).map(|nth| blob_map.layer(&format!("noise{nth}"), &noise(nth, bytes / 6))).collect();
    let image: Image = assemble(&image, &layers, &options("sh"));
    let open = |digest: &Digest| match image.manifest.layers.iter().find(|layer| layer.digest == *digest) {
        Some(layer) if !blob_map.0.contains_key(digest) => Ok(Some(Box::new(small.blob(layer)?) as BlobReader)),
        _ => blob_map.open(digest),
    };
    phial::layout::write_layout(dir, &image, Some("1"), &open, &discard).unwrap();
    format!("oci:{}:1", dir.display())
}

/// Pushes the small app over that base and kills the push as often; how many bytes came, how many there are.
fn killed(quirks: Quirks) -> (u64, u64) {
    let (kills, bytes) = amount();
    let registry = Registry::open(quirks);
    registry.make("app");
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let base = base(&env.dir().join("base"), bytes);
    let build = |to: &str| env.phial(["build", repo.source(), "--base", &base, "--to", to, "--progress", "quiet"]);
    let digest = run(build(&format!("oci:{}", env.path("out")))).ok().rsplit_once('@').unwrap().1.to_owned();
    let to = registry.reference("app:v1").to_string();
    for nth in 1..=kills {
        // Somewhere between the last kill and the next, another place each time.
        let share =
            (nth as u64 * 1000 + u64::from(noise(nth as u64, 1)[0]) * 2) * bytes as u64 / (kills as u64 + 1) / 1000;
        let mut child = build(&to).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while registry.bytes_received() < share && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        let _ = child.kill();
        let _ = child.wait();
        registry.wait_until_idle(); // the next run asks how far this one came
        assert!(registry.tag("app", "v1").is_none_or(|tag| tag.as_str() == digest));
        assert_eq!(registry.broken_tags(), Vec::<String>::new());
    }
    let pushed = run(build(&to)).ok();
    assert!(pushed.ends_with(&digest), "{pushed} {digest}");
    assert_eq!(registry.tag("app", "v1").unwrap().as_str(), digest);
    assert_eq!(registry.broken_tags(), Vec::<String>::new());
    let left = env.cache().join("uploads");
    assert_eq!(std::fs::read_dir(left).map_or(0, Iterator::count), 0, "all uploads are over, and so are the notes");
    (registry.bytes_received(), bytes as u64)
}

#[test]
fn a_push_that_is_killed_again_and_again_sends_hardly_more_than_the_image() {
    let (sent, image) = killed(Quirks::none());
    assert!(sent < image * 13 / 10, "{sent} bytes were sent for an image of {image}");
}

#[test]
fn where_a_registry_drops_partial_uploads_a_rerun_still_converges() {
    killed(Quirks::debian());
}

#[test]
fn a_signal_ends_a_stalled_push() {
    let registry = Registry::open(Quirks::none());
    let env = TestEnv::with_empty_cache();
    let repo = env.shell_app();
    let base = format!("oci:{}", busybox_base().display());
    let to = registry.reference("app:v1").to_string();
    registry.fail(Kind::PutBlob, When::Always, Fault::Stall);
    let mut build = env.phial(["build", repo.source(), "--base", &base, "--to", &to, "--progress", "plain"]);
    let child = build.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    while registry.count(Kind::PutBlob) == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = std::time::Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(143), "{text}");
    assert!(start.elapsed() < Duration::from_secs(5), "{text}");
    assert!(text.contains("interrupted"), "{text}");
    assert_eq!(registry.tag("app", "v1"), None);
    registry.heal();
    run(env.phial(["build", repo.source(), "--base", &base, "--to", &to])).ok();
    assert!(registry.tag("app", "v1").is_some());
}
