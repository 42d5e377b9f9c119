//! Files and variables for a step that make its programs write the same bytes every time: a fixed clock, atoms in one
//! order, counters that start at zero, cleared memory.
//!
//! Each removes a cause of difference that occurred: code that reads the clock while it is compiled; the order of a
//! map's atom keys; the numbers of variables in macros; the name table of a compiled regular expression, which PCRE
//! pads with uninitialized memory (OTP up to 27; glibc clears it by a variable, musl by a library). None of it reaches the image. A build without it is correct, but less
//! often reproducible.

mod atoms;
mod boot;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use phial_layers::Digest;
use serde::{Deserialize, Serialize};

use self::atoms::{AtomFiles, Depth};
use crate::elixir::etf::{self, EtfError};
use crate::error::IoError;
use crate::tree::TreeDir;

/// Where a step finds the files: below `/run`, which is part of no layer.
pub const SANDBOX_DIR: &str = "/run/phial";

/// The shell script that writes `start.boot` and `elixir_module.beam` of a base image to a directory. Its arguments are
/// [`COUNTER`] and the directory.
pub const TOOLCHAIN: &str = include_str!("toolchain.sh");
/// The Elixir program that writes a changed `elixir_module.beam`; its argument is the file.
pub const COUNTER: &str = include_str!("counter.exs");
/// The files that the script writes.
const BOOT: &str = "start.boot";
const MODULE: &str = "elixir_module.beam";

/// The largest of them that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// The fixed clock shows the modification time of the sources plus this many seconds (`AHEAD` in `clock.c`).
pub const CLOCK_AHEAD: i64 = 3600;

const CLOCK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/clock.so"));
/// The bytes before the two times in the library; see `clock.c`.
const CLOCK_MARK: &[u8; 16] = b"phial's clock:\0\0";

const MEMORY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/memory.so"));

/// The longest version that is taken for one, in bytes.
const MAX_VERSION: usize = 64;

/// The most atoms that a boot file creates: the limit of the VM is 1,048,576, and the code that is compiled needs some
/// too.
const MAX_ATOMS: usize = 600_000;

/// What the shims need of the Erlang and Elixir in a base image. Stored as a result in the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// `start.boot` of OTP; `None` if the base image has no Erlang.
    pub boot: Option<Vec<u8>>,
    /// The module `elixir_module` with a counter that starts at zero for each file; `None` if the one of the base image
    /// cannot be changed.
    pub module: Option<Vec<u8>>,
    /// The atoms of every module in the base image.
    pub atoms: BTreeSet<String>,
    /// The version of Erlang/OTP, such as `27.3.4`; `None` without Erlang.
    pub erlang: Option<String>,
    /// The version of Elixir, such as `1.18.3`; `None` without Elixir.
    pub elixir: Option<String>,
}

impl Toolchain {
    /// What a toolchain depends on besides its base image: the digest of both programs, and the versions of the readers
    /// of atoms and of terms.
    pub fn version() -> Digest {
        Digest::of([TOOLCHAIN, COUNTER, atoms::VERSION, etf::VERSION_OF_READER].join("\0").as_bytes())
    }

    /// Reads a toolchain from the directory that the script wrote to, and from the trees of the base image. `None` for a
    /// directory that the script did not make.
    pub fn read(output: Option<&TreeDir>, trees: &[TreeDir]) -> Result<Self, IoError> {
        let file = |name: &str| output.map_or(Ok(None), |dir| dir.read(name, MAX_FILE));
        let mut atoms = BTreeSet::new();
        for tree in trees {
            atoms::below(tree, AtomFiles::Modules(Depth::Tables), &[], &mut atoms)?;
        }
        let version = |name: &str| -> Result<Option<String>, IoError> {
            let text = file(name)?.and_then(|bytes| String::from_utf8(bytes).ok());
            Ok(text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty() && text.len() <= MAX_VERSION))
        };
        let (boot, module) = (file(BOOT)?, file(MODULE)?);
        Ok(Self { boot, module, atoms, erlang: version("erlang-version")?, elixir: version("elixir-version")? })
    }
}

/// Adds the atoms of sources and compiled modules in a tree, except those in `.git` and `node_modules`.
pub fn add_atoms(tree: &TreeDir, atoms: &mut BTreeSet<String>) -> Result<(), IoError> {
    atoms::below(tree, AtomFiles::ModulesAndTexts, &[".git", "node_modules"], atoms)
}

/// Adds the atoms of compiled modules in a tree, including their abstract code.
pub fn add_compiled_atoms(tree: &TreeDir, atoms: &mut BTreeSet<String>) -> Result<(), IoError> {
    atoms::below(tree, AtomFiles::Modules(Depth::Full), &[], atoms)
}

/// A file that is bound into the sandbox of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShimFile {
    /// Its path on the host.
    pub source: PathBuf,
    /// Its path in the sandbox.
    pub target: String,
}

