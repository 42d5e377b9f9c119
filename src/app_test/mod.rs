//! `phial test`: the app's own tests inside exactly the bytes of an image, with its services beside them.
//!
//! The root filesystem is stood from trees that the store has, with a fresh writable layer that is thrown away; the image
//! never changes. Everything runs in sandboxes whose kernel kills what is left when they end, and all of them end with us.

mod command;
mod junit;
mod error;
mod log;
mod artifacts;
mod partition;
mod services;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;

use phial_layers::Digest;

pub use error::TestError;

use self::artifacts::Reports;
use self::log::{Log, file_name};
use self::services::{Ground, Services};
use crate::attest::{self, Command, ImageLocation, Partition, Run};
use crate::build::TestDeps;
use crate::config::{self, ConfigError, FileConfig, TestFlags, TestPlan, What};
use crate::context::Context;
use crate::error::Error;
use crate::event::Event;
use crate::image::{Descriptor, Reference};
use crate::recipe::{APP, WORKDIR};
use crate::rootfs::{self, Isolation};
use crate::runtime::{HOSTS, IsolationChoice, ResolvedImage, choose, environment, resolv_conf, settings_of};
use crate::sandbox::{Ids, Loopback, Network, OURSELVES, Spec, Stdio};
use crate::store::{Scratch, Tree};

/// One call of `phial test`.
#[derive(Debug)]
pub struct TestRequest {
    /// The image.
    pub image: String,
    /// What the command line asks for.
    pub flags: TestFlags,
    /// Settings in place of the image's own `phial.toml`.
    pub config: Option<PathBuf>,
    /// `NAME=value` or `NAME`.
    pub env: Vec<String>,
    /// `NTH/OF`.
    pub partition: Option<String>,
    /// The isolation.
    pub isolation: IsolationChoice,
    /// Where a report in the form of `JUnit` goes.
    pub junit: Option<PathBuf>,
    /// Where logs and named files go.
    pub artifacts: Option<PathBuf>,
    /// Whether dependencies are compiled, recalled or not.
    pub no_cache: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Tested {
    /// Where the image is.
    pub image: Reference,
    /// The manifest that was tested.
    pub subject: Descriptor,
    /// The facts.
    pub run: Run,
    /// Why not all was run: a service that was not ready or ended.
    pub trouble: Option<Error>,
}

/// Runs the tests of an image. An error says that nothing was found out about it.
pub fn test(request: &TestRequest, context: &Context<'_>) -> Result<Tested, Error> {
    let started = context.host.unix_time_millis();
    let image = config::reference("image", &request.image)?;
    let start = context.step_started("image");
    let base = ResolvedImage::resolve(context, &image, None)?;
    context.step_finished("image", base.image.manifest_digest.as_str(), Some(start));
    let wish = settings(request, &base, context)?;
    let plan = TestPlan::new(&wish.test, &request.flags)?;
    let trees = base.trees(context)?;
    let partition = part(request, context)?;
    let commands = commands(&plan.what, &base, &trees, partition)?;

    let more = TestDeps {
        image: (&base, &trees),
        settings: (wish, &request.image),
        env: "test",
        isolation: request.isolation,
        no_cache: request.no_cache,
    };
    let lowers: Vec<Tree> = more.deps(context)?.into_iter().chain(trees).collect();
    let isolation = choose(request.isolation, context)?;
    let scratch = context.store.scratch()?;
    let own = own_env(request, &plan, partition, context);
    let stage = Stage { plan: &plan, base: &base, lowers: &lowers, isolation, scratch: &scratch, env: &own };
    let (commands, trouble) = stage.play(&commands, request, context)?;

    let notes = |name: &str| base.image.manifest.annotations.get(&format!("org.opencontainers.image.{name}")).cloned();
    let run = Run {
        image: base.image.manifest_digest.clone(),
        commit: notes("revision"),
        base: notes("base.digest").and_then(|digest| digest.parse::<Digest>().ok()),
        commands,
        env: own.into_keys().collect(),
        partition,
        version: env!("CARGO_PKG_VERSION").into(),
        started,
        finished: context.host.unix_time_millis(),
        url: context.host.run_url(),
    };
    Ok(Tested { image, subject: base.image.descriptor(), run, trouble })
}

/// The settings that were asked for, or the image's own: those of its commit.
fn settings(request: &TestRequest, base: &ResolvedImage, context: &Context<'_>) -> Result<FileConfig, Error> {
    let Some(path) = &request.config else {
        let text = settings_of(context, base)?.unwrap_or_default();
        return Ok(config::parse(&format!("{WORKDIR}/phial.toml"), &text)?);
    };
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.clone(), source })?;
    Ok(config::parse(&path.display().to_string(), &text)?)
}

