//! `phial test`: runs the app's own tests inside an image, with services beside them, and records the result.
//!
//! The root filesystem is assembled from trees of the store with a fresh writable layer that is removed afterwards; the
//! image never changes. Everything runs in sandboxes, whose processes the kernel kills when Phial ends.

mod artifacts;
mod command;
mod error;
mod exunit;
#[doc(hidden)]
pub mod fuzz;
mod junit;
mod log;
mod partition;
mod reports;
mod runner;
mod services;
mod test_sandbox;

use std::collections::BTreeMap;
use std::path::PathBuf;

use phial_layers::Digest;

pub use error::TestError;

use self::runner::{Results, Runner};
use crate::attest::{self, ImageLocation, Partition, TestRun};
use crate::build::TestDeps;
use crate::config::{self, FileConfig, NamedCommand, SettingsOrigin, TestCommands, TestFlags, TestPlan};
use crate::context::Context;
use crate::error::{Error, IoError};
use crate::image::{Descriptor, Reference};
use crate::recipe::AppDir;
use crate::rootfs::{ImageFiles, Isolation};
use crate::runtime::{IsolationChoice, ResolvedImage, app_of, choose, settings_of};
use crate::store::{Tree, TreeCheck};
use crate::tree::OutputPath;

/// One call of `phial test`.
#[derive(Debug)]
pub struct TestRequest {
    /// The image's reference, as the user wrote it.
    pub image: String,
    /// What the command line asks for.
    pub flags: TestFlags,
    /// Settings in place of the image's own `phial.toml`.
    pub config: Option<PathBuf>,
    /// Variables beside the image's: `NAME=value`, or `NAME` for the value that Phial itself has.
    pub env: Vec<String>,
    /// Names of the caller's variables that the step which compiles dependencies may see.
    pub pass: Vec<String>,
    /// `--partition`: `NTH/OF`.
    pub partition: Option<String>,
    /// How the tests are isolated.
    pub isolation: IsolationChoice,
    /// The file that a `JUnit` report is written to.
    pub junit: Option<OutputPath>,
    /// The directory that logs and `test.artifacts` are copied to.
    pub artifacts: Option<OutputPath>,
    /// Whether dependencies are compiled even if that result is cached.
    pub no_cache: bool,
}

/// Tests that ran; they may have failed.
#[derive(Debug)]
pub struct TestOutcome {
    /// The image's reference.
    pub image: Reference,
    /// The descriptor of the manifest that was tested.
    pub subject: Descriptor,
    /// What ran, and how it ended.
    pub run: TestRun,
    /// Why not all commands ran to their end: a service that was not ready or ended.
    pub service_error: Option<Error>,
    /// Why the report, the logs or the artifacts are not where they were asked for.
    pub output_error: Option<Error>,
}

/// Runs the tests of an image. An error means that they could not run: it says nothing of the image.
pub fn test(request: &TestRequest, context: &Context<'_>) -> Result<TestOutcome, Error> {
    let started = context.host.unix_time_millis();
    let image = config::reference("image", &request.image)?;
    let start = context.step_started("image");
    let base = ResolvedImage::resolve(context, &image, None)?;
    context.step_finished("image", base.image.manifest_digest.as_str(), Some(start));
    let mut settings = settings(request, &base, context)?;
    let app = app_of(&base.image);
    settings.image.root = Some(app.path().to_owned());
    let plan = TestPlan::new(&settings.test, &request.flags)?;
    let origin = if request.config.is_some() { SettingsOrigin::Caller } else { SettingsOrigin::Image };
    plan.check_services_are_the_callers(origin)?;
    if origin != SettingsOrigin::Caller {
        // The image names its services: their registries get no login, except the image's own.
        let hosts = plan.services.values().filter_map(|service| service.image.registry_host());
        hosts.filter(|host| image.registry_host() != Some(host)).for_each(|host| context.client.withhold_login(host));
    }
    let trees = base.trees(context, TreeCheck::Entries)?;
    let partition = partition(request, context)?;
    let commands = commands(&plan.commands, &base, &trees, &app, partition)?;

    let deps = TestDeps {
        image: &base,
        trees: &trees,
        settings: &settings,
        origin,
        pass: &request.pass,
        env: "test",
        isolation: request.isolation,
        no_cache: request.no_cache,
    };
    let isolation = choose(request.isolation, context)?;
    if isolation == Isolation::Chroot && !plan.services.is_empty() {
        return Err(TestError::NoNamespaces.into());
    }
    let trees: Vec<Tree> = deps.tree(context)?.into_iter().chain(trees).collect();
    let scratch = context.store.scratch()?;
    let env = test_env(request, &plan, partition, context)?;
    let runner =
        Runner { plan: &plan, app: &app, image: &base, trees: &trees, isolation, scratch: &scratch, env: &env };
    let results = runner.run(&commands, request, context)?;

    let annotation =
        |name: &str| base.image.manifest.annotations.get(&format!("org.opencontainers.image.{name}")).cloned();
    let run = TestRun {
        image: base.image.manifest_digest.clone(),
        commit: annotation("revision"),
        base: annotation("base.digest").and_then(|digest| digest.parse::<Digest>().ok()),
        commands: results.commands,
        env: env.into_keys().collect(),
        partition,
        version: env!("CARGO_PKG_VERSION").into(),
        started,
        finished: context.host.unix_time_millis(),
        url: context.host.run_url(),
    };
    let Results { service_error, output_error, .. } = results;
    Ok(TestOutcome { image, subject: base.image.descriptor(), run, service_error, output_error })
}

