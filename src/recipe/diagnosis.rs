//! Why a step failed, as far as its output says so: a hint for an error whose own message does not say what to do.
//!
//! The output is read here and not in the script: a script that reads the output of its commands waits for every process
//! that holds it, such as a compiler cache that make started.

use std::collections::BTreeSet;

use super::{Recipe, Script, Step};
use crate::image::rfc3339;

/// Programs that dependencies need, in the order in which they are reported.
const TOOLS: [&str; 8] = ["git", "make", "cc", "gcc", "c++", "g++", "cmake", "cargo"];
/// The hint for a step that asks git.
const NO_REPOSITORY: &str = "there is no `.git` in an image: while the app is compiled, the commit is in `PHIAL_COMMIT` and its time, \
     in seconds since 1970, in `PHIAL_COMMIT_TIME`";
/// What clients of TLS say of a certificate whose time is not now, in lower case: Erlang, `OpenSSL` and what is linked with it (curl,
/// git, Node, Python), `GnuTLS` and wget, rustls, NSS, mbed TLS.
const OUT_OF_TIME: [&str; 16] = [
    "certificate_expired",
    "cert_expired",
    "certificate expired",
    "certificate has expired",
    "certificate is expired",
    "expired certificate",
    "cert_has_expired",
    "cert_not_yet_valid",
    "certificate is not yet valid",
    "certificate not yet valid",
    "certificate not valid yet",
    "not yet activated",
    "not yet been activated",
    "invalid peer certificate: expired",
    "notvalidyet",
    "validity starts in the future",
];
/// The hint for a script that was written on Windows.
const WINDOWS: &str = "the lines of a script end as on Windows: convert it, for example by `sed -i 's/\\r$//' FILE`";
/// Who is asked for an owner that a file cannot get, with [`REFUSED`] on the same line: `chown`, `chgrp`, `install`, GNU tar, cp,
/// dpkg, rsync, Elixir and others.
const OWNER: [&str; 6] = ["chown", "chgrp", "owner", "changing group", "change group", "preserve group"];
/// Who is asked to run as another user: su, chroot, setpriv, apt and others.
const OTHER_USER: [&str; 8] =
    ["set groups", "setgroups", "supplemental groups", "setuid", "setgid", "seteuid", "setresuid", "setresgid"];
/// `EINVAL` and `EPERM`: the kernel's answers for an id that is not mapped, and without the right.
const REFUSED: [&str; 4] = ["invalid argument", "einval", "operation not permitted", "eperm"];
/// The longest line that is looked at, in bytes.
const MAX_LINE: usize = 4096;

/// The user ids that a step has, which decide about the owners that it can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepIds {
    /// One, as the settings want.
    One,
    /// One, although the settings want a range: the machine maps none.
    NoRange,
    /// A range.
    Range,
    /// Those of the machine: root in a chroot.
    All,
}

/// What the lines of a step's output say.
#[derive(Debug)]
pub struct Diagnosis<'a> {
    recipe: &'a Recipe,
    is_deps: bool,
    /// The time that the step's clock shows, in seconds since 1970; `None` if it is the machine's.
    stands_at: Option<i64>,
    ids: StepIds,
    /// The line that has no end yet.
    unfinished: Vec<u8>,
    missing_tools: BTreeSet<&'static str>,
    /// Whether the line before is Erlang's `:enoent`, which does not say what is missing.
    is_after_enoent: bool,
    /// The first program that Elixir was asked to start and did not find.
    missing_program: Option<String>,
    found: BTreeSet<Symptom>,
}

/// A kind of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Symptom {
    NoHex,
    NoRebar,
    NoRebar3,
    StaleLock,
    /// A file that the deps step does not see.
    MissingFile,
    /// The same, of which Mix only warns.
    MissingDependency,
    /// A dependency with a path above the app is missing, of which Mix only warns.
    MissingPath,
    /// Something is wrong with a dependency with a path above the app.
    ListedPath,
    /// A dependency is not there.
    Unavailable,
    /// An owner, or another user, that the step's ids do not give.
    Owner,
    /// A disk is full.
    NoSpace,
    /// git was asked about the app's repository.
    NoRepository,
    /// A certificate was refused because of its time.
    Certificate,
    /// A script has line ends of Windows.
    CarriageReturn,
}

impl<'a> Diagnosis<'a> {
    /// For the output of `step`. `stands_at` is the time that its clock shows, in seconds since 1970, if it stands.
    pub fn new(recipe: &'a Recipe, step: &Step, stands_at: Option<i64>, ids: StepIds) -> Self {
        let is_deps = step.name.split(' ').next() == Some("deps");
        Self {
            recipe,
            is_deps,
            stands_at,
            ids,
            unfinished: vec![],
            missing_tools: BTreeSet::new(),
            is_after_enoent: false,
            missing_program: None,
            found: BTreeSet::new(),
        }
    }

