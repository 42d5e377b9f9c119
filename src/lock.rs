//! `phial lock`: writes the digest that the base image's name has now to `phial.lock`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::config::{self, ConfigError, LockFile, LockedBase};
use crate::context::Context;
use crate::error::{Error, IoError};
use crate::recipe::RecipeError;
use crate::repository::working_tree_app;
use crate::runtime::ResolvedImage;
use crate::source::{self, Location};

/// Resolves the base image that `base` or the app's `phial.toml` in the working tree names, and writes `phial.lock` next to that file.
/// Returns the path of `phial.lock` and what it holds now.
pub fn lock(
    location: &Location,
    app: Option<&str>,
    base: Option<&str>,
    context: &Context<'_>,
) -> Result<(PathBuf, LockFile), Error> {
    let position =
        source::working_tree_position(location)?.ok_or_else(|| ConfigError::NoWorkingTree(location.to_string()))?;
    let app = working_tree_app(location, app)?;
    let top = position.app_dir(app.path()).ok_or_else(|| {
        let why = "the working tree has no such directory without symbolic links";
        RecipeError::AppDir { dir: app.path().to_owned(), why }
    })?;
    let text = position.text(&app.file("phial.toml"))?.unwrap_or_default();
    let settings = config::parse("phial.toml", &text)?;
    let name = base.map(str::to_owned).or(settings.image.base).ok_or(ConfigError::NoBase)?;
    let resolved = ResolvedImage::resolve(context, &config::reference("base", &name)?, None)?;
    let lock = LockFile { base: LockedBase { name, digest: resolved.image.manifest_digest } };
    let path = top.join("phial.lock");
    write_atomically(&top, &path, &lock.text()).map_err(IoError::at("write", &path))?;
    Ok((path, lock))
}

/// Writes a temporary file in `dir` and renames it to `path`, so that `path` never has a part of the text.
fn write_atomically(dir: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}
