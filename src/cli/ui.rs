//! Everything that is printed: events and errors on stderr, results on stdout. It reads well without colours, on a terminal
//! and in the log of a CI. All of it passes through [`escape`], since names, values and causes in it are foreign.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;
use clap::error::{ContextKind, ContextValue};

use super::cli_error::CliError;
use super::escape;
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
                    progress.start_step(&escape::line(&step));
                }
            }
            Event::StepFinished { step, note, millis } => {
                self.flush(&step);
                if let Style::Terminal(progress) = &self.style {
                    progress.end_step(&escape::line(&step));
                }
                let time = if millis == 0 { String::new() } else { format!("  {}", seconds(millis)) };
                self.info(&format!("{step:<18} {note}{time}"));
            }
            Event::StepOutput { step, bytes } => {
                for line in self.complete_lines(&step, &bytes) {
                    match &self.style {
                        Style::Terminal(progress) => {
                            progress.output(&escape::line(&step), escape::line(&line));
                        }
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
        let print = || drop(writeln!(io::stderr().lock(), "{}", escape::line(text)));
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
        self.stdout(&escape::lines(text))
    }

    /// Prints a result as JSON on stdout.
    pub(super) fn json(&self, text: &str) -> Result<(), CliError> {
        self.stdout(&escape::json(text))
    }

    fn stdout(&self, text: &str) -> Result<(), CliError> {
        self.clear_progress();
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(CliError::Stdout)
    }

    /// Prints an error: its causes in one line, the lines of the settings that it is about or the last output of the program that
    /// failed, and the hint.
    pub(super) fn error(&self, error: &Error) {
        let mut text = chain(error);
        if !error.output().is_empty() {
            text.push_str("; its last lines:");
        }
        let lines = error.excerpt().iter().chain(error.output());
        let lines: Vec<String> = lines.map(|line| format!("  | {}", escape::output(line.as_bytes()))).collect();
        self.error_lines(&text, &lines, error.hint().as_deref());
    }

    /// Prints an error that is not an [`Error`].
    pub(super) fn error_text(&self, text: &str, hint: Option<&str>) {
        self.error_lines(text, &[], hint);
    }

    fn error_lines(&self, text: &str, lines: &[String], hint: Option<&str>) {
        self.clear_progress();
        let mut out = io::stderr().lock();
        let _ = writeln!(out, "{}", escape::line(&format!("error: {text}")));
        for line in lines {
            let _ = writeln!(out, "{line}");
        }
        if let Some(hint) = hint {
            let _ = writeln!(out, "{}", escape::line(&format!("hint: {hint}")));
        }
    }

    /// Prints what the parser of the command line says of its arguments.
    pub(super) fn arguments(mut error: clap::Error) {
        let is_string = |(kind, value): (ContextKind, &ContextValue)| match value {
            ContextValue::String(text) => Some((kind, text.clone())),
            _ => None,
        };
        // An argument is on one line of the text, which has several.
        for (kind, text) in error.context().filter_map(is_string).collect::<Vec<_>>() {
            error.insert(kind, ContextValue::String(escape::line(&text)));
        }
        let text = error.render().to_string();
        let harmless = escape::lines(&text);
        if text.trim_end() == harmless.trim_end() {
            let _ = error.print(); // with colours, if they are shown
        } else {
            let _ = writeln!(io::stderr().lock(), "{harmless}");
        }
    }

    /// Prints that a signal ended the command; from any thread.
    pub(super) fn interrupted() {
        Self::last_line("error: interrupted");
    }

    /// Prints text right before the process exits, when the thread that draws the progress may be blocked.
    pub(super) fn last_line(text: &str) {
        let clear = if io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
        let _ = writeln!(io::stderr().lock(), "{clear}{}", escape::lines(text));
    }
}

/// A line of output behind the name of its step.
fn output_line(step: &str, line: &[u8]) -> String {
    format!("{step} | {}", escape::output(line))
}
