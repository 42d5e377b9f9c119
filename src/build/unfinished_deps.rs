//! Dependencies that were compiled for some environments before they failed for another one. The next build with the same key
//! compiles only what is missing.
//!
//! A failure that the key does not show is one of the machine or the network, or of a setting that changes no byte: a limit, a
//! variable that is passed. What is kept is normalized; fetched sources are not kept, since they may hold logins until they are.

use std::collections::BTreeMap;

use phial_layers::{Limits, unpack};

use super::step_runner::{Changes, StepRunner};
use crate::determinism::normalize::NormalizeOptions;
use crate::error::{Error, ExitKind};
use crate::image::PackedLayer;
use crate::recipe::Step;
use crate::store::{CacheKey, Lookup, Scratch};

/// By the name of the step; `None` for one that changed nothing.
type Compiled = BTreeMap<String, Option<PackedLayer>>;

/// What earlier builds with the same key compiled.
pub(super) struct UnfinishedDeps<'a> {
    steps: &'a StepRunner<'a>,
    pub(super) scratch: &'a Scratch,
    key: CacheKey,
    compiled: Compiled,
}

impl<'a> UnfinishedDeps<'a> {
    /// `deps_key` is the key of the deps layer.
    pub(super) fn find(steps: &'a StepRunner<'a>, deps_key: &CacheKey, scratch: &'a Scratch) -> Result<Self, Error> {
        let key = CacheKey { step: "unfinished deps".into(), inputs: deps_key.inputs.clone() };
        let compiled = match steps.context.store.result(&key)? {
            Lookup::Hit(compiled) if !steps.no_cache => compiled,
            _ => Compiled::new(),
        };
        Ok(Self { steps, scratch, key, compiled })
    }

    /// The changes of a step, unpacked; `None` if it has to run.
    pub(super) fn changes(&self, step: &Step) -> Result<Option<Changes>, Error> {
        let Some(layer) = self.compiled.get(&step.name) else { return Ok(None) };
        let dir = self.scratch.dir(&format!("unfinished/{}", step.name.replace(' ', "-")))?;
        let (metadata, entries) = if let Some(layer) = layer {
            let Some(blob) = self.steps.context.store.blob(&layer.digest, layer.size)? else { return Ok(None) };
            match unpack(blob, layer.compression, &dir, &Limits::GENEROUS) {
                Ok(unpacked) if unpacked.diff_id == layer.diff_id => (unpacked.metadata, unpacked.entries),
                _ => return Ok(None),
            }
        } else {
            Default::default()
        };
        self.steps.context.step_finished(&step.name, "compiled by the build that failed", None);
        Ok(Some(Changes::new(&dir, metadata, entries)))
    }

    /// Keeps what is compiled when another step has failed. That it cannot be kept is no second error.
    pub(super) fn keep(mut self, done: BTreeMap<&str, Changes>, options: &NormalizeOptions<'_>, failure: &Error) {
        if matches!(failure.exit_kind(), ExitKind::Interrupted | ExitKind::Terminated | ExitKind::Machine) {
            return;
        }
        for (name, changes) in done {
            if self.compiled.contains_key(name) {
                continue;
            }
            let kept =
                self.steps.normalize(changes, options).and_then(|changes| self.steps.pack(&changes, options.mtime));
            if let Ok(layer) = kept {
                self.compiled.insert(name.to_owned(), layer);
            }
        }
        let _unkept = self.steps.context.store.vacant(&self.key).keep(&self.compiled);
    }
}
