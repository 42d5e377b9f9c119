//! Files that environments compile or delete differently outside of their own `_build/ENV`: the image has only one of them.

use std::path::PathBuf;

use super::layers::LayerBuilder;
use super::step_runner::Changes;
use crate::error::Error;
use crate::event::some_of;
use crate::image::shown;
use crate::rootfs;
use crate::store::Tree;

/// How many paths a notice names.
const NAMED: usize = 3;

impl LayerBuilder<'_> {
    /// Tells which files of an environment the image has from another one, or not at all. `compiled` are the changes of each
    /// environment over `lowers`, in the order of their layers.
    pub(super) fn note_disagreements(&self, compiled: &[Changes], lowers: &[Tree]) -> Result<(), Error> {
        let recipe = &self.steps.plan.recipe;
        let changes: Vec<_> = recipe.envs.iter().zip(compiled).collect();
        for (nth, (second, above)) in changes.iter().enumerate() {
            for (first, below) in &changes[..nth] {
                let apart = [first, second].map(|env| PathBuf::from(recipe.app.in_tree()).join("_build").join(env));
                let paths = rootfs::disagreements(&below.tree, &above.tree, lowers, &apart)?;
                if paths.is_empty() {
                    continue;
                }
                let named = paths.iter().map(|path| format!("`{}`", shown(&path.to_string())));
                self.steps.context.notice(format!(
                    "{} differ between the environments `{first}` and `{second}`, and the image has them as one of the two \
                     left them: build an image for each environment (`--env {first}`, `--env {second}`), or let it write them below `_build`",
                    some_of(named, NAMED)
                ));
            }
        }
        Ok(())
    }
}
