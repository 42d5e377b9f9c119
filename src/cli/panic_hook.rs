//! A panic is printed like any other error and ends the process at once with exit code 70.

use std::panic::{self, PanicHookInfo};

use super::ui::Ui;
use crate::error::ExitKind;

/// From now on a panic of any thread is an error that ends the process.
///
/// There is no backtrace, whatever `RUST_BACKTRACE` says: the standard library makes it under a lock that its report of
/// exhausted memory waits for as well, and a process that ran out of memory over a backtrace stood still for good.
pub(super) fn own_panics() {
    panic::set_hook(Box::new(|info| {
        Ui::last_word(&format!("error: {}\nhint: {HINT}", text(info)));
        std::process::exit(ExitKind::Internal.code().into());
    }));
}

const HINT: &str = "if this process may have more memory and threads (`ulimit -a`) and it still happens, report it";

fn text(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let said = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref().map(String::as_str));
    let place = info.location().map(|place| format!(" at `{}:{}`", place.file(), place.line())).unwrap_or_default();
    format!("phial gave up{place}: {}", said.unwrap_or("for no reason given"))
}
