//! Runs the commands of a test one after the other in one root filesystem, with the services beside them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;

use super::TestRequest;
use super::artifacts;
use super::command::{self, Finished, TestCommand};
use super::error::TestError;
use super::log::{Log, file_name};
use super::reports::{Reports, written_dir};
use super::services::{self, Services};
use super::test_sandbox::{TestSandbox, default_env};
use crate::attest::CommandResult;
use crate::config::{NamedCommand, TEST_LIMITS, TestPlan};
use crate::context::Context;
use crate::error::{Error, chain};
use crate::event::Event;
use crate::recipe::AppDir;
use crate::rootfs::{self, Isolation};
use crate::runtime::{HOSTS, ResolvedImage, environment, resolv_conf};
use crate::sandbox::{Ids, Loopback, Network, OURSELVES, Root, Spec};
use crate::store::{Scratch, Tree};
use crate::tree::TreeRoot;

/// What the commands run in.
pub(super) struct Runner<'a> {
    pub(super) plan: &'a TestPlan,
    pub(super) image: &'a ResolvedImage,
    /// Trees of the root filesystem, topmost first.
    pub(super) trees: &'a [Tree],
    /// The directory of the app in the image.
    pub(super) app: &'a AppDir,
    pub(super) isolation: Isolation,
    pub(super) scratch: &'a Scratch,
    /// Variables beside the image's own.
    pub(super) env: &'a BTreeMap<String, String>,
}

/// The commands that ran.
#[derive(Default)]
pub(super) struct Results {
    pub(super) commands: Vec<CommandResult>,
    /// Why not all commands ran to their end: a service that was not ready or ended.
    pub(super) service_error: Option<Error>,
    /// Why the report, the logs or the artifacts are not where they were asked for.
    pub(super) output_error: Option<Error>,
    /// The output of each command.
    logs: Vec<PathBuf>,
}

impl Runner<'_> {
    /// Runs services and commands, and writes the report, logs and artifacts that `request` asks for.
    pub(super) fn run(
        &self,
        commands: &[NamedCommand],
        request: &TestRequest,
        context: &Context<'_>,
    ) -> Result<Results, Error> {
        let has_services = !self.plan.services.is_empty();
        let loopback = if has_services { Some(Loopback::open(OURSELVES.as_ref(), Ids::Single)?) } else { None };
        let network = loopback.as_ref().map_or(Network::None, Loopback::network);
        let names = self.plan.services.keys();
        let hosts = names.fold(HOSTS.to_owned(), |hosts, name| hosts + "127.0.0.1 " + name + "\n");
        let sandbox = TestSandbox { scratch: self.scratch, isolation: self.isolation, network, hosts: &hosts };

        let mut prepared = vec![];
        for (name, service) in &self.plan.services {
            prepared.push(services::prepare_service(name, service, &sandbox, context)?);
        }
        let rootfs = rootfs::assemble(self.isolation, self.trees, &self.scratch.dir("root")?)?;
        let mut reports = Reports::new(&rootfs.diff_source, self.app);
        let services = Services::new(&prepared);
        let mut results = thread::scope(|scope| {
            let _stop = StopOnDrop(&services);
            services.start(scope, prepared)?;
            let specs = commands.iter().map(|command| self.spec(&command.argv, rootfs.root.clone(), &sandbox));
            let commands = commands.iter().map(|command| command.name.as_str()).zip(specs);
            self.run_commands(commands, &services, &mut reports, context)
        })?;
        if results.service_error.is_some() || results.commands.iter().any(|command| !command.passed) {
            services.report_output(context);
        }
        results.logs.extend(services.logs());
        let written = written_dir(&rootfs.diff_source);
        match self.write_outputs(&results, &reports, &written, request) {
            Ok(missing) => missing.iter().for_each(|path| {
                context.notice(format!("`test.artifacts` names `{path}`, which does not exist"));
            }),
            Err(error) => results.output_error = Some(error),
        }
        Ok(results)
    }

    /// Writes the report, the logs and the artifacts that `request` asks for, and returns the artifacts that do not exist. `written` is
    /// what the commands wrote.
    fn write_outputs(
        &self,
        results: &Results,
        reports: &Reports,
        written: &TreeRoot,
        request: &TestRequest,
    ) -> Result<Vec<String>, Error> {
        if let Some(path) = &request.junit {
            path.write(reports.junit(&results.commands)?.as_bytes())?;
        }
        let Some(dir) = &request.artifacts else { return Ok(vec![]) };
        let dir = dir.create_dir()?;
        artifacts::copy_logs(&results.logs, &dir)?;
        artifacts::copy_artifacts(&self.plan.artifacts, self.app, written, self.trees, &dir)
    }

    /// Waits for the services, then runs commands, each with its sandbox, until one cannot go on for want of a service.
    fn run_commands<'c>(
        &self,
        commands: impl Iterator<Item = (&'c str, Spec)>,
        services: &Services,
        reports: &mut Reports,
        context: &Context<'_>,
    ) -> Result<Results, Error> {
        let mut results = Results::default();
        if let Err(error) = services.wait_until_ready(context) {
            if !error.downcast_ref().is_some_and(TestError::is_service_failure) {
                return Err(error);
            }
            results.service_error = Some(error);
            return Ok(results);
        }
        for (nth, (name, spec)) in commands.enumerate() {
            let log = Log::create(&self.scratch.path().join(format!("{}-{}", nth + 1, file_name(name))))?;
            let command = TestCommand { name, spec, timeout: self.plan.timeout, services };
            let Finished { mut result, service_error, log } = command::run(&command, log, context)?;
            match reports.read_new() {
                Ok(reported) => result.counts = result.counts.or(reported),
                // Whatever tests left there, how they ended is known.
                Err(error) => context.notice(format!("the reports of `{name}` are not read: {}", chain(&error))),
            }
            report(&result, context);
            results.commands.push(result);
            results.logs.push(log);
            if service_error.is_some() {
                results.service_error = service_error;
                break;
            }
        }
        Ok(results)
    }

    /// The sandbox of a command. It runs as root, as the steps that built the image: tests write where the image's user
    /// may not.
    fn spec(&self, argv: &[String], root: Root, sandbox: &TestSandbox<'_>) -> Spec {
        let mut env = default_env("/root");
        env.extend(environment(&self.image.image));
        env.extend(self.env.clone());
        Spec {
            env,
            cwd: self.image.image.config.config.directory(),
            network: sandbox.network,
            hosts: sandbox.hosts.to_owned(),
            resolv: resolv_conf(sandbox.network),
            limits: TEST_LIMITS,
            ..Spec::new(root, argv.to_vec())
        }
    }
}

/// Stops the services when the tests are over, whether they passed, failed or could not run.
struct StopOnDrop<'a>(&'a Services);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn report(command: &CommandResult, context: &Context<'_>) {
    let counts = command.counts.map_or_else(String::new, |counts| {
        let (tests, failures) = (count(counts.tests, "test"), count(counts.failures, "failure"));
        format!(", {tests}, {failures}, {} skipped", counts.skipped)
    });
    let verdict = if command.passed { "passed" } else { "failed" };
    let note = format!("{verdict} ({}{counts})", command.outcome);
    (context.watch)(Event::StepFinished { step: command.name.clone(), note, millis: command.millis.max(1) });
}

/// `1 test`, `2 tests`.
fn count(number: u64, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}
