//! What runs beside the tests: each service in its own sandbox, from its own image, on the loopback of the tests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::TestError;
use super::command::ended;
use super::log::{Log, file_name};
use crate::config::{Probe, Service};
use crate::context::Context;
use crate::error::Error;
use crate::event::Event;
use crate::rootfs::{Isolation, assemble};
use crate::runtime::{ResolvedImage, RuntimeError, environment, resolv_conf, user};
use crate::sandbox::{self, Exit, Ids, Network, OURSELVES, Ready, Said, SandboxError, Spec, Stdio};
use crate::store::Scratch;

/// How often is looked.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// A service as it will be started.
pub(super) struct Prepared {
    name: String,
    order: Spec,
    timeout: Duration,
    log: PathBuf,
}

/// What all services have in common.
pub(super) struct Ground<'a> {
    pub(super) scratch: &'a Scratch,
    pub(super) isolation: Isolation,
    pub(super) network: Network,
    pub(super) hosts: &'a str,
}

/// Fetches the image of a service and stands its root filesystem.
pub(super) fn prepare(
    name: &str,
    service: &Service,
    ground: &Ground<'_>,
    context: &Context<'_>,
) -> Result<Prepared, Error> {
    let start = context.step_started(name);
    let base = ResolvedImage::resolve(context, &service.image, None)?;
    let image = &base.image.config.config;
    let argv = service.command.clone().unwrap_or_else(|| [image.entrypoint.clone(), image.cmd.clone()].concat());
    if argv.is_empty() {
        return Err(RuntimeError::NoCommand.into());
    }
    let trees = base.trees(context)?;
    let account = user(&trees, service.user.as_deref().unwrap_or(&image.user))?;
    let rootfs = assemble(ground.isolation, &trees, &ground.scratch.dir(&format!("service-{name}"))?)?;
    context.step_finished(name, base.image.manifest_digest.as_str(), Some(start));
    let mut env = super::least_env(&account.home);
    env.extend(environment(&base.image));
    env.extend(service.env.clone());
    let order = Spec {
        root: rootfs.root,
        argv,
        env,
        cwd: image.directory(),
        user: account.ids,
        network: ground.network,
        ids: Ids::Single,
        binds: vec![],
        tmpfs: service.tmpfs.clone(),
        ready: service.ready.clone().map(|probe| match probe {
            Probe::Command(argv) => Ready::Command(argv),
            Probe::Port(port) => Ready::Port(port),
        }),
        hosts: ground.hosts.to_owned(),
        resolv: resolv_conf(ground.network),
        stdio: Stdio::Stream,
        read_only: false,
    };
    let log = ground.scratch.path().join(file_name(&format!("service-{name}")));
    Ok(Prepared { name: name.to_owned(), order, timeout: service.timeout, log })
}

/// The lives of all services; dropped, it asks them to end.
pub(super) struct Services {
    all: Vec<Life>,
    stop: AtomicBool,
}

struct Life {
    name: String,
    timeout: Duration,
    state: Mutex<State>,
}

enum State {
    Starting,
    Ready,
    Ended { how: Result<Exit, SandboxError>, log: PathBuf, tail: Vec<String> },
}

impl Services {
    pub(super) fn new(prepared: &[Prepared]) -> Self {
        let life =
            |of: &Prepared| Life { name: of.name.clone(), timeout: of.timeout, state: Mutex::new(State::Starting) };
        Self { all: prepared.iter().map(life).collect(), stop: AtomicBool::new(false) }
    }

    /// Starts them all, each in a thread of its own: a sandbox ends with its thread.
    pub(super) fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        prepared: Vec<Prepared>,
    ) -> Result<(), Error> {
        for (life, one) in self.all.iter().zip(prepared) {
            let mut log = Log::new(&one.log)?;
            scope.spawn(move || {
                let how = sandbox::serve(OURSELVES.as_ref(), &one.order, &self.stop, &mut |said| match said {
                    Said::Output(bytes) => log.push(bytes),
                    Said::Ready => *life.state() = State::Ready,
                });
                let (log, tail) = log.end();
                *life.state() = State::Ended { how, log, tail };
            });
        }
        Ok(())
    }

    /// Asks all to end, at once.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Waits until all are ready.
    pub(super) fn until_ready(&self, context: &Context<'_>) -> Result<(), Error> {
        let start = Instant::now();
        let mut waiting: Vec<&Life> = self.all.iter().collect();
        while !waiting.is_empty() {
            if context.cancel.load(Ordering::SeqCst) {
                return Err(SandboxError::Interrupted.into());
            }
            waiting.retain(|life| {
                let ready = matches!(*life.state(), State::Ready);
                if ready {
                    context.step_finished(&life.name, "ready", Some(start));
                }
                !ready
            });
            self.check()?;
            if let Some(slow) = waiting.iter().find(|life| start.elapsed() > life.timeout) {
                return Err(TestError::NotReady { name: slow.name.clone(), seconds: slow.timeout.as_secs() }.into());
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Whether all are as they should be.
    pub(super) fn check(&self) -> Result<(), Error> {
        for life in &self.all {
            let mut state = life.state();
            let State::Ended { how, .. } = &mut *state else { continue };
            let name = life.name.clone();
            // An error has one reader.
            return Err(match std::mem::replace(how, Err(SandboxError::Interrupted)) {
                Ok(exit) => TestError::Ended { name, how: ended(exit) },
                Err(SandboxError::Interrupted) => TestError::Ended { name, how: "it was stopped".into() },
                Err(error) => TestError::Service { name, source: error.into() },
            }
            .into());
        }
        Ok(())
    }

    /// The logs, when all have ended.
    pub(super) fn logs(&self) -> Vec<PathBuf> {
        let log = |life: &Life| match &*life.state() {
            State::Ended { log, .. } => Some(log.clone()),
            _ => None,
        };
        self.all.iter().filter_map(log).collect()
    }

    /// Shows the last lines of all, when all have ended.
    pub(super) fn show(&self, context: &Context<'_>) {
        for life in &self.all {
            let State::Ended { tail, .. } = &*life.state() else { continue };
            for line in tail {
                (context.watch)(Event::CommandOutput {
                    command: life.name.clone(),
                    bytes: format!("{line}\n").into_bytes(),
                });
            }
            if tail.is_empty() {
                (context.watch)(Event::Notice { text: format!("the service `{}` wrote nothing", life.name) });
            }
        }
    }
}

impl Life {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