/// The C library of the programs that a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libc {
    /// musl, alone or beside another one.
    Musl,
    /// Another one, which is glibc; or none, if all programs are linked statically.
    Other,
}

/// Variables and files for a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shims {
    /// Name and value. A value that the environment has already comes first.
    pub env: Vec<(&'static str, String)>,
    /// Files to bind read-only.
    pub files: Vec<ShimFile>,
    /// Number of atoms beyond the most that a boot file creates.
    pub dropped_atoms: usize,
}

/// The times of a fixed clock, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedClock {
    /// The modification time of the files that the step finds; the clock shows [`CLOCK_AHEAD`] seconds more.
    pub sources_mtime: i64,
    /// When the step starts: files written later appear as written after `sources_mtime`, in their order.
    pub step_start: i64,
}

impl Shims {
    /// The shims of every step: glibc fills allocated memory with zeros. musl ignores the variable.
    pub fn new() -> Self {
        let zeroed = "glibc.malloc.perturb=255:glibc.malloc.tcache_count=0";
        Self { env: vec![("GLIBC_TUNABLES", zeroed.to_owned())], files: vec![], dropped_atoms: 0 }
    }

    /// Adds what clears memory for programs of `libc`, if a variable does not; its file is written to `dir`.
    pub fn with_cleared_memory(mut self, libc: Libc, dir: &Path) -> io::Result<Self> {
        if libc == Libc::Musl {
            let target = self.add_file(dir, "memory.so", MEMORY)?;
            self.env.push(("LD_PRELOAD", target));
        }
        Ok(self)
    }

    /// Adds a fixed clock; its file is written to `dir`.
    pub fn with_clock(mut self, clock: FixedClock, dir: &Path) -> io::Result<Self> {
        let target = self.add_file(dir, "clock.so", &clock_library(clock))?;
        self.env.push(("LD_PRELOAD", target));
        Ok(self)
    }

    /// Makes Erlang VMs create the atoms of the toolchain and of `sources` first; the files are written to `dir`.
    pub fn with_atoms(mut self, toolchain: &Toolchain, sources: &BTreeSet<String>, dir: &Path) -> io::Result<Self> {
        let Some(boot) = &toolchain.boot else { return Ok(self) };
        let all: BTreeSet<String> = toolchain.atoms.union(sources).take(MAX_ATOMS).cloned().collect();
        self.dropped_atoms = toolchain.atoms.union(sources).count() - all.len();
        let module = toolchain.module.as_ref().map(|bytes| self.add_file(dir, MODULE, bytes)).transpose()?;
        let load = module.as_deref().and_then(|path| path.strip_suffix(".beam"));
        let invalid = |error: EtfError| io::Error::new(io::ErrorKind::InvalidData, error);
        let seeded = boot::with_atoms(boot, &all, load).map_err(invalid)?;
        let target = self.add_file(dir, "seed.boot", &seeded)?;
        let boot = target.trim_end_matches(".boot");
        // `+MDe false`: drivers, among them PCRE, allocate by malloc, which fills the memory with zeros.
        self.env.push(("ERL_AFLAGS", format!("-boot {boot} +MDe false")));
        Ok(self)
    }

    fn add_file(&mut self, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<String> {
        let source = dir.join(name);
        fs::write(&source, bytes)?;
        let target = format!("{SANDBOX_DIR}/{name}");
        self.files.push(ShimFile { source, target: target.clone() });
        Ok(target)
    }
}

/// The library `clock.so` with the two times written into it.
fn clock_library(clock: FixedClock) -> Vec<u8> {
    let mut bytes = CLOCK.to_vec();
    let mark = bytes.windows(CLOCK_MARK.len()).position(|window| window == CLOCK_MARK);
    let at = mark.map_or(bytes.len(), |at| at + CLOCK_MARK.len());
    for (field, time) in bytes[at..].chunks_exact_mut(8).zip([clock.sources_mtime, clock.step_start]) {
        field.copy_from_slice(&time.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::elixir::etf::Term;

    #[test]
    fn the_clock_is_fixed_and_files_keep_their_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let date = Command::new("date").arg("+%s").output().expect("date").stdout;
        let step_start: i64 = String::from_utf8_lossy(&date).trim().parse().expect("a number");
        let clock = FixedClock { sources_mtime: 1_700_000_000, step_start };
        let shims = Shims::new().with_clock(clock, dir.path()).expect("a clock");
        assert_eq!(shims.env[1], ("LD_PRELOAD", "/run/phial/clock.so".to_owned()));
        let output = Command::new("sh")
            .args(["-c", "date +%s; touch a; sleep 1.1; touch b; stat -c %Y a b; date +%s; ls -t"])
            .env("LD_PRELOAD", &shims.files[0].source)
            .current_dir(dir.path())
            .output()
            .expect("sh");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[3]), ("1700003600", "1700003600"), "{text}{output:?}");
        let times: Vec<i64> = lines[1..3].iter().map(|line| line.parse().expect("a time")).collect();
        assert!(times[0] > 1_700_000_000 && times[1] > times[0] && times[1] < 1_700_000_100, "{text}");
        assert_eq!(&lines[4..6], ["b", "a"], "{text}");
    }

