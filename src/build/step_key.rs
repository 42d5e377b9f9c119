//! What a step's cache key has of settings: each that a step can see or that decides bytes of its result.

use super::step_runner::StepRunner;
use crate::determinism::shims::Libc;
use crate::rootfs::Isolation;
use crate::sandbox::Ids;
use crate::store::CacheKey;

impl StepRunner<'_> {
    /// This key with what every step sees of the settings. What has no default is in it only where it is set.
    pub(super) fn with_settings(&self, key: CacheKey) -> CacheKey {
        let (plan, recipe) = (self.plan, &self.plan.recipe);
        let mut key = key
            .with("script", recipe.script_digest())
            .with("envs", recipe.envs.join(" ")) // words: no space is in one
            .with("network", plan.network.as_str())
            .with("clock", plan.clock.as_str());
        if self.libc == Libc::Musl {
            key = key.with("memory", "cleared for musl");
        }
        if !recipe.app.is_root() {
            key = key.with("root", recipe.app.path());
        }
        if let Some(path) = &recipe.lockfile {
            key = key.with("lockfile", path);
        }
        if let Some(version) = &recipe.hex {
            key = key.with("hex", version);
        }
        if !plan.pass.is_empty() {
            key = key.with("pass", list(&plan.pass));
        }
        if self.maps_range() {
            key = key.with(CacheKey::IDS, "range");
        }
        for (name, value) in &recipe.env {
            key = key.with(&format!("{}{name}", CacheKey::VARIABLE), value);
        }
        key
    }

    /// Whether files of a step can have other owners since the settings ask for it. Where the machine maps no range, the results
    /// are those of a build that does not ask.
    fn maps_range(&self) -> bool {
        // Without any isolation no step runs, and the first one says so.
        let is_chroot = || matches!(self.isolation.get(self.context), Ok(Isolation::Chroot));
        self.plan.ranges && (is_chroot() || self.ids() == Ids::Ranges)
    }
}

/// A list as one value of a key: other lists have other values, whatever characters are in them.
pub(super) fn list(items: &[String]) -> String {
    serde_json::json!(items).to_string()
}
