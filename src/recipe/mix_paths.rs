//! Where `mix.exs` says that Mix keeps its files, as far as it says so in writing.

use super::app_dir::quoted_after;
use super::{Recipe, RecipeError, Script};

impl Recipe {
    /// Checks that Mix keeps its files where the built-in script and the layers have them. Elsewhere, committed dependencies would
    /// be hidden by fetched ones, compiled files would keep their times, and packages of the lock file would not be found.
    /// `has` tells whether the commit has a file.
    pub fn check_mix_paths(&self, mix: &str, has: impl Fn(&str) -> bool) -> Result<(), RecipeError> {
        if self.script != Script::BuiltIn {
            return Ok(());
        }
        let lock = self.lockfile.as_deref().unwrap_or("mix.lock");
        for (key, known) in [("deps_path", "deps"), ("build_path", "_build"), ("lockfile", lock)] {
            let named = quoted_after(mix, &format!("{key}:"));
            if let Some(value) = named.into_iter().find(|value| plain(value) != plain(known)) {
                let file = self.app.file("mix.exs");
                if plain(&value).first() == Some(&"..") {
                    let owner = self.app.above(&value).filter(|owner| has(&owner.file("mix.exs")));
                    let owner = owner.map(|owner| owner.path().to_owned());
                    return Err(RecipeError::MixPathAbove { file, key, value, owner });
                }
                return Err(RecipeError::MixPath { file, key, value, known: known.into() });
            }
        }
        Ok(())
    }
}

/// A path without `.` and without slashes at its end.
fn plain(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}
