//! Which app of a repository is meant, its settings, and the name under which the store has its builds.

use std::path::PathBuf;

use crate::config::{self, ConfigError, FileConfig, LockFile};
use crate::context::Context;
use crate::error::Error;
use crate::recipe::{AppDir, RecipeError};
use crate::source::{self, Fetched, Location, SourceError, WorkingTreePosition};

/// The files in which an app is looked for: those of a commit, or of a working tree. The functions take paths from the root.
struct SearchedFiles<'a> {
    /// Whether there is one.
    has: &'a dyn Fn(&str) -> Result<bool, Error>,
    /// The text of one; `None` if there is none.
    text: &'a dyn Fn(&str) -> Result<Option<String>, Error>,
}

/// An app of a commit.
pub struct CommittedApp {
    /// Its directory.
    pub dir: AppDir,
    /// The settings of `--config`, or else of its directory.
    pub settings: FileConfig,
    /// The `phial.lock` in it.
    pub lock: Option<LockFile>,
}

/// The app of a commit, by the settings of `--config` if there are some. `named` is the directory that the caller says; else it
/// is that of the settings, the one where the caller stands, or the one that the root's `phial.toml` names.
pub fn committed_app(
    named: Option<&str>,
    config: Option<FileConfig>,
    location: &Location,
    fetched: &Fetched,
) -> Result<CommittedApp, Error> {
    let text = |path: &str| committed_text(fetched, path);
    let configured = config.as_ref().and_then(|file| file.image.root.as_deref());
    let files = SearchedFiles { has: &|path| Ok(source::exists(fetched, path)?), text: &text };
    let dir = find(named.or(configured), source::working_tree_position(location)?.as_ref(), &files)?;
    // A child of an umbrella cannot be built alone: what Mix writes for it is outside of its directory.
    if let Some(umbrella) = dir.umbrella(|dir| text(&dir.file("mix.exs")))? {
        return Err(RecipeError::Umbrella { child: dir.path().to_owned(), umbrella: umbrella.path().to_owned() }.into());
    }
    let lock =
        if dir.is_root() || source::exists(fetched, dir.path())? { text(&dir.file("phial.lock"))? } else { None };
    let lock = lock.map(|text| LockFile::parse(&text)).transpose()?;
    let mut settings = config.map_or_else(|| of_app(&dir, &files), Ok)?;
    settings.image.root = Some(dir.path().into());
    Ok(CommittedApp { dir, settings, lock })
}

/// The text of a file of a commit; `None` if the commit has no such file.
pub fn committed_text(fetched: &Fetched, name: &str) -> Result<Option<String>, Error> {
    let bytes = source::read_file(fetched, name)?;
    let utf8 = |bytes| {
        String::from_utf8(bytes).map_err(|_| ConfigError::Toml {
            file: name.into(),
            text: "it is not UTF-8".into(),
            excerpt: vec![],
        })
    };
    Ok(bytes.map(utf8).transpose()?)
}

/// The app of a working tree, by its files as they are now; `named` for a URL and for a bare repository.
pub fn working_tree_app(location: &Location, named: Option<&str>) -> Result<AppDir, Error> {
    let position = source::working_tree_position(location)?;
    let text = |path: &str| position.as_ref().map_or(Ok(None), |position| Ok(position.text(path)?));
    find(named, position.as_ref(), &SearchedFiles { has: &|_| Ok(false), text: &text })
}

fn find(
    named: Option<&str>,
    position: Option<&WorkingTreePosition>,
    files: &SearchedFiles<'_>,
) -> Result<AppDir, Error> {
    if let Some(dir) = named {
        config::check_root("app", dir)?;
        return Ok(AppDir::new(dir));
    }
    if let Some(position) = position {
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
fn of_app(app: &AppDir, files: &SearchedFiles<'_>) -> Result<FileConfig, Error> {
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

/// The name of a repository in the store: its web address, which is the same for all ways to clone it; without one, its URL or
/// its real path. The builds of each app in a directory are apart.
pub fn repository_name(location: &Location, app: &AppDir, context: &Context<'_>) -> Result<String, SourceError> {
    let identity = source::identity(&from_here(location, context))?;
    let name = identity.web_address().unwrap_or_else(|| identity.to_string());
    Ok(if app.is_root() { name } else { format!("{name}//{}", app.path()) })
}

/// The location with a local path made absolute.
pub fn from_here(location: &Location, context: &Context<'_>) -> Location {
    let absolute = |path| context.host.cwd.join(path).components().collect::<PathBuf>();
    let local = location.local().and_then(|path| absolute(path).to_string_lossy().parse().ok());
    local.unwrap_or_else(|| location.clone())
}
