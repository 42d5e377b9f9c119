//! `phial lock`: what the base's name stands for today.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::config::{self, ConfigError, Lock, LockedBase};
use crate::context::Context;
use crate::error::{Error, IoError};
use crate::runtime::ResolvedImage;
use crate::source::{self, Location};

/// Resolves the base that the working tree's `phial.toml` names (or `base`), and writes `phial.lock` beside it.
pub fn lock(location: &Location, base: Option<&str>, context: &Context<'_>) -> Result<(PathBuf, Lock), Error> {
    let top = source::working_tree_root(location)?.ok_or_else(|| ConfigError::Tree(location.to_string()))?;
    let path = top.join("phial.toml");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(ConfigError::Io { path, source }.into()),
    };
    let settings = config::parse("phial.toml", &text)?;
    let name = base.map(str::to_owned).or(settings.image.base).ok_or(ConfigError::NoBase)?;
    let found = ResolvedImage::resolve(context, &config::reference("base", &name)?, None)?;
    let lock = Lock { base: LockedBase { name, digest: found.image.manifest_digest } };
    let path = top.join("phial.lock");
    write(&top, &path, &lock.text()).map_err(IoError::at("write", &path))?;
    Ok((path, lock))
}

/// The whole file or nothing.
fn write(dir: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}
