//! How long it takes to bring what Mix wrote into its normal form: a row of the table of `testdata/bench`.
//!
//! ```text
//! cargo bench --bench normal -- APP RUNS    # APP: an app with its `deps` and `_build` as Mix left them
//! ```
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark says what it measured, or dies")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use phial::determinism::normalize::{NormalizeOptions, Part, normalize};
use phial::host::Host;
use phial::recipe::{APP, EPOCH};
use phial::tree::TreeDir;

fn main() {
    let mut args = std::env::args().skip(1);
    let (app, runs) = (args.next().unwrap(), args.next().unwrap().parse::<usize>().unwrap());
    let mut times: Vec<Duration> = (0..runs).map(|_| once(app.as_ref())).collect();
    times.sort();
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let (median, least, most) = (times[(runs - 1) / 2], times[0], times[runs - 1]);
    println!("| of that, normalising | {:.1} | {:.1} | {:.1} |", millis(median), millis(least), millis(most));
}

/// One copy of the app, normalized twice as a build does it: each environment alone, and again without what others have.
fn once(app: &Path) -> Duration {
    let root = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-a").arg(app).arg(root.path().join(APP)).status().unwrap();
    assert!(copied.success());
    let lock = fs::read_to_string(app.join("mix.lock")).unwrap_or_default();
    let windows = [(0, Host::read().unix_time()), (EPOCH, EPOCH)];
    let options = NormalizeOptions { mtime: EPOCH, windows, part: Part::Build, lock: &lock };
    let start = Instant::now();
    for _ in 0..2 {
        normalize(&TreeDir::open(root.path()).unwrap(), APP, &options).unwrap();
    }
    start.elapsed()
}