    /// Adds output, which may begin and end anywhere in a line.
    pub fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let more = MAX_LINE.saturating_sub(self.unfinished.len()).min(text.len());
            self.unfinished.extend_from_slice(&text[..more]);
            if text.len() < piece.len() {
                self.line();
            }
        }
    }

    fn line(&mut self) {
        let bytes = std::mem::take(&mut self.unfinished);
        let line = String::from_utf8_lossy(&bytes);
        self.missing_tools.extend(TOOLS.into_iter().filter(|tool| is_missing(&line, tool)));
        if self.is_after_enoent && self.missing_program.is_none() {
            self.missing_program = started_program(&line);
        }
        self.is_after_enoent = line.contains("Erlang error: :enoent");
        let lower = line.to_lowercase();
        let has = |texts: &[&str]| texts.iter().any(|text| lower.contains(text));
        for (symptom, is_found) in [
            (Symptom::NoHex, has(&["could not install hex"])),
            (Symptom::NoRebar, has(&["could not install rebar"])),
            (Symptom::NoRebar3, has(&["could not find \"rebar3\" to compile"])),
            (Symptom::StaleLock, has(&["lock is out of date"])),
            (
                Symptom::MissingFile,
                has(&[
                    "no such file or directory",
                    "enoent",
                    "could not load ",
                    "could not find ",
                    "dependency is not available",
                ]),
            ),
            (Symptom::MissingDependency, lower.starts_with("warning: missing dependency ")),
            (Symptom::MissingPath, lower.starts_with("warning: missing dependency ") && has(&[" (../"])),
            (Symptom::ListedPath, lower.starts_with("* ") && has(&[" (../"])),
            (Symptom::Unavailable, has(&["the dependency is not available"])),
            (Symptom::NoRepository, has(&["not a git repository"])),
            (Symptom::Certificate, has(&OUT_OF_TIME)),
            // As bash, env of GNU, and dash or busybox show the character.
            (
                Symptom::CarriageReturn,
                has(&["$'\\r'", "\\r': no such file", "\\r’: no such file", "^m: bad interpreter"]),
            ),
            (Symptom::CarriageReturn, has(&["\r: not found", "\r': no such file", "illegal option -\r"])),
            (Symptom::NoSpace, has(&["no space left on device", "enospc", "disk quota exceeded"])),
            (Symptom::Owner, has(&REFUSED) && (has(&OWNER) || has(&OTHER_USER))),
        ] {
            if is_found {
                self.found.insert(symptom);
            }
        }
    }

    /// What to say after a step that succeeded, if there is anything. `misses_repository` tells whether git found no repository,
    /// although the output may not say so.
    pub fn warning(mut self, misses_repository: bool) -> Option<String> {
        self.line();
        if misses_repository || self.found.contains(&Symptom::NoRepository) {
            return Some(format!("the step asked git, and {NO_REPOSITORY}"));
        }
        if let Some(text) = self.clock() {
            return Some(format!("the step refused a certificate: {text}"));
        }
        let is_warned = self.is_mix_deps() && self.found.contains(&Symptom::MissingDependency);
        is_warned.then(|| if self.misses_path() { self.path_dependency().into() } else { self.inputs() })
    }

    /// Whether a step that failed had no space to write to.
    pub fn is_out_of_space(&mut self) -> bool {
        self.line();
        self.found.contains(&Symptom::NoSpace)
    }

    /// What to do about a step that failed. `has_program` tells whether the base image has a program.
    pub fn hint(mut self, has_program: impl Fn(&str) -> bool) -> Option<String> {
        self.line();
        let found = |symptom| self.found.contains(&symptom);
        if found(Symptom::NoSpace) {
            return Some(
                "free space on the disk that holds the cache; `/tmp` is in memory, and takes half of it".into(),
            );
        }
        if let Some(text) = self.clock() {
            return Some(text);
        }
        if found(Symptom::CarriageReturn) {
            return Some(WINDOWS.into());
        }
        if found(Symptom::Owner) {
            return Some(owner(self.ids).into());
        }
        if found(Symptom::NoRepository) {
            return Some(NO_REPOSITORY.into());
        }
        if self.recipe.script != Script::BuiltIn {
            return None;
        }
        let absent = |tool: &&str| self.missing_tools.contains(tool) && !has_program(tool);
        if let Some(tool) = TOOLS.iter().find(|tool| absent(tool)) {
            return Some(self.missing(tool));
        }
        if let Some(program) = self.missing_program.as_ref().filter(|program| !has_program(program)) {
            return Some(self.missing(program));
        }
        if found(Symptom::NoHex) || found(Symptom::NoRebar) {
            return Some("add Hex and rebar3 to the base image: it has none, and they could not be downloaded".into());
        }
        if found(Symptom::NoRebar3) {
            return Some("add `rebar3` to the base image: it has none, and a dependency needs it".into());
        }
        if self.is_deps && found(Symptom::StaleLock) {
            return Some(self.lock());
        }
        if self.misses_path() {
            return Some(self.path_dependency().into());
        }
        (self.is_mix_deps() && found(Symptom::MissingFile)).then(|| self.inputs())
    }

    /// What to do about a certificate that was refused by a clock that stands.
    fn clock(&self) -> Option<String> {
        let time = self.stands_at.filter(|_| self.found.contains(&Symptom::Certificate))?;
        Some(format!(
            "the clock of this step stands at {}, and the certificate is for another time: set `prepare.clock = \"real\"` in \
             `phial.toml` (code that stores the time while it is compiled then differs in each build)",
            rfc3339(time)
        ))
    }

    fn missing(&self, program: &str) -> String {
        let needed_by = if self.is_deps { "a dependency" } else { "the app" };
        let ours = match program {
            "git" | "make" | "cc" | "gcc" | "c++" | "g++" => "; one of `phial base debian --for elixir` has it",
            _ => "",
        };
        format!("add `{program}` to the base image: it has none, and {needed_by} needs it{ours}")
    }

    fn is_mix_deps(&self) -> bool {
        self.is_deps && self.recipe.script == Script::BuiltIn
    }

    fn lock(&self) -> String {
        let lock = self.recipe.lock_path();
        let other = match self.recipe.lockfile {
            None => "; if mix.exs has `lockfile:`, name that file in `prepare.lockfile`",
            Some(_) => "",
        };
        format!("run `mix deps.get` and commit `{lock}`{other}")
    }

    fn misses_path(&self) -> bool {
        let found = |symptom| self.found.contains(&symptom);
        found(Symptom::MissingPath) || (found(Symptom::ListedPath) && found(Symptom::Unavailable))
    }

    fn path_dependency(&self) -> &'static str {
        if self.recipe.app.is_root() {
            "commit the dependency: a step sees only files of the commit"
        } else {
            "a path that `mix.exs` computes is not known: name the dependency's directory, by its path from the root of the \
             repository, in `image.include` in `phial.toml`"
        }
    }

    fn inputs(&self) -> String {
        let lock = self.recipe.lock_path();
        format!(
            "the deps step sees only mix.exs, {lock}, config/ and committed dependencies: \
             name other files that it reads, such as those of `config_path:`, in `prepare.inputs` in `phial.toml`"
        )
    }
}

