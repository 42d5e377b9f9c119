//! What the programs of a step are given so that they write the same bytes every time: a clock that stands, atoms in one order,
//! counters that start anew, memory that is empty.
//!
//! Each cures a cause that was seen, and nothing here is for good measure: code that asks for the time while it is
//! compiled; the order of a map's atom keys; numbers that macros give their variables; the name table of a compiled regular
//! expression, which PCRE pads with what was in memory (OTP up to 27). None of it reaches the image, and a build without it
//! is not wrong, only less equal.

mod atoms;
mod boot;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use phial_layers::Digest;
use serde::{Deserialize, Serialize};

use self::atoms::What;
use crate::determinism::etf::EtfError;

/// Where the files of this room are inside a sandbox: below `/run`, so in no layer.
pub const INSIDE: &str = "/run/phial";

/// The script that takes from a base what [`Toolchain`] is made of.
pub const TOOLCHAIN: &str = include_str!("toolchain.sh");
/// The program that changes Elixir's counter.
pub const COUNTER: &str = include_str!("counter.exs");
/// Its two results, in the directory that the script is told.
const BOOT: &str = "start.boot";
const MODULE: &str = "elixir_module.beam";

/// So many seconds after the modification time of the sources the clock stands, as `clock.c` has it.
pub const AHEAD: i64 = 3600;

const CLOCK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/clock.so"));
/// Stands before the two times in the clock; see `clock.c`.
const MARK: &[u8; 16] = b"phial's clock:\0\0";

/// So many atoms at most: the VM's own limit is 1,048,576, and the code to be compiled makes some too.
const ATOMS: usize = 600_000;

/// What a base has of Erlang and Elixir, as far as this room needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// `start.boot` of OTP; none if the base has no Erlang.
    pub boot: Option<Vec<u8>>,
    /// `elixir_module` with a counter that starts anew; none if the base's cannot be changed.
    pub module: Option<Vec<u8>>,
    /// The atoms of every module in the base.
    pub atoms: BTreeSet<String>,
}

impl Toolchain {
    /// What a toolchain follows from beside its base: the digest of the two programs and of how atoms are read.
    pub fn made_by() -> Digest {
        Digest::of([TOOLCHAIN, COUNTER, include_str!("atoms.rs")].concat().as_bytes())
    }

    /// From what the script left in `dir`, and the trees of the base.
    pub fn read<'a>(dir: &Path, trees: impl Iterator<Item = &'a Path>) -> io::Result<Self> {
        let file = |name: &str| match fs::read(dir.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let mut atoms = BTreeSet::new();
        for root in trees {
            atoms::below(root, What::Modules, &[], &mut atoms)?;
        }
        Ok(Self { boot: file(BOOT)?, module: file(MODULE)?, atoms })
    }
}

/// The atoms of sources and compiled modules below `root`. What git keeps of a repository is left out.
pub fn atoms_below(root: &Path, atoms: &mut BTreeSet<String>) -> io::Result<()> {
    if root.is_dir() { atoms::below(root, What::Texts, &[".git", "node_modules"], atoms) } else { Ok(()) }
}

/// The atoms of compiled modules below `root`, of their abstract code too.
pub fn compiled_atoms_below(root: &Path, atoms: &mut BTreeSet<String>) -> io::Result<()> {
    if root.is_dir() { atoms::below(root, What::WholeModules, &[], atoms) } else { Ok(()) }
}

/// A file that a step is given: its path on the host and inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShimFile {
    /// Where it was written.
    pub source: PathBuf,
    /// Where the step finds it.
    pub target: String,
}

/// Variables and files for a step; what stands in the environment already is kept in front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shims {
    /// Name and value.
    pub env: Vec<(&'static str, String)>,
    /// To be bound, read-only.
    pub files: Vec<ShimFile>,
}

