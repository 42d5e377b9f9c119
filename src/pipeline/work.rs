//! The layers of one build, in the order in which they follow from each other: the source, its dependencies, the app
//! compiled for each environment.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Instant;

use phial_layers::{EntryPath, Metadata};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::base::Base;
use super::steps::{Around, Draft, Made, Steps, draft};
use super::{BuildError, Report, circumstances, seeds};
use crate::config::Network;
use crate::normal::{self, Part};
use crate::prepare::{APP, FORMAT, File, Step, WORKDIR};
use crate::rootfs::{New, Rung};
use crate::source::{self, Entry, Fetched, Mode};
use crate::steady;
use crate::store::{Key, Scratch, Tree};

/// The files of the commit, as the rooms want to see them.
pub(super) struct CommitFiles<'a> {
    pub(super) fetched: &'a Fetched,
    pub(super) entries: &'a [Entry],
    pub(super) files: &'a [File],
    /// The text of `mix.lock`, or nothing.
    pub(super) mix_lock: &'a str,
}

/// What the layers follow from.
pub(super) struct Work<'a> {
    pub(super) steps: Steps<'a>,
    pub(super) base: &'a Base,
    pub(super) commit: CommitFiles<'a>,
    /// Modification time of everything in the deps layer.
    pub(super) deps_time: i64,
    /// Modification time of everything in the layers above.
    pub(super) app_time: i64,
}