    #[test]
    fn only_musl_needs_a_library_that_clears_memory() {
        let dir = tempfile::tempdir().expect("a directory");
        let shims = |libc| Shims::new().with_cleared_memory(libc, dir.path()).expect("a file");
        assert_eq!(shims(Libc::Other), Shims::new());
        let of_musl = shims(Libc::Musl);
        assert_eq!(of_musl.env[1], ("LD_PRELOAD", "/run/phial/memory.so".to_owned()));
        let sorted = Command::new("sh")
            .args(["-c", "printf 'b\\na\\n' | sort"])
            .env("LD_PRELOAD", &of_musl.files[0].source)
            .output()
            .expect("sh");
        assert_eq!((sorted.stdout.as_slice(), sorted.stderr.as_slice()), (&b"a\nb\n"[..], &b""[..]), "with glibc");
    }

    #[test]
    fn a_boot_file_has_the_atoms_of_the_toolchain_and_of_the_sources() {
        let dir = tempfile::tempdir().expect("a directory");
        let start = Term::Tuple(vec![Term::atom("progress"), Term::atom("started")]);
        let script = Term::Tuple(vec![Term::atom("script"), Term::Nil, Term::List(vec![start], Box::new(Term::Nil))]);
        let sets = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let toolchain = Toolchain {
            boot: Some(etf::encode(&script)),
            module: Some(b"module".to_vec()),
            atoms: sets(&["of_toolchain", "of_both"]),
            ..Toolchain::default()
        };
        let sources = sets(&["of_sources", "of_both"]);
        let shims = Shims::new().with_atoms(&toolchain, &sources, dir.path()).expect("files");
        assert_eq!(shims.env[1], ("ERL_AFLAGS", "-boot /run/phial/seed +MDe false".to_owned()));
        assert_eq!(shims.dropped_atoms, 0);
        let targets: Vec<&str> = shims.files.iter().map(|file| file.target.as_str()).collect();
        assert_eq!(targets, ["/run/phial/elixir_module.beam", "/run/phial/seed.boot"]);
        assert_eq!(fs::read(&shims.files[0].source).expect("a file"), b"module");
        let all = sets(&["of_toolchain", "of_both", "of_sources"]);
        let expected = boot::with_atoms(&etf::encode(&script), &all, Some("/run/phial/elixir_module")).expect("a term");
        assert_eq!(fs::read(&shims.files[1].source).expect("a file"), expected);
        let without = Shims::new().with_atoms(&Toolchain::default(), &sources, dir.path()).expect("nothing");
        assert_eq!(without, Shims::new(), "an image without Erlang");
        let broken = Toolchain { boot: Some(b"x".to_vec()), ..Toolchain::default() };
        assert!(Shims::new().with_atoms(&broken, &sources, dir.path()).is_err());
        let many = (0..MAX_ATOMS + 7).map(|nth| nth.to_string()).collect();
        let dropped = Shims::new().with_atoms(&toolchain, &many, dir.path()).expect("files").dropped_atoms;
        assert_eq!(dropped, 9, "seven, and the two of the toolchain");
    }

    #[test]
    fn a_toolchain_is_what_the_script_wrote_and_the_atoms_of_the_base() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join(BOOT), b"boot").expect("a file");
        fs::write(dir.path().join("a.beam"), b"FOR1\0\0\0\x14BEAMAtU8\0\0\0\x07\0\0\0\x01\x02ab\0").expect("a file");
        fs::create_dir(dir.path().join(".git")).expect("a directory");
        fs::write(dir.path().join(".git/word"), b"unseen").expect("a file");
        fs::write(dir.path().join("source.ex"), b"seen").expect("a file");
        let tree = || TreeDir::open(dir.path()).expect("a tree");
        let read = Toolchain::read(Some(&tree()), &[tree()]).expect("read");
        assert_eq!((read.boot.as_deref(), read.module), (Some(&b"boot"[..]), None));
        assert_eq!(read.atoms.iter().collect::<Vec<_>>(), ["ab"]);
        assert_eq!(Toolchain::read(None, &[]).expect("read"), Toolchain::default());
        let atoms = |add: fn(&TreeDir, &mut BTreeSet<String>) -> Result<(), IoError>| {
            let mut atoms = BTreeSet::new();
            add(&tree(), &mut atoms).expect("read");
            atoms.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(
            (atoms(add_compiled_atoms), atoms(add_atoms)),
            (vec!["ab".to_owned()], ["ab", "boot", "seen"].map(str::to_owned).into())
        );
    }
}