/// The settings of `--config`, or else the `phial.toml` in the image, which is that of its commit.
fn settings(request: &TestRequest, base: &ResolvedImage, context: &Context<'_>) -> Result<FileConfig, Error> {
    let Some(path) = &request.config else {
        let text = settings_of(context, base)?.unwrap_or_default();
        return Ok(config::parse(&format!("{}/phial.toml", app_of(&base.image).workdir()), &text)?);
    };
    Ok(config::read(path)?)
}

/// The part of the tests to run; `None` for all of them.
fn partition(request: &TestRequest, context: &Context<'_>) -> Result<Option<Partition>, Error> {
    let Some(chosen) = partition::choose(request.partition.as_deref(), context.host)? else { return Ok(None) };
    if let Some(engine) = chosen.engine {
        context.notice(format!("running part {} of the tests, from the variables of {engine}", chosen.partition));
    }
    Ok(Some(chosen.partition))
}

/// The commands to run, in order.
fn commands(
    commands: &TestCommands,
    base: &ResolvedImage,
    trees: &[Tree],
    app: &AppDir,
    partition: Option<Partition>,
) -> Result<Vec<NamedCommand>, Error> {
    let test = |argv: Vec<String>| Ok(vec![NamedCommand { name: "test".to_owned(), argv }]);
    match commands {
        TestCommands::Listed(commands) => Ok(commands.clone()),
        TestCommands::Entrypoint if base.image.config.config.entrypoint.is_empty() => {
            Err(TestError::NoEntrypoint.into())
        }
        TestCommands::Entrypoint => test([base.image.config.config.entrypoint.clone(), vec!["test".into()]].concat()),
        TestCommands::Default if has_file(trees, app, CI_SCRIPT)? => {
            test(vec![format!("{}/{CI_SCRIPT}", app.workdir())])
        }
        TestCommands::Default if has_file(trees, app, "mix.exs")? => {
            let parts = partition.map(|part| ["--partitions".to_owned(), part.of.to_string()]);
            test(["mix", "test"].map(str::to_owned).into_iter().chain(parts.into_iter().flatten()).collect())
        }
        TestCommands::Default => Err(TestError::NoTests.into()),
    }
}

/// The test script of an app that has one, relative to the app's directory.
const CI_SCRIPT: &str = "script/docker/ci.sh";

/// Whether the app has a regular file at `path`, or a link to one.
fn has_file(trees: &[Tree], app: &AppDir, path: &str) -> Result<bool, IoError> {
    let files = ImageFiles::open(trees)?;
    let file = files.find(format!("{}/{path}", app.in_tree()))?;
    Ok(file.is_some_and(|file| file.stat().is_regular_file()))
}

/// The variables of the commands beside the image's own.
fn test_env(
    request: &TestRequest,
    plan: &TestPlan,
    partition: Option<Partition>,
    context: &Context<'_>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut env = BTreeMap::from([("MIX_ENV".to_owned(), "test".to_owned()), ("PHIAL".to_owned(), "1".to_owned())]);
    env.extend(context.host.var("CI").map(|value| ("CI".to_owned(), value.to_owned())));
    if let Some(part) = partition {
        env.insert("MIX_TEST_PARTITION".into(), part.nth.to_string());
        env.insert("MIX_TEST_PARTITIONS".into(), part.of.to_string());
    }
    env.extend(plan.env.clone());
    env.extend(config::variables(&request.env, context.host)?);
    Ok(env)
}

/// Attaches the test record to the image as a referrer, and returns its digest. `None` for an archive, which has no referrers.
pub fn attach_record(tested: &TestOutcome, context: &Context<'_>) -> Result<Option<Digest>, Error> {
    let location = ImageLocation::of(&tested.image);
    if let ImageLocation::Archive(file) = &location {
        context.notice(format!("no record: an image in the archive `{}` cannot have referrers", file.display()));
        return Ok(None);
    }
    let (artifact, document) = tested.run.record(tested.subject.clone());
    let blobs = attest::single_blob(&document);
    location.attach(context.client, &artifact, &blobs, context.watch).map_err(TestError::Record)?;
    context.step_finished("record", artifact.digest.as_str(), None);
    Ok(Some(artifact.digest))
}
