//! Everything that is printed: events and errors on stderr, results on stdout. It reads well without colours, on a terminal
//! and in the log of a CI.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;

use super::cli_error::CliError;
use super::format::seconds;
use super::progress::Progress;
use crate::error::{Error, chain};
use crate::event::Event;

/// `--progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressStyle {
    /// `tty` on a terminal, otherwise `plain`
    Auto,
    /// Lines and bars that change in place
    Tty,
    /// A line for each event
    Plain,
    /// Errors only
    Quiet,
}

/// Prints events, results and errors; no other module prints.
pub(super) struct Ui {
    style: Style,
    /// By step or command: output after its last newline.
    open_lines: Mutex<BTreeMap<String, Vec<u8>>>,
}

enum Style {
    Terminal(Progress),
    Plain,
    Quiet,
}

/// Bytes of output without a newline that are printed as a line.
const MAX_LINE: usize = 8192;

impl Ui {
    /// A user interface in this style.
    pub(super) fn new(style: ProgressStyle) -> Self {
        let style = match style {
            ProgressStyle::Auto if io::stderr().is_terminal() => Style::Terminal(Progress::default()),
            ProgressStyle::Tty => Style::Terminal(Progress::default()),
            ProgressStyle::Auto | ProgressStyle::Plain => Style::Plain,
            ProgressStyle::Quiet => Style::Quiet,
        };
        Self { style, open_lines: Mutex::default() }
    }

    /// Prints an event.
    pub(super) fn event(&self, event: Event) {
        if let Style::Quiet = self.style {
            return;
        }
        match event {
            Event::StepStarted { step } => {
                if let Style::Terminal(progress) = &self.style {
                    progress.start_step(&step);
                }
            }
            Event::StepFinished { step, note, millis } => {
                self.flush(&step);
                if let Style::Terminal(progress) = &self.style {
                    progress.end_step(&step);
                }
                let time = if millis == 0 { String::new() } else { format!("  {}", seconds(millis)) };
                self.info(&format!("{step:<18} {note}{time}"));
            }
            Event::StepOutput { step, bytes } => {
                for line in self.complete_lines(&step, &bytes) {
                    match &self.style {
                        Style::Terminal(progress) => progress.output(&step, line),
                        _ => self.info(&line),
                    }
                }
            }
            Event::CommandOutput { command, bytes } => {
                self.complete_lines(&command, &bytes).iter().for_each(|line| self.info(line));
            }
            Event::BytesTransferred { digest, done, total } => {
                if let Style::Terminal(progress) = &self.style {
                    progress.transfer(&digest, done, total);
                }
            }
            Event::Notice { text } => self.info(&format!("note: {text}")),
        }
    }

    /// The lines that a piece of output completes, each behind the name of its step, so that none passes for one of Phial.
    fn complete_lines(&self, step: &str, bytes: &[u8]) -> Vec<String> {
        let mut open_lines = self.open_lines.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open_lines.entry(step.to_owned()).or_default();
        let mut lines = vec![];
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            open.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            if piece.ends_with(b"\n") || open.len() > MAX_LINE {
                lines.push(output_line(step, &std::mem::take(open)));
            }
        }
        lines
    }

    /// Prints what a step wrote after its last newline.
    fn flush(&self, step: &str) {
        let rest = self.open_lines.lock().unwrap_or_else(PoisonError::into_inner).remove(step).unwrap_or_default();
        if !rest.is_empty() {
            self.info(&output_line(step, &rest));
        }
    }

    /// Prints a line on stderr, unless `--progress quiet` forbids it.
    pub(super) fn info(&self, text: &str) {
        let print = || drop(writeln!(io::stderr().lock(), "{text}"));
        match &self.style {
            Style::Terminal(progress) => progress.print(print),
            Style::Plain => print(),
            Style::Quiet => {}
        }
    }

    /// Removes the lines that change.
    pub(super) fn clear_progress(&self) {
        if let Style::Terminal(progress) = &self.style {
            progress.clear();
        }
    }

    /// Prints a result on stdout: one line, or several of a list.
    pub(super) fn data(&self, text: &str) -> Result<(), CliError> {
        self.clear_progress();
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(CliError::Stdout)
    }

    /// Prints an error: its causes in one line, the last output of the program that failed, and the hint.
    pub(super) fn error(&self, error: &Error) {
        let mut text = chain(error);
        if !error.output().is_empty() {
            text.push_str("; its last lines:");
            error.output().iter().for_each(|line| text = format!("{text}\n  | {line}"));
        }
        self.error_text(&text, error.hint().as_deref());
    }

    /// Prints an error that is not an [`Error`].
    pub(super) fn error_text(&self, text: &str, hint: Option<&str>) {
        self.clear_progress();
        let mut out = io::stderr().lock();
        let _ = writeln!(out, "error: {text}");
        if let Some(hint) = hint {
            let _ = writeln!(out, "hint: {hint}");
        }
    }

    /// Prints that a signal ended the command; from any thread.
    pub(super) fn interrupted() {
        Self::last_line("error: interrupted");
    }

    /// Prints text right before the process exits, when the thread that draws the progress may be blocked.
    pub(super) fn last_line(text: &str) {
        let clear = if io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
        let _ = writeln!(io::stderr().lock(), "{clear}{text}");
    }
}

/// A line of output behind the name of its step: without colours and other control characters.
fn output_line(step: &str, line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    // Tabs are control characters to the stripper, and part of the text here.
    let cells: Vec<String> = line.split('\t').map(strip_ansi_escapes::strip_str).collect();
    let text: String = cells.join("\t").chars().filter(|c| !c.is_control() || *c == '\t').collect();
    format!("{step} | {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_printed_without_colours() {
        let text = |line: &str| output_line("s", line.as_bytes());
        assert_eq!(text("\u{1b}[1m\u{1b}[31mred\u{1b}[0m [1m \u{1b}[2Kx\ty\r"), "s | red [1m x\ty");
        assert_eq!(text("cut \u{1b}["), "s | cut ");
        assert_eq!(text("\u{1b}]0;title\u{7}text"), "s | text");
    }
}
