//! How long it takes to look 20 trees up in the store and to notice that none was changed: rows of the table of
//! `testdata/bench-store`.
//!
//! ```text
//! cargo bench --bench store -- RUNS
//! ```
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark says what it measured, or dies")]

use std::fs;
use std::time::{Duration, Instant};

use phial::store::{Store, TreeCheck};
use phial_layers::{DiffId, Digest, Metadata};

const TREES: u8 = 20;
/// Files of each tree, in directories of ten.
const FILES: u32 = 100;

fn main() {
    let runs = std::env::args().nth(1).unwrap().parse::<usize>().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cache");
    let ids: Vec<DiffId> = (0..TREES).map(|tree| DiffId(Digest::of(&[tree]))).collect();
    let store = Store::open(&root).unwrap();
    for id in &ids {
        let scratch = store.scratch().unwrap();
        let tree = scratch.dir("tree").unwrap();
        for file in 0..FILES {
            let path = tree.join(format!("d{}/f{file}", file / 10));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "text").unwrap();
        }
        store.keep_tree(&tree, id, &Metadata::default()).unwrap();
    }
    drop(store);
    for (name, check) in [("by their roots", TreeCheck::Root), ("by every entry", TreeCheck::Entries)] {
        let mut times: Vec<Duration> = (0..runs).map(|_| once(&Store::open(&root).unwrap(), &ids, check)).collect();
        times.sort();
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        let (median, least, most) = (times[(runs - 1) / 2], times[0], times[runs - 1]);
        println!("| {TREES} trees {name} | {:.2} | {:.2} | {:.2} |", millis(median), millis(least), millis(most));
    }
}

/// What a process that has just opened the store needs to find all trees.
fn once(store: &Store, ids: &[DiffId], check: TreeCheck) -> Duration {
    let start = Instant::now();
    for id in ids {
        store.find_tree(id, check).unwrap();
    }
    start.elapsed()
}
