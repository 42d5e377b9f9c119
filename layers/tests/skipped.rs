//! Reports a test, or a part of one, that cannot run on this machine.

use std::io::Write as _;

/// Writes `TEST<tab>REASON` to stderr and to the file that `PHIAL_SKIPPED` names, as the tests of Phial do.
#[expect(clippy::disallowed_methods, reason = "only the tests read this variable")]
pub(crate) fn skipped(test: &str, reason: &str) {
    let line = format!("{test}\t{reason}\n");
    let _ = std::io::stderr().write_all(format!("skipped: {line}").as_bytes());
    if let Some(file) = std::env::var_os("PHIAL_SKIPPED") {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(file);
        log.and_then(|mut log| log.write_all(line.as_bytes())).unwrap();
    }
}
