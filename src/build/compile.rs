//! Running the steps that compile: side by side, a second time, or only those that no earlier build has done.

use std::collections::BTreeMap;
use std::path::Path;

use super::BuildError;
use super::layers::LayerBuilder;
use super::step_env::{AtomSeed, StepEnv};
use super::step_runner::Changes;
use super::unfinished_deps::UnfinishedDeps;
use crate::determinism::normalize::Part;
use crate::determinism::shims;
use crate::error::Error;
use crate::recipe::Step;
use crate::rootfs::Isolation;
use crate::store::Scratch;

impl LayerBuilder<'_> {
    /// The changes of steps that compile dependencies. Those of steps that succeeded are kept when another one fails. `start` is
    /// the time at which the first step of the deps layer began.
    pub(super) fn compile_missing(
        &self,
        steps: &[Step],
        env: &StepEnv<'_>,
        unfinished: UnfinishedDeps<'_>,
        start: i64,
    ) -> Result<Vec<Changes>, Error> {
        let (mut done, mut missing) = (BTreeMap::new(), vec![]);
        for step in steps {
            match unfinished.changes(step)? {
                Some(changes) => drop(done.insert(step.name.as_str(), changes)),
                None => missing.push(step.clone()),
            }
        }
        let mut failure = None;
        for (step, result) in missing.iter().zip(self.run_each(&missing, &unfinished.scratch.dir("first")?, env)?) {
            match result {
                Ok(changes) => drop(done.insert(step.name.as_str(), changes)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(failure) = failure {
            unfinished.keep(done, &self.normalize_options(self.deps_time, start, Part::Deps), &failure);
            return Err(failure);
        }
        Ok(steps.iter().filter_map(|step| done.remove(step.name.as_str())).collect())
    }

    /// The changes of steps that compile. With `strict` they run a second time, and their VMs know every atom of the first
    /// time from the start: code that iterates over a map with such an atom as a key sees the same order each time.
    pub(super) fn compile(&self, steps: &[Step], scratch: &Scratch, env: &StepEnv<'_>) -> Result<Vec<Changes>, Error> {
        let first = self.run_all(steps, &scratch.dir("first")?, env)?;
        let Some(seed) = env.atoms.filter(|_| self.steps.plan.strict) else { return Ok(first) };
        let mut atoms = seed.atoms.clone();
        for changes in &first {
            shims::add_compiled_atoms(&changes.tree.root.open()?, &mut atoms)?;
        }
        drop(first);
        let seed = AtomSeed { atoms: &atoms, ..seed };
        self.run_all(steps, &scratch.dir("second")?, &StepEnv { atoms: Some(seed), ..*env })
    }

    fn run_all(&self, steps: &[Step], dir: &Path, env: &StepEnv<'_>) -> Result<Vec<Changes>, Error> {
        self.run_each(steps, dir, env)?.into_iter().collect()
    }

    /// Runs steps over the same trees: in parallel where cores and isolation allow it, else in turn up to the first that fails. The
    /// changes are the same.
    fn run_each(&self, steps: &[Step], dir: &Path, env: &StepEnv<'_>) -> Result<Vec<Result<Changes, Error>>, Error> {
        let run = |step: &Step| self.steps.run(step, env, &dir.join(step.name.replace(' ', "-")));
        let context = self.steps.context;
        let is_parallel = context.host.cores.get() > 1 && self.steps.isolation.get(context)? == Isolation::Overlay;
        if !is_parallel {
            let mut results = vec![];
            for step in steps {
                results.push(run(step));
                if results.last().is_some_and(Result::is_err) {
                    break;
                }
            }
            return Ok(results);
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = steps.iter().map(|step| scope.spawn(move || run(step))).collect();
            let results = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(BuildError::Missing("result of a step".into()).into()))
            });
            Ok(results.collect())
        })
    }
}
