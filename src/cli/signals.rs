//! SIGINT, SIGTERM and SIGHUP: sandboxes are killed at once; the process exits after two seconds if it has not by then.

use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::ui::Ui;

static CANCEL: AtomicBool = AtomicBool::new(false);
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// How long a command may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// How long printing the last line may take: the reader of stderr may have stopped reading.
const PRINT_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts the thread that waits for signals. The flag becomes true at the first signal; a second one ends the process at once.
pub(super) fn listen() -> io::Result<&'static AtomicBool> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if SIGNAL.swap(signal, Ordering::SeqCst) != 0 {
                std::process::exit(128 + signal);
            }
            CANCEL.store(true, Ordering::SeqCst);
            if thread::Builder::new().spawn(move || end(signal)).is_err() {
                end(signal); // in this thread, which then cannot wait for a second signal
            }
        }
    })?;
    Ok(&CANCEL)
}

/// Ends the process after [`GRACE`].
fn end(signal: i32) {
    thread::sleep(GRACE);
    let (sender, receiver) = mpsc::channel();
    let printer = thread::Builder::new().spawn(move || {
        Ui::interrupted();
        sender.send(())
    });
    if printer.is_ok() {
        let _ = receiver.recv_timeout(PRINT_TIMEOUT);
    }
    std::process::exit(128 + signal);
}

/// The exit code of the signal that came; `None` if none came.
pub(super) fn code() -> Option<ExitCode> {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => None,
        signal => Some(super::exit::of_signal(signal)),
    }
}
