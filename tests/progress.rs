//! How a build talks: on a terminal, in a log, and not at all. stdout is the one line whichever way.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;

use crate::harness::busybox::busybox_base;
use crate::harness::{Output, TestEnv, run, search_path};

/// A screen on which nothing scrolls.
const ROWS: NonZero<u16> = NonZero::new(200).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(80).unwrap();

/// Builds the small app afresh, with stdout in the file `out`; `on` gives the command that has stderr.
fn build(env: &TestEnv, progress: &str, on: impl FnOnce(&str, &Path) -> Command) -> (Output, String) {
    let app = env.dir().join("app");
    let source = if app.exists() { app.display().to_string() } else { env.shell_app().source().to_owned() };
    let (base, to) = (busybox_base().display().to_string(), env.path("image"));
    let line = format!(
        "{} build {source} --no-cache --base oci:{base} --to oci:{to} --progress {progress} >out",
        env!("CARGO_BIN_EXE_phial")
    );
    let mut command = on(&line, env.dir());
    command.env_clear().envs([
        ("PATH", search_path()),
        ("HOME", env.path("home")),
        ("SHELL", "/bin/sh".into()),
        ("TERM", "xterm".into()),
    ]);
    command.env("PHIAL_CACHE_DIR", env.cache()).current_dir(env.dir());
    let ran = run(command);
    let out = std::fs::read_to_string(env.dir().join("out")).expect("stdout");
    assert!(out.starts_with("oci:") && out.contains("@sha256:") && out.lines().count() == 1, "stdout: {out}");
    (ran, out)
}

/// With a new terminal as stderr: what is drawn on it is the command's stdout.
fn terminal(line: &str, _: &Path) -> Command {
    let mut script = Command::new("script");
    script.args([
        "--quiet",
        "--return",
        "--echo",
        "never",
        "--command",
        &format!("stty cols {COLUMNS}; {line}"),
        "/dev/null",
    ]);
    script
}

/// With a pipe as stderr, as in a CI's log.
fn log(line: &str, _: &Path) -> Command {
    let mut sh = Command::new("sh");
    sh.args(["-c", line]);
    sh
}

#[test]
fn on_a_terminal_a_line_changes_and_what_stays_is_readable() {
    let env = TestEnv::new();
    for progress in ["auto", "tty"] {
        let (ran, _) = build(&env, progress, terminal);
        let drawn = ran.ok();
        // Whole escape sequences at a time, so that every state of the screen is seen.
        let mut screen = vt100::Parser::new(ROWS, COLUMNS, 0);
        let mut changing = BTreeSet::new();
        for piece in drawn.split_inclusive(['\n', '\u{1b}']) {
            screen.process(piece.as_bytes());
            let rows = screen.screen().rows(0, COLUMNS.get()).map(|row| row.trim_end().to_owned());
            changing.extend(rows.filter(|row| row.ends_with(" ...")));
        }
        let stays: Vec<String> = screen.screen().rows(0, COLUMNS.get()).map(|row| row.trim_end().to_owned()).collect();
        assert!(!changing.is_empty(), "{progress}: {drawn:?}");
        assert!(stays.iter().any(|row| row.starts_with("build prod ")), "{progress}: {stays:?}");
        assert!(!stays.iter().any(|row| row.ends_with(" ...")), "nothing is left half-drawn: {stays:?}");
    }
}

#[test]
fn in_a_log_each_thing_has_a_line_and_nothing_is_drawn() {
    let env = TestEnv::new();
    let words = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  ").next().unwrap_or_default().to_owned()).collect()
    };
    let mut output = vec![];
    for progress in ["plain", "auto"] {
        let (ran, _) = build(&env, progress, log);
        let lines = words(&ran.stderr);
        ran.ok();
        assert!(lines.iter().any(|line| line.starts_with("build prod")), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains(['\r', '\u{1b}'])), "{lines:?}");
        output.push(lines);
    }
    assert_eq!(output[0], output[1], "without a terminal, `auto` is `plain`");
    let (ran, _) = build(&env, "plain", terminal);
    assert!(!ran.ok().contains('\u{1b}'), "`plain` draws on no terminal");
}

#[test]
fn quiet_prints_nothing_anywhere() {
    let env = TestEnv::new();
    for on in [terminal, log] {
        let (ran, _) = build(&env, "quiet", on);
        assert_eq!(ran.stderr, "");
        assert_eq!(ran.ok(), "");
    }
}
