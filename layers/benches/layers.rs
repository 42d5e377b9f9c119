//! Packing and unpacking one tree, side by side with `tar | pigz` and `umoci` where they are on PATH; medians of runs that
//! take turns, as a markdown table.
//!
//!     cargo bench -p phial-layers                       # a generated tree: 20,000 small files and a large one
//!     cargo bench -p phial-layers -- TREE [RUNS [DIR]]  # TREE: a directory or a plain tar; DIR: scratch (target/tmp)
//!
//! Unpacked trees are kept until the end: deleting many files slows the next creation on some file systems (ext4 without a
//! journal). The tree is read once before the first run.
#![expect(clippy::print_stdout, reason = "a bench prints")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has nothing better to do than stop")]

use std::fs;
use std::io::{self, BufWriter};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use phial_layers::{Compression, Limits, Metadata, PackOptions, pack, unpack};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [flag, tree, compression] = &args[..]
        && flag == "--memory-of-packing"
    {
        return memory_of_packing(Path::new(tree), named(compression));
    }
    let runs = args.get(1).map_or(3, |runs| runs.parse().unwrap());
    let scratch = args.get(2).map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let scratch = scratch.join(format!("bench-{}", std::process::id()));
    fs::create_dir_all(&scratch).unwrap();
    let tree = args.first().map_or_else(|| generated(&scratch.join("tree")), |tree| directory(tree.into(), &scratch));
    let options = options(Compression::None);
    let packed = pack(&tree, &Metadata::default(), &options, &mut io::sink()).unwrap();
    println!(
        "{} entries, {} MB of tar, {} threads, medians of {runs} runs\n",
        packed.entries,
        packed.tar_size / 1_000_000,
        options.workers
    );
    println!("| what | seconds | blob, MB | peak memory, MiB |\n|---|---|---|---|");
    packing(&tree, &scratch, runs);
    unpacking(&tree, &scratch, runs);
    fs::remove_dir_all(&scratch).unwrap();
}

fn packing(tree: &Path, scratch: &Path, runs: usize) {
    let blob = scratch.join("blob");
    let (mut ours, mut zstd, mut plain, mut pigz) = (vec![], vec![], vec![], vec![]);
    let mut sizes = [0; 3];
    for _ in 0..runs {
        ours.push(timed(|| pack_to(tree, Compression::Gzip, &blob)));
        sizes[0] = size(&blob);
        zstd.push(timed(|| pack_to(tree, Compression::Zstd, &blob)));
        sizes[1] = size(&blob);
        if on_path("pigz") {
            plain.push(timed(|| shell("tar -C \"$1\" --sort=name -cf - . | pigz > \"$2\"", &[tree, &blob])));
            let line = "tar -C \"$1\" --sort=name -cf - . | pigz > \"$2\" && sha256sum \"$2\" > /dev/null";
            pigz.push(timed(|| shell(line, &[tree, &blob])));
            sizes[2] = size(&blob);
        }
    }
    row("pack, gzip", ours, Some(sizes[0]), peak(tree, "gzip"));
    row("pack, zstd", zstd, Some(sizes[1]), peak(tree, "zstd"));
    row("tar, pigz", plain, Some(sizes[2]), None);
    row("tar, pigz, sha256sum", pigz, Some(sizes[2]), None);
}

fn unpacking(tree: &Path, scratch: &Path, runs: usize) {
    let (gzip, zstd, pigz) = (scratch.join("gzip"), scratch.join("zstd"), scratch.join("pigz"));
    pack_to(tree, Compression::Gzip, &gzip);
    pack_to(tree, Compression::Zstd, &zstd);
    let umoci = on_path("umoci") && on_path("skopeo") && on_path("pigz");
    let layout = scratch.join("layout");
    if umoci {
        shell("tar -C \"$1\" --sort=name -cf - . | pigz > \"$2\"", &[tree, &pigz]);
        let line = "umoci init --layout \"$1\" && umoci new --image \"$1:t\" && gzip -dc \"$2\" > \"$3\" && \
                    umoci raw add-layer --image \"$1:t\" \"$3\"";
        shell(line, &[&layout, &gzip, &scratch.join("tar")]);
    }
    let (mut ours, mut foreign, mut frames, mut theirs, mut tars) = (vec![], vec![], vec![], vec![], vec![]);
    for run in 0..runs {
        ours.push(unpack_to(&gzip, Compression::Gzip, &scratch.join(format!("ours-{run}"))));
        frames.push(unpack_to(&zstd, Compression::Zstd, &scratch.join(format!("zstd-{run}"))));
        if umoci {
            foreign.push(unpack_to(&pigz, Compression::Gzip, &scratch.join(format!("foreign-{run}"))));
            let bundle = scratch.join(format!("umoci-{run}"));
            theirs.push(timed(|| shell("umoci unpack --rootless --image \"$1:t\" \"$2\"", &[&layout, &bundle])));
        }
        let plain = scratch.join(format!("tar-{run}"));
        fs::create_dir(&plain).unwrap();
        tars.push(timed(|| shell("tar -C \"$1\" -xzf \"$2\"", &[&plain, &gzip])));
    }
    row("unpack, gzip", ours, None, None);
    row("unpack, gzip of one member (pigz)", foreign, None, None);
    row("unpack, zstd", frames, None, None);
    row("umoci unpack --rootless", theirs, None, None);
    row("tar xz", tars, None, None);
}

