//! A cross-section of `testdata/matrix-bases`: an older Elixir, and one that scripts start, as asdf and mise do.

use std::fs;

use crate::harness::prebuilt::{elixir_base, lock, script};
use crate::harness::skip::skip;
use crate::harness::user::copy;
use crate::harness::{fixtures_dir, run};

#[test]
fn apps_have_one_digest_and_start_over_an_older_elixir_and_over_one_behind_scripts() {
    if !rustix::process::geteuid().is_root() {
        skip!("needs root, whose files the images hold");
    }
    let dir = fixtures_dir().join("bases");
    let _held = lock("bases");
    // They follow from the base of the other tests; Debian's older one is made once.
    for name in ["base-trixie", "base-trixie+shims"] {
        let _ = fs::remove_dir_all(dir.join(name));
    }
    copy(&elixir_base(), &dir.join("base-trixie"));
    for (base, app) in [("bookworm", "umbrella"), ("trixie+shims", "hello")] {
        let mut matrix = script("matrix-bases");
        matrix.env("PHIAL_TIMES", "2").env("PHIAL_APPS", app);
        matrix.arg(env!("CARGO_BIN_EXE_phial")).arg(&dir).arg(base);
        let rows = run(matrix).ok();
        assert!(rows.lines().any(|row| row.starts_with(&format!("{base} {app}: ok,"))), "{rows}");
    }
}
