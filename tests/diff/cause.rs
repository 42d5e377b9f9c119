//! The one difference that a reproducibility error names.

use phial::compare::{Side, compare};
use phial::image::{BlobReader, Image, ImageOptions, Platform};
use phial::layout::Layout;
use phial_layers::Digest;

use super::handmade_images::{Entry, image, layer, plain, tar};
use crate::harness::TestEnv;

/// The difference that the library would name first between two layouts of the environment.
fn first(env: &TestEnv, one: &str, other: &str) -> String {
    let open = |name: &str| {
        let layout = Layout::open_dir(&env.dir().join(name)).expect("a layout");
        (layout.resolve(None, None, &Platform::host()).expect("an image"), layout)
    };
    let (left, right) = (open(one), open(other));
    let blobs = |(image, layout): &(Image, Layout), digest: &Digest| {
        let layer = image.manifest.layers.iter().find(|layer| layer.digest == *digest).expect("a layer");
        Ok(Some(Box::new(layout.blob(layer).expect("a blob")) as BlobReader))
    };
    let (of_left, of_right) = (|digest: &_| blobs(&left, digest), |digest: &_| blobs(&right, digest));
    let found = compare(&Side::image(&left.0, &of_left), &Side::image(&right.0, &of_right)).expect("a comparison");
    found.first().map_or_else(|| "none".into(), |difference| difference.to_string())
}

#[test]
fn the_cause_is_the_gravest_difference_of_the_lowest_layer_that_differs() {
    let env = TestEnv::new();
    let of = |name: &str, deps: &[Entry], app: &[Entry], options: &ImageOptions| {
        image(&env, name, &[layer("phial deps", &tar(deps)), layer("phial app", &tar(app))], options);
    };
    let (dir, file) = (Entry::dir("app"), Entry::file("app/z", "1"));
    let (late, upper) = (Entry::dir("app").mtime(1), Entry::file("app/a", "x"));
    of("one", &[dir.clone(), file.clone()], std::slice::from_ref(&file), &plain());
    of("content", &[late.clone(), Entry::file("app/z", "2")], std::slice::from_ref(&upper), &plain());
    of("time", &[late, file.clone()], std::slice::from_ref(&upper), &plain());
    of("upper", &[dir.clone(), file.clone()], &[upper], &plain());
    of("config", &[dir, file.clone()], &[file], &ImageOptions { cmd: None, ..plain() });
    for (other, difference) in [
        ("one", "none"),
        ("content", "layer `deps`: `app/z`: content (1 bytes)"),
        ("time", "layer `deps`: `app`: time 1700000000 -> 1"),
        ("upper", "layer `app`: `app/a`: only the second has it"),
        ("config", "config: `config.Cmd`: [\"run\"] -> nothing"),
    ] {
        assert_eq!(first(&env, "one", other), difference, "{other}");
    }
}
