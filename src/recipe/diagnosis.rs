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
/// The longest line that is looked at, in bytes.
const MAX_LINE: usize = 4096;

/// What the lines of a step's output say.
#[derive(Debug)]
pub struct Diagnosis<'a> {
    recipe: &'a Recipe,
    is_deps: bool,
    /// The time that the step's clock shows, in seconds since 1970; `None` if it is the machine's.
    stands_at: Option<i64>,
    /// The line that has no end yet.
    unfinished: Vec<u8>,
    missing_tools: BTreeSet<&'static str>,
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
    /// An owner that one user id cannot give.
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
    pub fn new(recipe: &'a Recipe, step: &Step, stands_at: Option<i64>) -> Self {
        let is_deps = step.name.split(' ').next() == Some("deps");
        Self { recipe, is_deps, stands_at, unfinished: vec![], missing_tools: BTreeSet::new(), found: BTreeSet::new() }
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
            (Symptom::NoRepository, has(&["not a git repository"])),
            (Symptom::Certificate, has(&OUT_OF_TIME)),
            // As bash, env of GNU, and dash or busybox show the character.
            (
                Symptom::CarriageReturn,
                has(&["$'\\r'", "\\r': no such file", "\\r’: no such file", "^m: bad interpreter"]),
            ),
            (Symptom::CarriageReturn, has(&["\r: not found", "\r': no such file", "illegal option -\r"])),
            (Symptom::NoSpace, has(&["no space left on device", "enospc", "disk quota exceeded"])),
            (Symptom::Owner, has(&["chown", "ownership", "owner of"]) && has(&["invalid argument", "einval"])),
        ] {
            if is_found {
                self.found.insert(symptom);
            }
        }
    }

    /// What to say after a step that succeeded, if there is anything.
    pub fn warning(mut self) -> Option<String> {
        self.line();
        if self.found.contains(&Symptom::NoRepository) {
            return Some(format!("the step asked git, and {NO_REPOSITORY}"));
        }
        if let Some(text) = self.clock() {
            return Some(format!("the step refused a certificate: {text}"));
        }
        let is_warned = self.is_mix_deps() && self.found.contains(&Symptom::MissingDependency);
        is_warned.then(|| self.inputs())
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
            return Some(
                "with one user id, no file can get another owner: set `prepare.ranges = true` in `phial.toml`".into(),
            );
        }
        if found(Symptom::NoRepository) {
            return Some(NO_REPOSITORY.into());
        }
        if self.recipe.script != Script::BuiltIn {
            return None;
        }
        let absent = |tool: &&str| self.missing_tools.contains(tool) && !has_program(tool);
        if let Some(tool) = TOOLS.iter().find(|tool| absent(tool)) {
            return Some(format!("add `{tool}` to the base image: it has none, and a dependency needs it"));
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

    fn inputs(&self) -> String {
        let lock = self.recipe.lock_path();
        format!(
            "the deps step sees only mix.exs, {lock}, config/ and committed dependencies: \
             name other files that it reads, such as those of `config_path:`, in `prepare.inputs` in `phial.toml`"
        )
    }
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
mod tests {
    use std::collections::BTreeMap;

    use super::super::AppDir;
    use super::*;

    fn recipe(lockfile: Option<&str>) -> Recipe {
        let (envs, lockfile) = (vec!["prod".into()], lockfile.map(str::to_owned));
        Recipe {
            app: AppDir::default(),
            include: vec![],
            script: Script::BuiltIn,
            envs,
            inputs: vec![],
            lockfile,
            env: BTreeMap::new(),
        }
    }

    fn hint(recipe: &Recipe, step: &str, output: &str) -> String {
        let step = Step { name: step.into(), argv: vec![], env: None };
        let mut diagnosis = Diagnosis::new(recipe, &step, Some(1_700_003_600));
        output.as_bytes().chunks(3).for_each(|bytes| diagnosis.push(bytes));
        diagnosis.hint(|tool| tool == "gcc").unwrap_or_default()
    }

    #[test]
    fn a_missing_tool_is_named() {
        let recipe = recipe(None);
        for (output, tool) in [
            ("make: cc: No such file or directory", "cc"),
            ("/bin/sh: 1: make: not found\n", "make"),
            ("sh: c++: command not found\nmore", "c++"),
            ("** (Mix) \"make\" not found in the path", "make"),
        ] {
            let expected = format!("add `{tool}` to the base image");
            assert!(hint(&recipe, "deps prod", output).starts_with(&expected), "{output}");
        }
        assert!(!hint(&recipe, "build prod", "gcc: command not found").contains("gcc"), "the base has it");
        for output in ["remake: not found", "sh: ./script/make: not found", "/app/deps/x/cc: No such file or directory"]
        {
            assert!(!hint(&recipe, "build prod", output).contains("base image"), "{output}");
        }
    }

    #[test]
    fn files_that_the_deps_step_does_not_see_are_a_case_for_the_settings() {
        for output in [
            "** (File.Error) could not read file \"VERSION\": no such file or directory",
            "** (Mix) Could not find \"conf/config.exs\"",
        ] {
            assert!(hint(&recipe(None), "deps", output).contains("`prepare.inputs`"), "{output}");
            assert_eq!(hint(&recipe(None), "build prod", output), "", "the build sees every file");
        }
        let stale = "** (Mix) Your mix.lock is out of date and must be updated";
        let text = hint(&recipe(None), "deps", stale);
        assert!(text.contains("commit `mix.lock`") && text.contains("`prepare.lockfile`"), "{text}");
        let text = hint(&recipe(Some("locks/prod.lock")), "deps", stale);
        assert_eq!(text, "run `mix deps.get` and commit `locks/prod.lock`");
    }

    #[test]
    fn an_owner_that_one_id_cannot_give_is_a_case_for_ranges() {
        for output in [
            "chown: changing ownership of 'x': Invalid argument",
            "chown: x: Invalid argument",
            "tar: x: Cannot change ownership to uid 33, gid 33: Invalid argument",
        ] {
            assert!(hint(&recipe(None), "build prod", output).contains("`prepare.ranges = true`"), "{output}");
        }
    }

    #[test]
    fn a_certificate_of_another_time_is_a_case_for_the_clock() {
        for output in [
            // Erlang's ssl, as httpc and packages that use it print it
            "{:tls_alert, {:certificate_expired, ~c\"TLS client: In state wait_cert generated CLIENT ALERT: Fatal - Certificate Expired\"}}",
            "{:bad_cert, :cert_expired}",
            // OpenSSL, and with it curl, git, Python and Node
            "verify error:num=9:certificate is not yet valid",
            "curl: (60) SSL certificate problem: certificate is not yet valid",
            "fatal: unable to access 'https://x/': SSL certificate problem: certificate has expired",
            "Error: certificate is not yet valid code: 'CERT_NOT_YET_VALID'",
            // GnuTLS and wget
            "- Status: The certificate is NOT trusted. The certificate chain uses not yet activated certificate.",
            "  Issued certificate not yet valid.",
            "ERROR: The certificate of 'x' is not yet activated.",
            // rustls
            "invalid peer certificate: NotValidYet",
            "invalid peer certificate: certificate not valid yet: verification time 1700003600 (UNIX)",
            "invalid peer certificate: Expired",
            "invalid peer certificate: certificate expired: verification time 1700003600 (UNIX)",
        ] {
            let text = hint(&recipe(None), "deps prod", &format!("{output}\n** (File.Error) enoent"));
            assert!(
                text.contains("`prepare.clock = \"real\"`") && text.contains("2023-11-14T23:13:20Z"),
                "{output}: {text}"
            );
        }
        let (recipe, step) = (recipe(None), Step { name: "deps".into(), argv: vec![], env: None });
        let mut diagnosis = Diagnosis::new(&recipe, &step, None);
        diagnosis.push(b"curl: (60) SSL certificate problem: certificate has expired\n");
        assert_eq!(diagnosis.hint(|_| true), None, "by the machine's clock it is so");
        for output in ["unknown ca", "self-signed certificate", "hostname mismatch, certificate is not valid for 'x'"] {
            assert_eq!(hint(&recipe, "deps prod", output), "", "{output}");
        }
    }

    #[test]
    fn a_script_of_windows_is_not_taken_for_a_program_that_the_base_lacks() {
        for output in [
            "/usr/bin/env: ‘bash\\r’: No such file or directory",
            "/usr/bin/env: 'sh\r': No such file or directory",
            "./configure: line 2: $'\\r': command not found",
            "-bash: ./configure: /bin/sh^M: bad interpreter: No such file or directory",
            "./configure: 3: make\r: not found",
        ] {
            assert!(hint(&recipe(None), "deps prod", output).contains("end as on Windows"), "{output}");
        }
    }

    #[test]
    fn an_output_without_lines_is_bounded() {
        let (recipe, step) = (recipe(None), Step { name: "deps".into(), argv: vec![], env: None });
        let mut diagnosis = Diagnosis::new(&recipe, &step, None);
        (0..100).for_each(|_| diagnosis.push(&vec![b'x'; 1 << 16]));
        assert_eq!(diagnosis.unfinished.len(), MAX_LINE);
    }
}
