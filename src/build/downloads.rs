//! Hex and rebar3 that a step downloaded because the base image has none. Which version that is, is in no cache key: it is the
//! newest of that day, unless `prepare.hex` names it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use phial_layers::Digest;

use super::BuildError;
use super::base_home::{HOME, home_of_base};
use super::step_runner::StepRunner;
use crate::error::Error;
use crate::image::shown;
use crate::recipe::MIX_HOME;
use crate::rootfs::ImageFiles;
use crate::store::Tree;

/// The largest rebar3 that is read, in bytes.
const MAX_REBAR3: u64 = 64 << 20;

impl StepRunner<'_> {
    /// Tells what the step that fetches downloaded, and keeps it for the report. `below` are the trees under its changes. An error
    /// if `prepare.hex` names another version of Hex.
    pub(super) fn note_downloads(&self, fetched: &Tree, below: &[Tree]) -> Result<(), Error> {
        let recipe = &self.plan.recipe;
        let mix_home = recipe.env(&self.base_env, 0).get("MIX_HOME").cloned().unwrap_or_else(|| MIX_HOME.to_owned());
        let homes: Vec<String> =
            home_of_base(&self.base_env, self.base_user, below)?.into_iter().chain([HOME.to_owned()]).collect();
        let downloads = downloads(fetched, below, Path::new(mix_home.trim_start_matches('/')), &homes)?;
        match (downloads.get("hex"), &recipe.hex) {
            (Some(found), Some(wanted)) if found != wanted => {
                return Err(BuildError::HexVersion { wanted: wanted.clone(), found: shown(found) }.into());
            }
            (Some(found), None) => self.context.notice(format!(
                "Hex {0} was downloaded, and tomorrow it may be another: name a base image that has Hex, or set `prepare.hex = \"{0}\"`",
                shown(found)
            )),
            _ => {}
        }
        if let Some(digest) = downloads.get("rebar3") {
            self.context.notice(format!(
                "rebar3 (`{digest}`) was downloaded, and tomorrow it may be another: name a base image that has rebar3"
            ));
        }
        if let Ok(mut all) = self.downloads.lock() {
            all.extend(downloads);
        }
        Ok(())
    }
}

/// The version of `hex` and the digest of `rebar3` among the changes of a step, without what it copied from a home of the base.
fn downloads(
    fetched: &Tree,
    below: &[Tree],
    mix_home: &Path,
    homes: &[String],
) -> Result<BTreeMap<&'static str, String>, Error> {
    let mut found = BTreeMap::new();
    let root = fetched.root.open()?;
    let names = |dir: &str| -> Result<Vec<PathBuf>, Error> {
        let Some(dir_of) = root.dir(mix_home.join(dir))? else { return Ok(vec![]) };
        Ok(dir_of.names()?.into_iter().map(|name| Path::new(dir).join(name)).collect())
    };
    let below = ImageFiles::open(below)?;
    let is_copied = |path: &Path| {
        let in_home = |home: &String| below.entry(Path::new(home.trim_start_matches('/')).join(".mix").join(path));
        Ok::<_, Error>(homes.iter().map(in_home).collect::<Result<Vec<_>, _>>()?.iter().any(Option::is_some))
    };
    for archive in names("archives")? {
        if let Some(version) = archive.file_name().and_then(|name| hex_version(name.to_str()?))
            && !is_copied(&archive)?
        {
            found.insert("hex", version.to_owned());
        }
    }
    for dir in names("elixir")? {
        let path = dir.join("rebar3");
        if let Some(bytes) = root.read(mix_home.join(&path), MAX_REBAR3)?
            && !is_copied(&path)?
        {
            found.insert("rebar3", Digest::of(&bytes).to_string());
        }
    }
    Ok(found)
}

/// The version in the name of an archive: `hex-2.0.6`, `hex-2.0.6.ez` or `hex-2.2.1-otp-27`.
fn hex_version(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("hex-")?;
    let rest = rest.strip_suffix(".ez").unwrap_or(rest);
    Some(rest.split_once("-otp-").map_or(rest, |(version, _)| version))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_step_downloaded_is_not_what_it_copied_from_the_base() {
        let (fetched, base) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |path: PathBuf| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        for archive in ["hex-2.0.6-otp-27", "phx_new-1.7.0"] {
            write(fetched.path().join("opt/mix/archives").join(archive).join("ebin/x.app"));
        }
        write(fetched.path().join("opt/mix/elixir/1-18-otp-27/rebar3"));
        let trees = [Tree::bare(base.path())];
        let homes = ["/home/app".to_owned(), HOME.to_owned()];
        let found = || downloads(&Tree::bare(fetched.path()), &trees, Path::new("opt/mix"), &homes).unwrap();
        let rebar3 = Digest::of(b"x").to_string();
        assert_eq!(found(), BTreeMap::from([("hex", "2.0.6".to_owned()), ("rebar3", rebar3)]));
        write(base.path().join("home/app/.mix/archives/hex-2.0.6-otp-27/ebin/x.app"));
        write(base.path().join("root/.mix/elixir/1-18-otp-27/rebar3"));
        assert_eq!(found(), BTreeMap::new());
        for (name, version) in [("hex-2.0.6", Some("2.0.6")), ("hex-2.0.6.ez", Some("2.0.6")), ("hexes", None)] {
            assert_eq!(hex_version(name), version, "{name}");
        }
    }
}
