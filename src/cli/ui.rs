//! The one ui: what happened, on stderr; results, on stdout. Reads well without colour, on a terminal and in a CI log.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::cli_error::CliError;
use crate::error::{Error, chain};
use crate::event::Event;

/// How to talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Progress {
    /// `tty` on a terminal, else `plain`
    Auto,
    /// One line that changes
    Tty,
    /// A line for each thing that happens
    Plain,
    /// Errors only
    Quiet,
}

/// Prints; nobody else does.
pub(super) struct Ui {
    style: Progress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: BTreeMap<String, Vec<u8>>,
    line_up: bool,
    last: Option<Instant>,
}

/// How wide the changing line may be.
const WIDTH: usize = 78;

impl Ui {
    pub(super) fn new(style: Progress) -> Self {
        let style = match style {
            Progress::Auto if io::stderr().is_terminal() => Progress::Tty,
            Progress::Auto => Progress::Plain,
            chosen => chosen,
        };
        Self { style, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says an event.
    pub(super) fn hear(&self, event: Event) {
        if self.style == Progress::Quiet {
            return;
        }
        match event {
            Event::StepStarted { step } => self.change(&format!("{step} ...")),
            Event::StepFinished { step, note, millis } => {
                self.flush(&step);
                let time = if millis == 0 { String::new() } else { format!("  {}", seconds(millis)) };
                self.line(&format!("{step:<18} {note}{time}"));
            }
            Event::StepOutput { step, bytes } => self.output(&step, &bytes, self.style == Progress::Tty),
            Event::CommandOutput { command, bytes } => self.output(&command, &bytes, false),
            Event::BytesTransferred { digest, done, total } => {
                let percent = (done * 100).checked_div(total).unwrap_or(100);
                self.change(&format!("{} {percent} % of {}", &digest.hex()[..12], size(total)));
            }
            Event::Notice { text } => self.line(&format!("note: {text}")),
        }
    }

    /// Whole lines of a step's output, each with the step before it, so that none can pass for ours.
    /// They stay, unless `passing`.
    fn output(&self, step: &str, bytes: &[u8], passing: bool) {
        let mut lines = vec![];
        {
            let mut state = self.state();
            let open = state.open.entry(step.to_owned()).or_default();
            for piece in bytes.split_inclusive(|b| *b == b'\n') {
                open.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
                if piece.ends_with(b"\n") || open.len() > 8192 {
                    lines.push(String::from_utf8_lossy(&std::mem::take(open)).into_owned());
                }
            }
        }
        for line in lines {
            self.step_line(step, &line, passing);
        }
    }

    fn step_line(&self, step: &str, line: &str, passing: bool) {
        let line: String = uncoloured(line).chars().filter(|c| !c.is_control() || *c == '\t').collect();
        if passing {
            self.change(&format!("{step} | {line}"));
        } else {
            self.line(&format!("{step} | {line}"));
        }
    }

    fn flush(&self, step: &str) {
        let rest = self.state().open.remove(step).unwrap_or_default();
        if !rest.is_empty() {
            self.step_line(step, &String::from_utf8_lossy(&rest), false);
        }
    }

    /// A line that stays.
    fn line(&self, text: &str) {
        let mut state = self.state();
        let clear = if std::mem::take(&mut state.line_up) { "\r\x1b[K" } else { "" };
        let _ = writeln!(io::stderr().lock(), "{clear}{text}");
    }

    /// A line that the next one replaces; on a terminal only, and not more often than anybody can read.
    fn change(&self, text: &str) {
        let mut state = self.state();
        let soon = state.last.is_some_and(|last| last.elapsed() < Duration::from_millis(50));
        if self.style != Progress::Tty || soon {
            return;
        }
        state.last = Some(Instant::now());
        state.line_up = true;
        let short: String = text.chars().take(WIDTH).collect();
        let _ = write!(io::stderr().lock(), "\r\x1b[K{short}");
    }

    /// Takes the changing line away.
    pub(super) fn quiet_line(&self) {
        if std::mem::take(&mut self.state().line_up) {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }

    /// Says something that is neither data nor an error.
    pub(super) fn say(&self, text: &str) {
        if self.style != Progress::Quiet {
            self.line(text);
        }
    }

    /// One line of data.
    pub(super) fn data(text: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(CliError::Stdout)
    }

    /// An error with its causes in one line, the last lines of output of the program that failed, and the hint.
    pub(super) fn error(&self, error: &Error) {
        let mut text = chain(error);
        if !error.output().is_empty() {
            text.push_str("; its last lines:");
            error.output().iter().for_each(|line| text = format!("{text}\n  | {line}"));
        }
        self.error_text(&text, error.hint().as_deref());
    }

    /// That a signal ended the command, said from any thread.
    pub(super) fn interrupted() {
        Self::last_word("error: interrupted");
    }

    /// What is said when nobody can take the changing line away any more.
    pub(super) fn last_word(text: &str) {
        let clear = if io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
        let _ = writeln!(io::stderr().lock(), "{clear}{text}");
    }

    /// An error that has no value of its own.
    pub(super) fn error_text(&self, text: &str, hint: Option<&str>) {
        self.quiet_line();
        let mut out = io::stderr().lock();
        let _ = writeln!(out, "error: {text}");
        if let Some(hint) = hint {
            let _ = writeln!(out, "hint: {hint}");
        }
    }
}

/// Without the sequences that set colours and move about (ECMA-48: CSI, parameters, a final letter).
fn uncoloured(line: &str) -> String {
    let mut pieces = line.split("\u{1b}[");
    let mut clean = pieces.next().unwrap_or("").to_owned();
    for piece in pieces {
        let rest = piece.trim_start_matches(|c| matches!(c, ' '..='?'));
        clean.push_str(rest.strip_prefix(|c| matches!(c, '@'..='~')).unwrap_or(piece));
    }
    clean
}

/// `12.3 s`.
pub(super) fn seconds(millis: u64) -> String {
    format!("{}.{:02} s", millis / 1000, millis % 1000 / 10)
}

/// `1.2 MB`, in powers of ten.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{}.{} kB", bytes / 1_000, bytes % 1_000 / 100),
        1_000_000..1_000_000_000 => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes % 1_000_000_000 / 100_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_leave_no_trace() {
        assert_eq!(uncoloured("\u{1b}[1m\u{1b}[31mred\u{1b}[0m [1m \u{1b}[2Kx"), "red [1m x");
        assert_eq!(uncoloured("cut \u{1b}["), "cut ");
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!([size(999), size(1_234), size(56_780_000)], ["999 B", "1.2 kB", "56.7 MB"]);
        assert_eq!(seconds(12_345), "12.34 s");
    }
}
