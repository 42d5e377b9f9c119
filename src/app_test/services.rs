//! The services of a test: each in its own sandbox, from its own image, on the loopback interface of the tests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::error::TestError;
use super::log::{Log, file_name};
use super::test_sandbox::{TestSandbox, default_env};
use crate::config::{ReadyCheck, ServicePlan, TEST_LIMITS};
use crate::context::Context;
use crate::error::Error;
use crate::event::Event;
use crate::rootfs;
use crate::runtime::{ResolvedImage, RuntimeError, environment, resolv_conf, user};
use crate::sandbox::{self, Exit, OURSELVES, Ready, SandboxError, SandboxEvent, Spec};
use crate::store::TreeCheck;

/// How often the state of services and commands is looked at.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A service that can be started.
pub(super) struct PreparedService {
    name: String,
    spec: Spec,
    timeout: Duration,
    log: PathBuf,
}

/// Fetches the image of a service and assembles its root filesystem.
pub(super) fn prepare_service(
    name: &str,
    service: &ServicePlan,
    sandbox: &TestSandbox<'_>,
    context: &Context<'_>,
) -> Result<PreparedService, Error> {
    let start = context.step_started(name);
    let image = ResolvedImage::resolve(context, &service.image, None)?;
    let config = &image.image.config.config;
    let argv = service.command.clone().unwrap_or_else(|| [config.entrypoint.clone(), config.cmd.clone()].concat());
    if argv.first().is_none_or(String::is_empty) {
        return Err(RuntimeError::NoCommand.into());
    }
    let trees = image.trees(context, TreeCheck::Entries)?;
    let account = user(&trees, service.user.as_deref().unwrap_or(&config.user))?;
    let rootfs = rootfs::assemble(sandbox.isolation, &trees, &sandbox.scratch.dir(&format!("service-{name}"))?)?;
    context.step_finished(name, image.image.manifest_digest.as_str(), Some(start));
    let mut env = default_env(&account.home);
    env.extend(environment(&image.image));
    env.extend(service.env.clone());
    let spec = Spec {
        env,
        cwd: config.directory(),
        user: account.ids,
        network: sandbox.network,
        tmpfs: service.tmpfs.clone(),
        ready: service.ready.clone().map(|probe| match probe {
            ReadyCheck::Command(argv) => Ready::Command(argv),
            ReadyCheck::Port(port) => Ready::Port(port),
        }),
        hosts: sandbox.hosts.to_owned(),
        resolv: resolv_conf(sandbox.network),
        limits: TEST_LIMITS,
        ..Spec::new(rootfs.root, argv)
    };
    let log = sandbox.scratch.path().join(file_name(&format!("service-{name}")));
    Ok(PreparedService { name: name.to_owned(), spec, timeout: service.timeout, log })
}

/// All services of a test.
pub(super) struct Services {
    all: Vec<RunningService>,
    /// Makes the sandboxes kill the services.
    stop: AtomicBool,
}

struct RunningService {
    name: String,
    timeout: Duration,
    status: Mutex<ServiceStatus>,
}

enum ServiceStatus {
    Starting,
    Ready,
    Ended { outcome: Result<Exit, SandboxError>, log: PathBuf, tail: Vec<String> },
}

impl Services {
    /// The services, not yet started.
    pub(super) fn new(prepared: &[PreparedService]) -> Self {
        let service = |one: &PreparedService| RunningService {
            name: one.name.clone(),
            timeout: one.timeout,
            status: Mutex::new(ServiceStatus::Starting),
        };
        Self { all: prepared.iter().map(service).collect(), stop: AtomicBool::new(false) }
    }

    /// Starts them all, each in a thread of its own: a sandbox ends with its thread.
    pub(super) fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        prepared: Vec<PreparedService>,
    ) -> Result<(), Error> {
        for (service, one) in self.all.iter().zip(prepared) {
            let mut log = Log::create(&one.log)?;
            scope.spawn(move || {
                let outcome =
                    sandbox::run_with_events(OURSELVES.as_ref(), &one.spec, &self.stop, &mut |message| match message {
                        SandboxEvent::Output(bytes) => log.push(bytes),
                        SandboxEvent::Ready => *service.status() = ServiceStatus::Ready,
                    });
                let (log, tail) = log.close();
                *service.status() = ServiceStatus::Ended { outcome, log, tail };
            });
        }
        Ok(())
    }

    /// Asks all services to end, and does not wait for it.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Waits until all services are ready.
    pub(super) fn wait_until_ready(&self, context: &Context<'_>) -> Result<(), Error> {
        let start = Instant::now();
        let mut waiting: Vec<&RunningService> = self.all.iter().collect();
        while !waiting.is_empty() {
            if context.cancel.load(Ordering::SeqCst) {
                return Err(SandboxError::Interrupted.into());
            }
            waiting.retain(|service| {
                let is_ready = matches!(*service.status(), ServiceStatus::Ready);
                if is_ready {
                    context.step_finished(&service.name, "ready", Some(start));
                }
                !is_ready
            });
            self.check()?;
            if let Some(slow) = waiting.iter().find(|service| start.elapsed() > service.timeout) {
                return Err(TestError::NotReady { name: slow.name.clone(), seconds: slow.timeout.as_secs() }.into());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// An error if a service has ended.
    pub(super) fn check(&self) -> Result<(), Error> {
        for service in &self.all {
            let mut status = service.status();
            let ServiceStatus::Ended { outcome: ended, .. } = &mut *status else { continue };
            let name = service.name.clone();
            // The error cannot be cloned: whoever asks first gets it.
            return Err(match std::mem::replace(ended, Err(SandboxError::Interrupted)) {
                Ok(exit) => TestError::ServiceEnded { name, outcome: outcome(exit) },
                Err(SandboxError::Interrupted) => TestError::ServiceEnded { name, outcome: "it was stopped".into() },
                Err(error) => TestError::Service { name, source: error.into() },
            }
            .into());
        }
        Ok(())
    }

    /// The log files of the services that have ended.
    pub(super) fn logs(&self) -> Vec<PathBuf> {
        let log = |service: &RunningService| match &*service.status() {
            ServiceStatus::Ended { log, .. } => Some(log.clone()),
            _ => None,
        };
        self.all.iter().filter_map(log).collect()
    }

    /// Reports the last lines of output of the services that have ended.
    pub(super) fn report_output(&self, context: &Context<'_>) {
        for service in &self.all {
            let ServiceStatus::Ended { tail, .. } = &*service.status() else { continue };
            for line in tail {
                let bytes = format!("{line}\n").into_bytes();
                (context.watch)(Event::CommandOutput { command: service.name.clone(), bytes });
            }
            if tail.is_empty() {
                context.notice(format!("the service `{}` wrote nothing", service.name));
            }
        }
    }
}

impl RunningService {
    fn status(&self) -> MutexGuard<'_, ServiceStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a process ended, for records and errors.
pub(super) fn outcome(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
    }
}