/// What to do about an owner that these ids do not give.
fn owner(ids: StepIds) -> &'static str {
    match ids {
        StepIds::One => {
            "with one user id, no file can get another owner and no process another user: set `prepare.ranges = true` in `phial.toml`"
        }
        StepIds::NoRange => {
            "`prepare.ranges` is set, and this machine maps no range of ids: give the user one in `/etc/subuid` and `/etc/subgid`, and \
             install `newuidmap` (package `uidmap`)"
        }
        StepIds::Range => {
            "the mapped range of ids does not have this owner: give the user a larger one in `/etc/subuid` and `/etc/subgid`"
        }
        StepIds::All => {
            "the container that Phial runs in lacks a right of root: it needs `CAP_CHOWN`, `CAP_FOWNER`, `CAP_SETUID` and `CAP_SETGID`"
        }
    }
}

/// The program that a line of a stack trace starts by name: `System.cmd("make", …)` or `:erlang.open_port({:spawn_executable,
/// "make"}, …)`.
fn started_program(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("System.cmd(\"").or_else(|| line.split_once("{:spawn_executable, \""))?;
    let (name, _) = rest.split_once('"')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
    (!name.is_empty() && name.chars().all(is_name)).then(|| name.to_owned())
}

/// Whether a shell, make or Mix says that a program does not exist.
fn is_missing(line: &str, tool: &str) -> bool {
    line.match_indices(tool).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + tool.len()..]);
        let unquoted = before.strip_suffix('"').unwrap_or(before);
        // Of another directory than these, it is a script of the app or of a package.
        let in_path = ["/bin/", "/usr/bin/", "/usr/local/bin/"];
        let is_word = |before: &str| {
            let word = before.rsplit([' ', ':']).next().unwrap_or_default();
            word.is_empty() || in_path.contains(&word)
        };
        let rest = after.strip_prefix('"').unwrap_or(after);
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        let is_not_found = rest.starts_with(" not found") || rest.starts_with(" command not found");
        (is_word(unquoted) && is_not_found) || (is_word(before) && after.starts_with(": No such file"))
    })
}

#[cfg(test)]
mod tests;