impl Work<'_> {
    /// All of them, lowest first.
    pub(super) fn layers(&self) -> Result<Vec<Report>, BuildError> {
        let app = timed(|| Ok(vec![self.app()?]))?.remove(0);
        let mut deps = timed(|| Ok(vec![self.deps(&app)?]))?.remove(0);
        let builds = match timed(|| self.builds(&app, &deps)) {
            // What another runner has made cannot be had after all: it is made here.
            Err(BuildError::Lost(digest)) if self.steps.shared.gave_up(&digest) => {
                deps = timed(|| Ok(vec![self.deps(&app)?]))?.remove(0);
                timed(|| self.builds(&app, &deps))?
            }
            builds => builds?,
        };
        Ok([vec![deps, app], builds].concat())
    }

    fn key(&self, step: &str) -> Key {
        let compression = format!("{:?}", self.steps.plan.compression).to_lowercase();
        Key::new(step).with("format", FORMAT.to_string()).with("compression", compression)
    }

    /// A key of what a call of the script follows from, besides files.
    fn call_key(&self, step: &str, mtime: i64) -> Key {
        let network = if self.steps.plan.network == Network::Host { "host" } else { "none" };
        let mut key = self
            .key(step)
            .with("base", self.base.image.manifest_digest.as_str())
            .with("script", self.steps.recipe.script_digest())
            .with("envs", self.steps.plan.envs.join(" "))
            .with("network", network)
            .with("strict", self.steps.plan.strict.to_string())
            .with("clock", format!("{:?}", self.steps.plan.clock).to_lowercase())
            .with("mtime", mtime.to_string());
        for (name, value) in &self.steps.plan.env {
            key = key.with(&format!("env {name}"), value);
        }
        key
    }

    fn app(&self) -> Result<Report, BuildError> {
        let commit = &self.commit.fetched.commit.sha;
        let key = self.key("app").with("commit", commit).with("mtime", self.app_time.to_string());
        let (made, recalled) = self.steps.recalled("app", &key, |scratch| {
            let root = scratch.dir("draft")?;
            let app = root.join(APP);
            source::checkout(self.commit.fetched, &app, self.app_time, self.steps.world.watch)?;
            Ok(vec![self.steps.keep(&draft(&root, Metadata::default(), 1), self.app_time)?])
        })?;
        Ok(Report { name: "app".into(), layer: first(made), recalled, key, millis: 0 })
    }

    fn deps(&self, app: &Report) -> Result<Report, BuildError> {
        let mut key = self.call_key("deps", self.deps_time);
        let visible = || self.commit.entries.iter().filter(|entry| self.sees(entry));
        for entry in visible() {
            let what = match entry.mode {
                Mode::Executable => "executable ",
                Mode::Symlink => "link ",
                _ => "",
            };
            key = key.with(&format!("file {:?}", entry.name), format!("{what}{}", entry.id));
        }
        let (made, recalled) = self.steps.recalled("deps", &key, |scratch| {
            let app = self.steps.tree(app.layer.as_ref().ok_or_else(|| nothing(WORKDIR))?)?;
            let inputs = scratch.dir("inputs")?;
            for entry in visible() {
                show(&app.root, &inputs, &entry.name, self.deps_time).map_err(BuildError::io("write in", &inputs))?;
            }
            Ok(vec![self.make_deps(scratch, Tree::bare(&inputs), &key)?])
        })?;
        Ok(Report { name: "deps".into(), layer: first(made), recalled, key, millis: 0 })
    }

    fn sees(&self, entry: &Entry) -> bool {
        entry.mode != Mode::Submodule && self.steps.recipe.shows(self.commit.files, entry.name.as_bytes())
    }

    fn make_deps(&self, scratch: &Scratch, inputs: Tree, key: &Key) -> Result<Made, BuildError> {
        let began = self.steps.world.host.clock();
        let mut lowers = vec![inputs];
        lowers.extend(self.base.trees(self.steps.world)?);
        let calls = self.steps.recipe.deps_steps();
        let (fetch, compile) = calls.split_first().ok_or_else(|| nothing("deps"))?;
        let toolchain = self.steps.toolchain(self.base)?;
        let atoms = circumstances::atoms(&toolchain, &[&lowers[0].root])?;
        let around = Around { cwd: WORKDIR, mtime: self.deps_time, seed: Some((&toolchain, &atoms)), given: &[] };
        let fetched = self.fetched((fetch, key), &lowers, scratch, &around)?;
        // Sources have their final time before anything is compiled from them.
        normal::set_times(&fetched.tree.root, self.deps_time)?;
        let above = [vec![fetched.tree.clone()], lowers.clone()].concat();
        let atoms = circumstances::atoms(&toolchain, &[&lowers[0].root, &fetched.tree.root])?;
        let around = Around { seed: Some((&toolchain, &atoms)), ..around };
        let mut drafts = self.compiled(compile, &above, scratch, &around)?;
        let untouched = seeds::untouched(&fetched, &drafts);
        drafts.insert(0, fetched);
        let uppers = New::Uppers(drafts.into_iter().rev().map(|draft| draft.tree).collect());
        let sum = self.steps.harvest(&uppers, &lowers, &scratch.path().join("sum"))?;
        let terms = self.terms(self.deps_time, began, Part::Deps);
        let sum = self.steps.normalise(sum, &terms)?;
        let made = self.steps.keep(&sum, self.deps_time)?;
        if let Some(layer) = &made {
            self.steps.shared.remember(key, layer, untouched)?;
        }
        Ok(made)
    }

    fn builds(&self, app: &Report, deps: &Report) -> Result<Vec<Report>, BuildError> {
        let name = |made: &Made| made.as_ref().map_or_else(|| "none".into(), |layer| layer.diff_id.to_string());
        let key = self.call_key("build", self.app_time).with("app", name(&app.layer)).with("deps", name(&deps.layer));
        let calls = self.steps.recipe.build_steps();
        let label = format!("build {}", self.steps.plan.envs.join(", "));
        let (made, recalled) = self.steps.recalled(&label, &key, |scratch| {
            let mut lowers = vec![];
            for layer in [&app.layer, &deps.layer].into_iter().flatten() {
                lowers.push(self.steps.tree(layer)?);
            }
            let roots: Vec<&Path> = lowers.iter().map(|tree| tree.root.as_path()).collect();
            let toolchain = self.steps.toolchain(self.base)?;
            let atoms = circumstances::atoms(&toolchain, &roots)?;
            lowers.extend(self.base.trees(self.steps.world)?);
            let around = Around { cwd: WORKDIR, mtime: self.app_time, seed: Some((&toolchain, &atoms)), given: &[] };
            self.make_builds(scratch, &calls, &lowers, &around)
        })?;
        let report = |(call, layer): (&Step, Made)| Report {
            name: call.name.clone(),
            layer,
            recalled,
            key: key.clone(),
            millis: 0,
        };
        Ok(calls.iter().zip(made).map(report).collect())
    }

    /// Each environment in a layer of its own, over the same trees; a later layer leaves out what an earlier one has.
    fn make_builds(
        &self,
        scratch: &Scratch,
        calls: &[Step],
        lowers: &[Tree],
        around: &Around<'_>,
    ) -> Result<Vec<Made>, BuildError> {
        let began = self.steps.world.host.clock();
        let raw = self.compiled(calls, lowers, scratch, around)?;
        let terms = self.terms(self.app_time, began, Part::Build);
        let mut drafts: Vec<Draft> = vec![];
        for (nth, one) in raw.into_iter().enumerate() {
            let one = self.steps.normalise(one, &terms)?;
            let earlier = drafts.iter().rev().map(|draft| draft.tree.clone());
            let below: Vec<Tree> = earlier.chain(lowers.iter().cloned()).collect();
            let dest = scratch.path().join(format!("own-{nth}"));
            let own = self.steps.harvest(&New::Uppers(vec![one.tree]), &below, &dest)?;
            drafts.push(self.steps.normalise(own, &terms)?);
        }
        drafts.iter().map(|draft| self.steps.keep(draft, self.app_time)).collect()
    }

    /// What calls leave that compile. With strict settings they are done again, knowing every name that the first time made
    /// up: then code that goes through a map with such a name finds the same order each time.
    fn compiled(
        &self,
        calls: &[Step],
        lowers: &[Tree],
        scratch: &Scratch,
        around: &Around<'_>,
    ) -> Result<Vec<Draft>, BuildError> {
        let first = self.side_by_side(calls, lowers, &scratch.dir("first")?, around)?;
        let Some((toolchain, atoms)) = around.seed.filter(|_| self.steps.plan.strict) else { return Ok(first) };
        let mut atoms = atoms.clone();
        for draft in &first {
            let root = &draft.tree.root;
            steady::compiled_atoms_below(root, &mut atoms).map_err(BuildError::io("read", root))?;
        }
        drop(first);
        let around = Around { seed: Some((toolchain, &atoms)), ..*around };
        self.side_by_side(calls, lowers, &scratch.dir("second")?, &around)
    }

    /// Runs calls over the same trees: at once where cores and the rung allow it, else in turn. The results are the same.
    fn side_by_side(
        &self,
        calls: &[Step],
        lowers: &[Tree],
        dir: &Path,
        around: &Around<'_>,
    ) -> Result<Vec<Draft>, BuildError> {
        let one = |call: &Step| self.steps.call(call, lowers, &dir.join(call.name.replace(' ', "-")), around);
        let at_once = self.steps.world.host.cores.get() > 1 && self.steps.rung()? == Rung::Overlay;
        if !at_once {
            return calls.iter().map(one).collect();
        }
        std::thread::scope(|scope| {
            let running: Vec<_> = calls.iter().map(|call| scope.spawn(move || one(call))).collect();
            let ended = running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(nothing("a step"))));
            ended.collect::<Vec<_>>().into_iter().collect()
        })
    }

    fn terms(&self, mtime: i64, began: i64, part: Part) -> normal::Terms<'_> {
        normal::Terms {
            mtime,
            windows: [(began - 1, self.steps.world.host.clock() + 1), (mtime, mtime + 2 * steady::AHEAD)],
            part,
            lock: self.commit.mix_lock,
        }
    }
}

/// The reports of `act`, each with the time that all of them took.
fn timed(act: impl FnOnce() -> Result<Vec<Report>, BuildError>) -> Result<Vec<Report>, BuildError> {
    let start = Instant::now();
    let mut reports = act()?;
    let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    for report in &mut reports {
        report.millis = millis;
    }
    Ok(reports)
}

pub(super) fn first(made: Vec<Made>) -> Made {
    made.into_iter().next().flatten()
}

/// Something of ours is not where it must be.
fn nothing(what: &str) -> BuildError {
    BuildError::io("find", Path::new(what))(io::ErrorKind::NotFound.into())
}

/// Puts one file of the app's tree into the tree of what the deps step sees.
pub(super) fn show(app: &Path, inputs: &Path, name: &EntryPath, mtime: i64) -> io::Result<()> {
    let relative = Path::new(APP).join(std::ffi::OsStr::from_bytes(name.as_bytes()));
    let (from, to) = (app.join(&relative), inputs.join(&relative));
    fs::create_dir_all(to.parent().unwrap_or(inputs))?;
    if fs::symlink_metadata(&from)?.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
    } else {
        fs::copy(&from, &to)?;
    }
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, &to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