/// The two times of [`Shims::with_clock`], in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedClock {
    /// The modification time of what the step finds; the clock stands an hour later.
    pub then: i64,
    /// When the step begins: what is written since is shown as written after `then`.
    pub began: i64,
}

impl Shims {
    /// Empty memory, for programs of glibc; nothing else reads the variable.
    pub fn new() -> Self {
        let zeroed = "glibc.malloc.perturb=255:glibc.malloc.tcache_count=0";
        Self { env: vec![("GLIBC_TUNABLES", zeroed.to_owned())], files: vec![] }
    }

    /// A clock that stands; its file is written to `dir`.
    pub fn with_clock(mut self, standing: FixedClock, dir: &Path) -> io::Result<Self> {
        let target = self.give(dir, "clock.so", &clock(standing))?;
        self.env.push(("LD_PRELOAD", target));
        Ok(self)
    }

    /// Erlang VMs that begin with these atoms beside the toolchain's; the files are written to `dir`. Says how many atoms
    /// were too many.
    pub fn with_atoms(
        mut self,
        toolchain: &Toolchain,
        more: &BTreeSet<String>,
        dir: &Path,
    ) -> io::Result<(Self, usize)> {
        let Some(boot) = &toolchain.boot else { return Ok((self, 0)) };
        let all: BTreeSet<String> = toolchain.atoms.union(more).take(ATOMS).cloned().collect();
        let over = toolchain.atoms.union(more).count() - all.len();
        let module = toolchain.module.as_ref().map(|bytes| self.give(dir, MODULE, bytes)).transpose()?;
        let load = module.as_deref().and_then(|path| path.strip_suffix(".beam"));
        let invalid = |error: EtfError| io::Error::new(io::ErrorKind::InvalidData, error);
        let seeded = boot::seed(boot, &all, load).map_err(invalid)?;
        let target = self.give(dir, "seed.boot", &seeded)?;
        let boot = target.trim_end_matches(".boot");
        // `+MDe false`: drivers, PCRE among them, get their memory from malloc, which clears it.
        self.env.push(("ERL_AFLAGS", format!("-boot {boot} +MDe false")));
        Ok((self, over))
    }

    fn give(&mut self, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<String> {
        let source = dir.join(name);
        fs::write(&source, bytes)?;
        let target = format!("{INSIDE}/{name}");
        self.files.push(ShimFile { source, target: target.clone() });
        Ok(target)
    }
}

fn clock(standing: FixedClock) -> Vec<u8> {
    let mut bytes = CLOCK.to_vec();
    let at = bytes.windows(MARK.len()).position(|window| window == MARK).map_or(bytes.len(), |at| at + MARK.len());
    for (place, time) in bytes[at..].chunks_exact_mut(8).zip([standing.then, standing.began]) {
        place.copy_from_slice(&time.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_clock_stands_and_files_keep_their_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let date = Command::new("date").arg("+%s").output().expect("date").stdout;
        let began: i64 = String::from_utf8_lossy(&date).trim().parse().expect("a number");
        let shims = Shims::new().with_clock(FixedClock { then: 1_700_000_000, began }, dir.path()).expect("a clock");
        assert_eq!(shims.env[1], ("LD_PRELOAD", "/run/phial/clock.so".to_owned()));
        let said = Command::new("sh")
            .args(["-c", "date +%s; touch a; sleep 1.1; touch b; stat -c %Y a b; date +%s; ls -t"])
            .env("LD_PRELOAD", &shims.files[0].source)
            .current_dir(dir.path())
            .output()
            .expect("sh");
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[3]), ("1700003600", "1700003600"), "{text}{said:?}");
        let times: Vec<i64> = lines[1..3].iter().map(|line| line.parse().expect("a time")).collect();
        assert!(times[0] > 1_700_000_000 && times[1] > times[0] && times[1] < 1_700_000_100, "{text}");
        assert_eq!(&lines[4..6], ["b", "a"], "{text}");
    }
}