fn part(request: &TestRequest, context: &Context<'_>) -> Result<Option<Partition>, Error> {
    let found = partition::partition(request.partition.as_deref(), context.host)?;
    Ok(found.map(|(part, engine)| {
        if let Some(engine) = engine {
            (context.watch)(Event::Notice { text: format!("part {part} of the tests, as {engine} counts its jobs") });
        }
        part
    }))
}

/// The commands by name, in their order.
fn commands(
    what: &What,
    base: &ResolvedImage,
    trees: &[Tree],
    partition: Option<Partition>,
) -> Result<Vec<(String, Vec<String>)>, Error> {
    let test = |words: Vec<String>| Ok(vec![("test".to_owned(), words)]);
    match what {
        What::Commands(commands) => Ok(commands.clone()),
        What::Entrypoint if base.image.config.config.entrypoint.is_empty() => Err(TestError::NoEntrypoint.into()),
        What::Entrypoint => test([base.image.config.config.entrypoint.clone(), vec!["test".into()]].concat()),
        What::Usual if has(trees, CI) => test(vec![format!("{WORKDIR}/{CI}")]),
        What::Usual if has(trees, "mix.exs") => {
            let parts = partition.map(|part| ["--partitions".to_owned(), part.of.to_string()]);
            test(["mix", "test"].map(str::to_owned).into_iter().chain(parts.into_iter().flatten()).collect())
        }
        What::Usual => Err(TestError::NoTests.into()),
    }
}

/// Where apps have their tests' script, by custom.
const CI: &str = "script/docker/ci.sh";

/// Whether a file is in the app: the topmost tree that has the name decides.
fn has(trees: &[Tree], path: &str) -> bool {
    let path = format!("{APP}/{path}");
    trees.iter().find_map(|tree| fs::symlink_metadata(tree.root.join(&path)).ok()).is_some_and(|meta| meta.is_file())
}

/// What every program expects to find.
fn least_env(home: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOME".to_owned(), home.to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ])
}

/// The variables that the commands see beside the image's own.
fn own_env(
    request: &TestRequest,
    plan: &TestPlan,
    partition: Option<Partition>,
    context: &Context<'_>,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([("MIX_ENV".to_owned(), "test".to_owned()), ("PHIAL".to_owned(), "1".to_owned())]);
    env.extend(context.host.var("CI").map(|value| ("CI".to_owned(), value.to_owned())));
    if let Some(part) = partition {
        env.insert("MIX_TEST_PARTITION".into(), part.nth.to_string());
        env.insert("MIX_TEST_PARTITIONS".into(), part.of.to_string());
    }
    env.extend(plan.env.clone());
    for pair in &request.env {
        match pair.split_once('=') {
            Some((name, value)) => env.insert(name.into(), value.into()),
            None => context.host.var(pair).and_then(|value| env.insert(pair.clone(), value.into())),
        };
    }
    env
}

/// Where the commands run.
struct Stage<'a> {
    plan: &'a TestPlan,
    base: &'a ResolvedImage,
    /// Topmost first.
    lowers: &'a [Tree],
    isolation: Isolation,
    scratch: &'a Scratch,
    env: &'a BTreeMap<String, String>,
}

/// What was run, and why not all of it.
type Played = (Vec<Command>, Option<Error>);

