//! Runs one command of a test in a sandbox until it exits, its time is up, a service ends, or the user interrupts.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::exunit::SummaryLines;
use super::log::Log;
use super::services::{POLL_INTERVAL, Services, outcome};
use crate::attest::CommandResult;
use crate::context::Context;
use crate::error::Error;
use crate::event::Event;
use crate::sandbox::{self, Exit, OURSELVES, SandboxError, Spec};

/// A command that is to run.
pub(super) struct TestCommand<'a> {
    /// What the settings call it.
    pub(super) name: &'a str,
    /// Its sandbox.
    pub(super) spec: Spec,
    /// How long it may take.
    pub(super) timeout: Duration,
    /// The services that must be running as long as it runs.
    pub(super) services: &'a Services,
}

/// A command that has ended.
pub(super) struct Finished {
    pub(super) result: CommandResult,
    /// The error of the service that ended first, if one did.
    pub(super) service_error: Option<Error>,
    /// Its output.
    pub(super) log: PathBuf,
}

/// Why a command was stopped.
enum Stop {
    Timeout,
    Service(Error),
}

/// Runs a command to its end. Its output is reported as it comes, and goes to `log`.
pub(super) fn run(command: &TestCommand<'_>, mut log: Log, context: &Context<'_>) -> Result<Finished, Error> {
    let start = context.step_started(command.name);
    let mut summary = SummaryLines::default();
    let watcher = Watcher { stop: AtomicBool::new(false), has_exited: AtomicBool::new(false) };
    let (exit, stop) = thread::scope(|scope| {
        let watching = scope.spawn(|| watcher.watch(command, context));
        let exit = sandbox::run(OURSELVES.as_ref(), &command.spec, &watcher.stop, &mut |bytes: &[u8]| {
            summary.push(bytes);
            log.push(bytes);
            (context.watch)(Event::CommandOutput { command: command.name.to_owned(), bytes: bytes.to_vec() });
        });
        watcher.has_exited.store(true, Ordering::SeqCst);
        (exit, watching.join().ok().flatten())
    });
    let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (outcome, passed, service_error) = match (exit, stop) {
        (Ok(exit), _) => (outcome(exit), exit == Exit::Code(0), None),
        (Err(SandboxError::Interrupted), Some(Stop::Timeout)) => {
            (format!("timed out after {} s", command.timeout.as_secs()), false, None)
        }
        (Err(SandboxError::Interrupted), Some(Stop::Service(error))) => (error.to_string(), false, Some(error)),
        (Err(error), _) => return Err(error.into()),
    };
    let (name, argv, counts) = (command.name.to_owned(), command.spec.argv.clone(), summary.counts());
    let result = CommandResult { name, argv, passed, outcome, counts, millis };
    Ok(Finished { result, service_error, log: log.close().0 })
}

/// Two flags between the thread that runs a command and the one that watches over it.
struct Watcher {
    /// Makes the sandbox kill the command.
    stop: AtomicBool,
    has_exited: AtomicBool,
}

impl Watcher {
    /// Stops the command when it has to end, and returns why; `None` if the user wants it or if it has exited.
    fn watch(&self, command: &TestCommand<'_>, context: &Context<'_>) -> Option<Stop> {
        let start = Instant::now();
        while !self.has_exited.load(Ordering::SeqCst) {
            let stop = if context.cancel.load(Ordering::SeqCst) {
                None
            } else if start.elapsed() > command.timeout {
                Some(Stop::Timeout)
            } else if let Err(error) = command.services.check() {
                Some(Stop::Service(error))
            } else {
                thread::sleep(POLL_INTERVAL);
                continue;
            };
            self.stop.store(true, Ordering::SeqCst);
            return stop;
        }
        None
    }
}
