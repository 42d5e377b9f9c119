//! One command of a test, watched: it ends by itself, when its time is up, or with the services that it needs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::junit::Closing;
use super::log::Log;
use super::services::{Services, TICK};
use crate::attest::Command;
use crate::context::Context;
use crate::error::Error;
use crate::event::Event;
use crate::sandbox::{self, Exit, OURSELVES, SandboxError, Spec};

/// What ends a command from outside.
enum Stop {
    TimeIsUp,
    Service(Error),
}

/// How a command ended, and what is left of it.
pub(super) struct Done {
    pub(super) command: Command,
    /// The service that ended, if one did.
    pub(super) trouble: Option<Error>,
    pub(super) log: PathBuf,
}

/// Runs a command to its end. Its output is told as it comes.
pub(super) fn run(
    name: &str,
    order: &Spec,
    limit: Duration,
    (lives, mut log): (&Services, Log),
    context: &Context<'_>,
) -> Result<Done, Error> {
    let start = context.step_started(name);
    let mut closing = Closing::default();
    let (stop, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (exit, why) = thread::scope(|scope| {
        let watch = scope.spawn(|| watch(limit, lives, (&stop, &over), context));
        let exit = sandbox::run(OURSELVES.as_ref(), order, &stop, &mut |bytes: &[u8]| {
            closing.push(bytes);
            log.push(bytes);
            (context.watch)(Event::CommandOutput { command: name.to_owned(), bytes: bytes.to_vec() });
        });
        over.store(true, Ordering::SeqCst);
        (exit, watch.join().ok().flatten())
    });
    let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (ended, passed, trouble) = match (exit, why) {
        (Ok(exit), _) => (ended(exit), exit == Exit::Code(0), None),
        (Err(SandboxError::Interrupted), Some(Stop::TimeIsUp)) => {
            (format!("no end within {} s", limit.as_secs()), false, None)
        }
        (Err(SandboxError::Interrupted), Some(Stop::Service(trouble))) => (trouble.to_string(), false, Some(trouble)),
        (Err(error), _) => return Err(error.into()),
    };
    let (log, _) = log.end();
    let (name, argv, counts) = (name.to_owned(), order.argv.clone(), closing.counts());
    Ok(Done { command: Command { name, argv, passed, ended, counts, millis }, trouble, log })
}

/// Sets `stop` when the command has to end, and says why; nothing if the user wants it, or if it is over.
fn watch(
    limit: Duration,
    lives: &Services,
    (stop, over): (&AtomicBool, &AtomicBool),
    context: &Context<'_>,
) -> Option<Stop> {
    let start = Instant::now();
    while !over.load(Ordering::SeqCst) {
        let why = if context.cancel.load(Ordering::SeqCst) {
            None
        } else if start.elapsed() > limit {
            Some(Stop::TimeIsUp)
        } else if let Err(trouble) = lives.check() {
            Some(Stop::Service(trouble))
        } else {
            thread::sleep(TICK);
            continue;
        };
        stop.store(true, Ordering::SeqCst);
        return why;
    }
    None
}

/// How a command ended, for records and errors.
pub(super) fn ended(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
    }
}
