//! One commit, one digest: real apps built in every way that must not matter.
//!
//! A cell is one way to build, an app in it a real build. `just test` runs the cells marked `quick`; `just matrix` runs all of
//! them, several times each and with every core kept busy, and prints cell, digest and time.

pub(crate) mod apps;
mod cells;

use std::process::Command;
use std::time::Instant;

use phial::host::Host;

use self::apps::Subject;
use self::cells::{BuildSetup, CELLS, Cell};
use crate::harness::run;
use crate::harness::skip::skip_part;

/// Whether this is `just matrix`, and how often each cell is built then.
fn full() -> Option<usize> {
    Host::read().var("PHIAL_MATRIX").and_then(|times| times.parse().ok())
}

#[expect(clippy::print_stdout, reason = "the table of `just matrix`")]
fn tell(line: &str) {
    println!("{line}");
}

/// Builds the app in each cell, and compares with a plain build.
fn check(subject: &Subject) {
    let busy = full().map(|_| Busy::start());
    let (plain, _) = built(subject, &CELLS[0]);
    let mut wrong = vec![];
    for cell in CELLS.iter().filter(|cell| full().is_some() || cell.is_quick(subject.name)) {
        if !cell.is_possible() {
            skip_part!(&format!("needs root: {}, {}", subject.name, cell.name));
            continue;
        }
        for _ in 0..full().unwrap_or(1) {
            let (digest, seconds) = built(subject, cell);
            let same = if digest == plain { "same" } else { "OTHER" };
            let short = &digest[..digest.len().min(19)];
            tell(&format!("{same} {:<9} {:<34} {short} {seconds:6.1} s", subject.name, cell.name));
            if digest != plain {
                wrong.push(format!("{}: {digest}", cell.name));
            }
        }
    }
    drop(busy);
    assert!(wrong.is_empty(), "{} plainly is {plain}, but\n{}", subject.name, wrong.join("\n"));
}

/// One build: its digest, and how many seconds it took.
fn built(subject: &Subject, cell: &Cell) -> (String, f64) {
    let mut setup = BuildSetup::new(subject);
    (cell.change)(&mut setup, subject);
    let start = Instant::now();
    let line = setup.build(subject, "HEAD");
    (line.rsplit_once('@').expect("TARGET@digest").1.to_owned(), start.elapsed().as_secs_f64())
}

/// Programs that keep every core busy, until this is dropped.
struct Busy(Vec<std::process::Child>);

impl Busy {
    fn start() -> Self {
        let one = |_| {
            let mut sh = Command::new("sh");
            sh.args(["-c", "while :; do :; done"]);
            sh.spawn().expect("sh")
        };
        Self((0..Host::read().cores.get()).map(one).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn modules_full_of_chance_have_one_digest() {
    let subject = Subject::stress();
    check(&subject);
    let (env, image) = subject.image();
    let output = run(env.phial(["run", &image])).ok();
    assert!(output.starts_with("64 modules"), "{output}");
    let output = run(env.phial(["run", "--user", "0", &image, "--", "mix", "compile"]));
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), ""), "mix has nothing to compile: {}", output.stderr);
}

#[test]
fn packages_of_hex_and_git_with_nifs_have_one_digest() {
    check(&Subject::deps());
}

#[test]
fn an_umbrella_has_one_digest() {
    check(&Subject::plain("umbrella"));
}

#[test]
fn a_small_app_has_one_digest() {
    check(&Subject::plain("hello"));
}

#[test]
fn an_app_of_shell_has_one_digest() {
    check(&Subject::plain("shell"));
}
