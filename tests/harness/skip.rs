//! Tests that cannot run on this machine: each reports it on stderr, and is counted by `just test`.
//!
//! libtest has no test that skips itself at run time, so a skipped test passes; the file that `PHIAL_SKIPPED` names lists what was
//! skipped. `testdata/run-tests` prints that file and fails if it has a test that `tests/skipped-as-user.txt` does not list.

use std::fs::OpenOptions;
use std::io::Write;

use phial::host::Host;

/// Ends the test: it cannot run here, for the reason given.
macro_rules! skip {
    ($reason:expr) => {{
        $crate::harness::skip::skip_part!($reason);
        return;
    }};
}

/// Reports that a part of the test cannot run here; the rest of the test goes on.
macro_rules! skip_part {
    ($reason:expr) => {{
        fn here() {}
        $crate::harness::skip::record(std::any::type_name_of_val(&here), $reason)
    }};
}

pub(crate) use {skip, skip_part};

/// The isolations that this user can have.
pub(crate) fn isolations() -> Vec<&'static str> {
    if rustix::process::geteuid().is_root() {
        return vec!["overlay", "copy", "chroot"];
    }
    skip_part!("chroot needs root");
    vec!["overlay", "copy"]
}

/// Writes `TEST<tab>REASON` to stderr, past libtest's capture, and to the file that `PHIAL_SKIPPED` names.
pub(crate) fn record(function: &str, reason: &str) {
    let path = function.trim_end_matches("::here").trim_end_matches("::{{closure}}");
    let test = path.split_once("::").map_or(path, |(_, rest)| rest);
    let line = format!("{test}\t{reason}\n");
    let _ = std::io::stderr().write_all(format!("skipped: {line}").as_bytes());
    if let Some(file) = Host::read().var("PHIAL_SKIPPED") {
        let log = OpenOptions::new().create(true).append(true).open(file);
        log.and_then(|mut log| log.write_all(line.as_bytes())).expect("the file that `PHIAL_SKIPPED` names");
    }
}