impl Stage<'_> {
    /// Runs the services, the commands beside them, and brings out what is to be kept.
    fn play(
        &self,
        commands: &[(String, Vec<String>)],
        request: &TestRequest,
        context: &Context<'_>,
    ) -> Result<Played, Error> {
        let alone = self.plan.services.is_empty();
        if !alone && self.isolation == Isolation::Chroot {
            return Err(TestError::NoNamespaces.into());
        }
        let loopback = if alone { None } else { Some(Loopback::open(OURSELVES.as_ref(), Ids::Single)?) };
        let network = loopback.as_ref().map_or(Network::None, Loopback::network);
        let names = self.plan.services.keys();
        let hosts = names.fold(HOSTS.to_owned(), |hosts, name| hosts + "127.0.0.1 " + name + "\n");

        let ground = Ground { scratch: self.scratch, isolation: self.isolation, network, hosts: &hosts };
        let mut prepared = vec![];
        for (name, service) in &self.plan.services {
            prepared.push(services::prepare(name, service, &ground, context)?);
        }
        let rootfs = rootfs::assemble(self.isolation, self.lowers, &self.scratch.dir("ground")?)?;
        let written = artifacts::written(&rootfs.diff_source);
        let mut reports = Reports::new(&rootfs.diff_source);
        let lives = Services::new(&prepared);
        let mut logs = vec![];
        let played: Result<Played, Error> = thread::scope(|scope| {
            let _stops = Stops(&lives);
            lives.start(scope, prepared)?;
            if let Err(error) = lives.until_ready(context) {
                let is_trouble =
                    matches!(error.downcast_ref(), Some(TestError::NotReady { .. } | TestError::Ended { .. }));
                return if is_trouble { Ok((vec![], Some(error))) } else { Err(error) };
            }
            let order = |argv: &[String]| self.order(argv, rootfs.root.clone(), network, &hosts);
            let mut done = vec![];
            for (nth, (name, argv)) in commands.iter().enumerate() {
                let log = Log::new(&self.scratch.path().join(format!("{}-{}", nth + 1, file_name(name))))?;
                let mut one = command::run(name, &order(argv), self.plan.timeout, (&lives, log), context)?;
                let counted = reports.look();
                one.command.counts = one.command.counts.or(counted);
                tell(&one.command, context);
                done.push(one.command);
                logs.push(one.log);
                if one.trouble.is_some() {
                    return Ok((done, one.trouble));
                }
            }
            Ok((done, None))
        });
        let played = played?;
        if played.1.is_some() || played.0.iter().any(|command| !command.passed) {
            lives.show(context);
        }
        if let Some(path) = &request.junit {
            artifacts::write(path, &reports.junit(&played.0))?;
        }
        if let Some(dir) = &request.artifacts {
            logs.extend(lives.logs());
            artifacts::logs(&logs, dir)?;
            for path in artifacts::artifacts(&self.plan.artifacts, &written, self.lowers, dir)? {
                (context.watch)(Event::Notice { text: format!("`{path}` of `test.artifacts` is not there") });
            }
        }
        Ok(played)
    }

    /// Root of the sandbox, as the steps that built the image: tests write where the image's user need not.
    fn order(&self, argv: &[String], root: crate::sandbox::Root, network: Network, hosts: &str) -> Spec {
        let mut env = least_env("/root");
        env.extend(environment(&self.base.image));
        env.extend(self.env.clone());
        Spec {
            root,
            argv: argv.to_vec(),
            env,
            cwd: self.base.image.config.config.directory(),
            user: (0, 0),
            network,
            ids: Ids::Single,
            binds: vec![],
            tmpfs: vec![],
            ready: None,
            hosts: hosts.to_owned(),
            resolv: resolv_conf(network),
            stdio: Stdio::Stream,
            read_only: false,
        }
    }
}

/// Stops the services when the tests are over, however they are.
struct Stops<'a>(&'a Services);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn tell(command: &Command, context: &Context<'_>) {
    let counts = command.counts.map_or_else(String::new, |counts| {
        format!(", {} tests, {} failures, {} skipped", counts.tests, counts.failures, counts.skipped)
    });
    let verdict = if command.passed { "passed" } else { "failed" };
    let note = format!("{verdict} ({}{counts})", command.ended);
    (context.watch)(Event::StepFinished { step: command.name.clone(), note, millis: command.millis.max(1) });
}

/// Attaches the record of a test run to the image; its digest. `None` for an archive, which cannot have one.
pub fn attach_record(tested: &Tested, context: &Context<'_>) -> Result<Option<Digest>, Error> {
    let place = ImageLocation::of(&tested.image);
    if let ImageLocation::Archive(file) = &place {
        let text = format!("no record: nothing can be put beside an image in the archive `{}`", file.display());
        context.notice(text);
        return Ok(None);
    }
    let (artifact, document) = tested.run.record(tested.subject.clone());
    let documents = attest::only(&document);
    place.attach(context.client, (&artifact, &documents), &[], context.watch).map_err(TestError::Record)?;
    context.step_finished("record", artifact.digest.as_str(), None);
    Ok(Some(artifact.digest))
}
