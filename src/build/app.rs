//! Which of a repository's apps is meant.

use super::BuildRequest;
use crate::config::{self, ConfigError, FileConfig, LockFile};
use crate::error::Error;
use crate::recipe::{AppDir, RecipeError};
use crate::source::{self, Fetched, Location};

/// The files in which an app is looked for: those of a commit, or of a working tree. The functions take paths from the root.
struct Files<'a> {
    /// Whether there is one.
    has: &'a dyn Fn(&str) -> Result<bool, Error>,
    /// The text of one; `None` if there is none.
    text: &'a dyn Fn(&str) -> Result<Option<String>, Error>,
}

/// The app's directory, the settings of `--config` or else of that directory, and the `phial.lock` in it.
///
/// The directory is that of the record, of `--app`, of `--config`, the one where the caller stands, or the one that the root's
/// `phial.toml` names.
pub(super) fn settings(
    request: &BuildRequest,
    fetched: &Fetched,
) -> Result<(AppDir, FileConfig, Option<LockFile>), Error> {
    let text = |path: &str| super::commit::text(fetched, path);
    let of_file = request.config.as_deref().map(config::read).transpose()?;
    let recorded = request.rebuild_of.as_ref().map(|record| record.root.clone().unwrap_or_default());
    let configured = of_file.as_ref().and_then(|file| file.image.root.clone());
    let named = recorded.or_else(|| request.app.clone()).or(configured);
    let files = Files { has: &|path| Ok(source::exists(fetched, path)?), text: &text };
    let app = find(named.as_deref(), &request.location, &files)?;
    // A child of an umbrella cannot be built alone: what Mix writes for it is outside of its directory.
    if let Some(umbrella) = app.umbrella(|dir| text(&dir.file("mix.exs")))? {
        return Err(RecipeError::Umbrella { child: app.path().to_owned(), umbrella: umbrella.path().to_owned() }.into());
    }
    let lock =
        if app.is_root() || source::exists(fetched, app.path())? { text(&app.file("phial.lock"))? } else { None };
    let lock = lock.map(|text| LockFile::parse(&text)).transpose()?;
    let settings = of_file.map_or_else(|| of_app(&app, &files), Ok)?;
    Ok((
        app.clone(),
        FileConfig { image: config::ImageSettings { root: Some(app.path().into()), ..settings.image }, ..settings },
        lock,
    ))
}

/// The app of a working tree, by its files as they are now; `named` for a URL and for a bare repository.
pub fn working_tree_app(location: &Location, named: Option<&str>) -> Result<AppDir, Error> {
    let position = source::working_tree_position(location)?;
    let text = |path: &str| position.as_ref().map_or(Ok(None), |position| Ok(position.text(path)?));
    find(named, location, &Files { has: &|_| Ok(false), text: &text })
}

fn find(named: Option<&str>, location: &Location, files: &Files<'_>) -> Result<AppDir, Error> {
    if let Some(dir) = named {
        config::check_root("app", dir)?;
        return Ok(AppDir::new(dir));
    }
    if let Some(position) = source::working_tree_position(location)? {
        let is_app = |dir: &str| {
            let has = |name| {
                Ok::<_, Error>(position.has_file(&format!("{dir}/{name}")) || (files.has)(&format!("{dir}/{name}"))?)
            };
            Ok::<_, Error>(has("mix.exs")? || has("phial.toml")?)
        };
        let mut apps = vec![];
        for dir in &position.dirs {
            if is_app(dir)? {
                apps.push(dir.clone());
            }
        }
        let app = AppDir::nearest(&apps, |dir| (files.text)(&dir.file("mix.exs")))?;
        if !app.is_root() {
            return Ok(app);
        }
    }
    let text = (files.text)("phial.toml")?.unwrap_or_default();
    let Some(root) = config::parse("phial.toml", &text)?.image.root else { return Ok(AppDir::default()) };
    config::check_root("image.root", &root)?;
    let app = AppDir::new(&root);
    if !app.is_root() && !names_root_alone(&text) {
        let (file, dir) = (app.file("phial.toml"), root);
        return Err(ConfigError::RootWithSettings { dir, file }.into());
    }
    Ok(app)
}

/// Whether settings have `image.root` and no other key, which would be read nowhere.
fn names_root_alone(text: &str) -> bool {
    let keys = |table: &toml::Table| table.keys().cloned().collect::<Vec<_>>();
    text.parse::<toml::Table>().is_ok_and(|file| {
        let image = file.get("image").and_then(toml::Value::as_table).map(keys);
        keys(&file) == ["image"] && image.is_some_and(|keys| keys == ["root"])
    })
}

/// The settings in the app's directory.
fn of_app(app: &AppDir, files: &Files<'_>) -> Result<FileConfig, Error> {
    let file = app.file("phial.toml");
    let settings = config::parse(&file, &(files.text)(&file)?.unwrap_or_default())?;
    match settings.image.root {
        Some(value) if !app.is_root() => {
            let reason = "but only the `phial.toml` in the root of the repository names the app's directory";
            Err(ConfigError::Value { key: "image.root".into(), value, reason }.into())
        }
        _ => Ok(settings),
    }
}
