//! A panic of any thread is printed like any other error, and ends the process at once with exit code 70.

use std::panic::{self, PanicHookInfo};

use super::ui::Ui;
use crate::error::ExitKind;

/// Installs the panic hook.
///
/// There is no backtrace, whatever `RUST_BACKTRACE` says: the standard library makes it while it holds a lock that its report of
/// exhausted memory waits for as well, so that a process that runs out of memory during a backtrace would hang.
pub(super) fn install() {
    panic::set_hook(Box::new(|info| {
        Ui::last_line(&format!("error: {}\nhint: {HINT}", text(info)));
        std::process::exit(ExitKind::Internal.code().into());
    }));
}

const HINT: &str = "if it happens again with more memory and threads allowed (`ulimit -a`), report it as a bug";

fn text(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let message = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref().map(String::as_str));
    let location = info.location().map(|at| format!(" at `{}:{}`", at.file(), at.line())).unwrap_or_default();
    format!("internal error{location}: {}", message.unwrap_or("no message"))
}