fn directory(tree: PathBuf, scratch: &Path) -> PathBuf {
    if tree.is_dir() {
        return tree;
    }
    let root = scratch.join("tree");
    unpack_to(&tree, Compression::None, &root);
    root
}

fn options(compression: Compression) -> PackOptions {
    let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    PackOptions { compression, mtime: 0, workers }
}

fn pack_to(tree: &Path, compression: Compression, to: &Path) {
    let mut out = BufWriter::new(fs::File::create(to).unwrap());
    pack(tree, &Metadata::default(), &options(compression), &mut out).unwrap();
}

fn unpack_to(blob: &Path, compression: Compression, root: &Path) -> f64 {
    fs::create_dir(root).unwrap();
    timed(|| {
        unpack(fs::File::open(blob).unwrap(), compression, root, &Limits::GENEROUS).unwrap();
    })
}

/// Packs in this process, whose peak memory is then that of packing.
fn memory_of_packing(tree: &Path, compression: Compression) {
    pack(tree, &Metadata::default(), &options(compression), &mut io::sink()).unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("{}", peak.trim().trim_end_matches(" kB"));
}

fn peak(tree: &Path, compression: &str) -> Option<u64> {
    let mut this = Command::new(std::env::current_exe().unwrap());
    this.args(["--memory-of-packing".as_ref(), tree.as_os_str(), compression.as_ref()]);
    let out = this.stderr(Stdio::inherit()).output().unwrap();
    String::from_utf8(out.stdout).ok()?.trim().parse().ok()
}

fn named(compression: &str) -> Compression {
    if compression == "zstd" { Compression::Zstd } else { Compression::Gzip }
}

fn row(what: &str, mut times: Vec<f64>, blob: Option<u64>, peak_kib: Option<u64>) {
    if times.is_empty() {
        return println!("| {what} | not on PATH | | |");
    }
    times.sort_by(f64::total_cmp);
    let megabytes = blob.map_or(String::new(), |size| format!("{}.{}", size / 1_000_000, size / 100_000 % 10));
    let memory = peak_kib.map_or(String::new(), |kib| (kib / 1024).to_string());
    println!("| {what} | {:.2} | {megabytes} | {memory} |", times[times.len() / 2]);
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn shell(line: &str, args: &[&Path]) {
    let mut command = Command::new("sh");
    command.args(["-c", line, "sh"]).args(args).stdout(Stdio::null()).stderr(Stdio::piped());
    let out = command.output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
}

fn on_path(program: &str) -> bool {
    Command::new("sh").args(["-c", "command -v \"$1\" > /dev/null", "sh", program]).status().unwrap().success()
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).unwrap().len()
}

/// Small files of words that repeat, and one large file that hardly does.
fn generated(tree: &Path) -> PathBuf {
    let mut state = 1_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let words = ["defmodule ", "do\n", "end\n", "  @doc false\n", "{:ok, value}", "Enum.map(", "|> ", "nil"];
    for dir in 0..200 {
        let dir = tree.join(format!("lib/app-{dir}"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..100 {
            let count = 20 + random() % 800;
            let text: String = (0..count).map(|_| words[random() as usize % words.len()]).collect();
            fs::write(dir.join(format!("module_{file}.ex")), text).unwrap();
        }
    }
    let bytes: Vec<u8> = (0..64 << 20).map(|_| (random() % 64) as u8).collect();
    fs::write(tree.join("large"), bytes).unwrap();
    tree.to_path_buf()
}
