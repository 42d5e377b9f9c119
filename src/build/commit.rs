//! A commit's files, settings and lock files.

use std::collections::BTreeSet;
use std::path::Path;

use crate::config::{self, SettingsOrigin};
use crate::error::Error;
use crate::event::Watch;
use crate::recipe::{
    AppDir, CONFIG_FILE, EnvironmentFile, Recipe, RecipeError, Script, SourceFile, SourceKind, VERSION_FILES,
    WantedVersion, environment_files, wanted_versions,
};
use crate::repository::committed_text;
use crate::source::{self, CommitEntry, EntryMode, Fetched, Location, SourceError};

/// The files of a commit.
pub(super) struct CommitFiles<'a> {
    pub(super) fetched: &'a Fetched,
    /// Those that the app needs, sorted by path.
    pub(super) entries: Vec<CommitEntry>,
    /// The paths of those that the deps step may see.
    pub(super) visible: BTreeSet<Vec<u8>>,
    /// The paths of those that are in the deps layer and not in the app's.
    pub(super) vendored: BTreeSet<Vec<u8>>,
    /// The text of Mix's lock file; `None` if the commit has none.
    pub(super) mix_lock: Option<String>,
    /// The versions of Elixir and Erlang that its files ask for.
    pub(super) wanted: Vec<WantedVersion>,
    /// Whether it has assets that no step builds.
    pub(super) leaves_assets_out: bool,
}

impl<'a> CommitFiles<'a> {
    /// Reads them, checks that they have what the recipe needs, and tells what of it the working tree has changed. `entries` are
    /// all of the commit.
    pub(super) fn read(
        fetched: &'a Fetched,
        mut entries: Vec<CommitEntry>,
        recipe: &Recipe,
        watch: Watch<'_>,
    ) -> Result<Self, Error> {
        let file = |entry: &CommitEntry| {
            let kind = match entry.mode {
                EntryMode::File => SourceKind::File,
                EntryMode::Executable => SourceKind::Executable,
                EntryMode::Symlink => SourceKind::Link(source::link_target(fetched, entry)?),
                EntryMode::Submodule => SourceKind::Submodule,
            };
            Ok(SourceFile { path: entry.name.as_bytes().to_vec(), kind })
        };
        let mut files = entries.iter().map(file).collect::<Result<Vec<_>, SourceError>>()?;
        if recipe.app.is_root() {
            fetched.report_changes(&|_| true, watch);
        } else {
            if fetched.is_in_submodule(&recipe.app.file("mix.exs")) {
                let (dir, why) = (recipe.app.path().to_owned(), "it is in a submodule");
                return Err(RecipeError::AppDir { dir, why }.into());
            }
            let read = |path: &[u8]| std::str::from_utf8(path).map_or(Ok(None), |path| committed_text(fetched, path));
            let needed = recipe.app_files(&files, read)?;
            entries.retain(|entry| needed.files.contains(entry.name.as_bytes()));
            files.retain(|file| needed.files.contains(&file.path));
            fetched.report_changes(&|path| needed.covers(path), watch);
        }
        source::check_lfs(fetched, &entries)?;
        source::report_differences(&entries, watch);
        recipe.check(&files)?;
        let visible = recipe.deps_inputs(&files).complete()?;
        let vendored = recipe.vendored(&files);
        let lock = Recipe::find(&files, &recipe.lock_path()).and_then(|path| String::from_utf8(path).ok());
        let mix_lock = lock.map(|path| committed_text(fetched, &path)).transpose()?.flatten();
        let (mut wanted, mut leaves_assets_out) = (vec![], false);
        for file in VERSION_FILES {
            let path = Recipe::find(&files, &recipe.app.file(file)).and_then(|path| String::from_utf8(path).ok());
            let text = path.map(|path| source::read_file(fetched, &path)).transpose()?.flatten();
            let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
            if file == "mix.exs" {
                recipe.check_mix_paths(&text, |path| source::exists(fetched, path).unwrap_or(false))?;
                leaves_assets_out = recipe.leaves_assets_out(&text);
            }
            wanted.extend(wanted_versions(file, &text));
        }
        Ok(Self { fetched, entries, visible, vendored, mix_lock, wanted, leaves_assets_out })
    }

    /// The text of Mix's lock file, empty if the commit has none.
    pub(super) fn mix_lock(&self) -> &str {
        self.mix_lock.as_deref().unwrap_or_default()
    }

    /// Whether the commit has files below a directory.
    pub(super) fn has_below(&self, dir: &str) -> bool {
        let prefix = format!("{dir}/");
        self.entries.iter().any(|entry| entry.name.as_bytes().starts_with(prefix.as_bytes()))
    }

    /// Whether the app needs the entry.
    pub(super) fn is_of_app(&self, entry: &CommitEntry) -> bool {
        self.entries.binary_search(entry).is_ok()
    }

    pub(super) fn is_visible(&self, entry: &CommitEntry) -> bool {
        self.visible.contains(entry.name.as_bytes())
    }

    pub(super) fn is_vendored(&self, entry: &CommitEntry) -> bool {
        self.vendored.contains(entry.name.as_bytes())
    }
}

/// Who wrote the settings that [`settings`] reads for a commit of `location`.
pub(super) fn settings_origin(config: Option<&Path>, location: &Location) -> SettingsOrigin {
    if config.is_some() || location.local().is_some() { SettingsOrigin::Caller } else { SettingsOrigin::Url }
}

/// Of the default environments those whose configuration is in the commit, if not all have theirs.
pub(super) fn default_envs(fetched: &Fetched, app: &AppDir) -> Result<Option<Vec<String>>, Error> {
    let files = config_files(fetched, app);
    let mut envs = vec![];
    for env in config::ENVS {
        if missing_config(fetched, app, &files, env)?.is_none() {
            envs.push(env.to_owned());
        }
    }
    Ok(Some(envs).filter(|envs| !envs.is_empty() && envs.len() < config::ENVS.len()))
}

/// Checks that the commit has the configuration of every environment, before the first step finds out that it has not.
pub(super) fn check_envs(fetched: &Fetched, recipe: &Recipe) -> Result<(), Error> {
    if recipe.script != Script::BuiltIn {
        return Ok(());
    }
    let files = config_files(fetched, &recipe.app);
    for env in &recipe.envs {
        if let Some(path) = missing_config(fetched, &recipe.app, &files, env)? {
            return Err(RecipeError::NoConfig { env: env.clone(), path }.into());
        }
    }
    Ok(())
}

fn config_files(fetched: &Fetched, app: &AppDir) -> Vec<EnvironmentFile> {
    // A link to a file of another name, whose imports are relative to itself, is left to Mix.
    let config = source::read_file(fetched, &app.file(CONFIG_FILE)).ok().flatten();
    config.map(|bytes| environment_files(&String::from_utf8_lossy(&bytes))).unwrap_or_default()
}

/// The first of `files` that the commit lacks for an environment.
fn missing_config(
    fetched: &Fetched,
    app: &AppDir,
    files: &[EnvironmentFile],
    env: &str,
) -> Result<Option<String>, Error> {
    for path in files.iter().map(|file| app.file(&file.path(env))) {
        if !source::exists(fetched, &path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
