//! `phial diff` of what cannot be compared: one error that names it, and never a difference.

use std::fs;

use insta::assert_snapshot;

use super::handmade_images::{Entry, Layer, image, layer, plain, tar};
use crate::harness::{Output, Registry, TestEnv, run};

/// The error, with what varies taken out.
#[track_caller]
fn refused(env: &TestEnv, code: i32, args: &[&str]) -> String {
    let ran: Output = run(env.phial([&["diff", "--progress", "quiet"], args].concat()));
    assert_eq!(ran.stdout, "", "nothing on stdout");
    let output = ran.failed(code).replace(&env.dir().display().to_string(), "[DIR]");
    assert_eq!(output.matches("error:").count(), 1, "{output}");
    output
}

/// A text with what varies of its digests taken out.
fn without_digests(output: &str) -> String {
    let mut parts = output.split("sha256:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        format!("{text}sha256:[HEX]{}", part.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
    })
}

/// Layers of a few kilobytes, alike but for one file.
fn sides(env: &TestEnv) -> (String, String, Layer) {
    let noise = |seed: u64| -> Vec<u8> {
        let next = |n: &u64| Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        std::iter::successors(Some(seed), next).take(4000).map(|n| n.to_be_bytes()[0]).collect()
    };
    let layers =
        |seed| layer("phial build prod", &tar(&[Entry::file("app/a", noise(seed)), Entry::file("app/b", "b")]));
    let (one, other) = (layers(1), layers(2));
    let left = image(env, "one", &[one], &plain());
    (left, image(env, "other", std::slice::from_ref(&other), &plain()), other)
}

#[test]
fn an_image_that_is_not_there_is_refused() {
    let env = TestEnv::new();
    let (one, ..) = sides(&env);
    assert_snapshot!(refused(&env, 3, &[&one, &format!("oci:{}", env.path("nowhere"))]), @r"
    error: there is no `[DIR]/nowhere`
    hint: correct the path, or create a base image there with `phial base`
    ");
    assert_snapshot!(without_digests(&refused(&env, 3, &[&format!("{one}:v9"), &one])), @"error: `[DIR]/one` has no image tagged `v9`; it has `sha256:[HEX]`");
    assert_snapshot!(refused(&env, 3, &[&one, "./nowhere.tar", "--layer", "1"]), @r"
    error: `./nowhere.tar` is not a layer: it does not exist
    hint: for a layout directory write `oci:./nowhere.tar`
    ");
    assert_snapshot!(refused(&env, 3, &[&one, "./one", "--layer", "1"]), @r"
    error: `./one` is not a layer: it is not a regular file
    hint: for a layout directory write `oci:./one`
    ");
    assert_snapshot!(refused(&env, 2, &[&one, "NOT A REF"]), @r"
    error: cannot use `image`: `NOT A REF` is not an image reference: repository part `NOT A REF`: upper case is not allowed
    hint: write `not a ref`
    ");
    let registry = Registry::start();
    let output = refused(&env, 3, &[&one, &registry.reference("gone:1")]);
    assert!(output.contains("/gone:1` is not in the registry"), "{output}");
}

#[test]
fn a_damaged_layer_is_named_and_not_compared() {
    let mut all = String::new();
    for name in ["short", "flipped", "long"] {
        let env = TestEnv::with_empty_cache();
        let (one, other, layer) = sides(&env);
        let path = env.dir().join("other/blobs/sha256").join(layer.digest.hex());
        let mut blob = fs::read(&path).unwrap();
        match name {
            "short" => blob.truncate(1000),
            "flipped" => blob[2000] ^= 1,
            _ => blob.extend_from_slice(b"more"),
        }
        fs::write(&path, blob).unwrap();
        for args in [[&one, &other], [&other, &one]] {
            let output = refused(&env, 3, &[args[0], args[1]]);
            assert!(output.contains(&format!("layer `build prod` (`{}`)", layer.digest)), "{output}");
        }
        let output = refused(&env, 3, &[&one, &other]);
        all = format!("{all}{name}: {}", without_digests(&output));
    }
    assert_snapshot!(all, @r"
    short: error: cannot read the layer `build prod` (`sha256:[HEX]`): `sha256:[HEX]` ends after 1000 of 4185 bytes
    hint: copy or build the image again
    flipped: error: cannot read the layer `build prod` (`sha256:[HEX]`): `sha256:[HEX]` was expected, the bytes are `sha256:[HEX]`
    hint: copy or build the image again
    long: error: cannot read the layer `build prod` (`sha256:[HEX]`): `sha256:[HEX]` has more than the 4185 bytes its descriptor states
    hint: copy or build the image again
    ");
}

#[test]
fn a_layer_that_is_gone_or_is_cut_in_its_tar_is_named() {
    let env = TestEnv::with_empty_cache();
    let (one, other, layer) = sides(&env);
    fs::write(env.path("cut.tar.gz"), &layer.blob[..2000]).unwrap();
    assert_snapshot!(refused(&env, 3, &["./cut.tar.gz", "./cut.tar.gz"]), @r"
    error: cannot read the layer `./cut.tar.gz`: the layer is refused: the layer ends in the middle: incomplete deflate stream
    hint: fetch the layer again and compare its digest
    ");
    fs::write(env.path("none.tar"), "no tar, but text that is longer than a block of a tar is: ".repeat(20)).unwrap();
    assert_snapshot!(refused(&env, 3, &[&one, "./none.tar", "--layer", "build prod"]), @r"
    error: cannot read the layer `./none.tar`: the layer's entry after `` is refused: the tar header is malformed
    hint: no image builder in common use writes such a layer; find out where it comes from
    ");
    fs::remove_file(env.dir().join("other/blobs/sha256").join(layer.digest.hex())).unwrap();
    assert_snapshot!(without_digests(&refused(&env, 3, &[&one, &other])), @r"
    error: cannot open the layer `build prod` (`sha256:[HEX]`): `[DIR]/other` lacks the blob `sha256:[HEX]`
    hint: copy or build the image again
    ");
}

#[test]
fn what_does_not_go_together_is_a_matter_of_usage() {
    let env = TestEnv::new();
    let (one, other, layer) = sides(&env);
    fs::write(env.path("layer.tar.gz"), &layer.blob).unwrap();
    assert_snapshot!(refused(&env, 2, &[&one, "./layer.tar.gz"]), @r"
    error: the first argument is an image and the second one is a layer
    hint: name a layer of the image with `--layer`
    ");
    assert_snapshot!(refused(&env, 2, &[&one, &other, "--layer", "deps"]), @r"
    error: no layer is named `deps`; the layers are `build prod`
    hint: `--layer` takes a name, a number from below, or a digest
    ");
    assert_eq!(run(env.phial(["diff", &one, &other, "--other-layer", "1"])).code, Some(2));
}
