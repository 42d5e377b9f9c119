//! What changes on a terminal while a command works: a line for each step, a bar for each transfer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use phial_layers::Digest;

use super::format::size;

/// The lines below the text that stays. `indicatif` fits them to the terminal's width, and draws nothing where stderr is
/// not a terminal.
#[derive(Default)]
pub(super) struct Progress {
    lines: MultiProgress,
    bars: Mutex<Bars>,
}

#[derive(Default)]
struct Bars {
    /// Steps that have started and not finished.
    running: BTreeSet<String>,
    /// By step or command.
    lines: BTreeMap<String, ProgressBar>,
    transfers: BTreeMap<Digest, ProgressBar>,
}

impl Progress {
    fn bars(&self) -> MutexGuard<'_, Bars> {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes text that stays: `print` runs while the changing lines are away.
    pub(super) fn print(&self, print: impl FnOnce()) {
        self.lines.suspend(print);
    }

    /// Shows that a step runs.
    pub(super) fn start_step(&self, step: &str) {
        let mut bars = self.bars();
        bars.running.insert(step.to_owned());
        self.show(&mut bars, step, format!("{step} ..."));
    }

    /// Shows a line of a step's output. A step may report the output of several commands under names of their own.
    pub(super) fn output(&self, name: &str, line: String) {
        self.show(&mut self.bars(), name, line);
    }

    fn show(&self, bars: &mut Bars, name: &str, text: String) {
        let bar = bars.lines.entry(name.to_owned()).or_insert_with(|| self.lines.add(ProgressBar::no_length()));
        bar.set_style(style("{wide_msg}"));
        bar.set_message(text);
    }

    /// Removes the line of a step, and all lines when no step runs any more.
    pub(super) fn end_step(&self, step: &str) {
        let mut bars = self.bars();
        bars.running.remove(step);
        let line = bars.lines.remove(step);
        let is_last = bars.running.is_empty();
        drop(bars);
        if let Some(bar) = line {
            self.remove(&bar);
        }
        if is_last {
            self.clear();
        }
    }

    /// Shows how many bytes of a blob have been transferred; a complete transfer disappears.
    pub(super) fn transfer(&self, digest: &Digest, done: u64, total: u64) {
        let mut bars = self.bars();
        if done >= total {
            if let Some(bar) = bars.transfers.remove(digest) {
                self.remove(&bar);
            }
            return;
        }
        let bar = bars.transfers.entry(digest.clone()).or_insert_with(|| {
            let bar = self.lines.add(ProgressBar::new(total));
            bar.set_style(style("{prefix} [{bar:30}] {percent:>3} % of {msg}").progress_chars("=> "));
            bar.set_prefix(digest.hex()[..12].to_owned());
            bar.set_message(size(total));
            bar
        });
        bar.set_position(done);
    }

    /// Removes all lines.
    pub(super) fn clear(&self) {
        let Bars { lines, transfers, .. } = std::mem::take(&mut *self.bars());
        lines.values().chain(transfers.values()).for_each(|bar| self.remove(bar));
    }

    fn remove(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        self.lines.remove(bar);
    }
}

/// A template of this file, all of which are valid.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
