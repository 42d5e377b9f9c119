//! Where an app lies in its repository.

use super::{APP, WORKDIR};

/// The directory of an app in its repository. The image has the repository's needed parts below [`WORKDIR`], so that a path
/// with `..` in a `mix.exs` leads to the same file there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppDir(String);

impl AppDir {
    /// The directory at a path of the repository without `..`; the root for an empty one and for `.`.
    pub fn new(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        Self(parts.join("/"))
    }

    /// The first of `apps`, the root without any, or the umbrella that it is a child of. A child of an umbrella is no app of its own: its dependencies,
    /// lock file and compiled files are the umbrella's. `mix_exs` has the text of the file of that name in a directory.
    pub fn nearest<E>(apps: &[String], mix_exs: impl Fn(&Self) -> Result<Option<String>, E>) -> Result<Self, E> {
        let found = apps.first().map_or_else(Self::default, |dir| Self::new(dir));
        Ok(found.umbrella(mix_exs)?.unwrap_or(found))
    }

    /// The umbrella that the app is a child of.
    pub fn umbrella<E>(&self, mix_exs: impl Fn(&Self) -> Result<Option<String>, E>) -> Result<Option<Self>, E> {
        let mut above = self.0.as_str();
        while let Some((parent, _)) = above.rsplit_once('/').or((!above.is_empty()).then_some(("", above))) {
            let umbrella = Self(parent.to_owned());
            let text = mix_exs(&umbrella)?.unwrap_or_default();
            let paths = quoted_after(&text, "apps_path:");
            let is_child = |apps: &String| {
                let below = self.0.strip_prefix(&umbrella.file(apps)).and_then(|rest| rest.strip_prefix('/'));
                below.is_some_and(|name| !name.contains('/'))
            };
            if paths.iter().any(is_child) {
                return Ok(Some(umbrella));
            }
            above = parent;
        }
        Ok(None)
    }

    /// The directory that the `..` at the beginning of a path lead to from here; `None` if that is not in the repository.
    pub(super) fn above(&self, path: &str) -> Option<Self> {
        let up =
            path.split('/').filter(|part| !part.is_empty() && *part != ".").take_while(|part| *part == "..").count();
        let parts: Vec<&str> = self.0.split('/').filter(|part| !part.is_empty()).collect();
        Some(Self(parts[..parts.len().checked_sub(up)?].join("/")))
    }

    /// Whether it is the root of the repository.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Its path in the repository; empty for the root.
    pub fn path(&self) -> &str {
        &self.0
    }

    /// The path in the repository of what is at `path` in the app.
    pub fn file(&self, path: &str) -> String {
        if self.is_root() { path.to_owned() } else { format!("{}/{path}", self.0) }
    }

    /// The working directory of steps and of the image.
    pub fn workdir(&self) -> String {
        self.below(WORKDIR)
    }

    /// The same, relative to the root of a tree.
    pub fn in_tree(&self) -> String {
        self.below(APP)
    }

    fn below(&self, dir: &str) -> String {
        if self.is_root() { dir.to_owned() } else { format!("{dir}/{}", self.0) }
    }

    /// The last part of its path; `repository`, the repository's name, for the root.
    pub fn name<'a>(&'a self, repository: &'a str) -> &'a str {
        if self.is_root() { repository } else { self.0.rsplit('/').next().unwrap_or(repository) }
    }
}

/// The texts in double quotes that follow `key` in a source of Elixir, lines of comments left out.
pub(super) fn quoted_after(text: &str, key: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let text = lines.collect::<Vec<_>>().join("\n");
    let after = text
        .match_indices(key)
        .filter(|(at, _)| !text[..*at].ends_with(|before: char| before.is_alphanumeric() || before == '_'));
    let quoted = after.filter_map(|(at, _)| text[at + key.len()..].trim_start().strip_prefix('"')?.split('"').next());
    quoted.filter(|path| !path.contains("#{")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_app_is_found_and_a_child_of_an_umbrella_is_part_of_it() {
        let nearest = |dirs: &[&str], umbrella: &str, apps_path: &str| {
            let dirs: Vec<String> = dirs.iter().map(|dir| (*dir).to_owned()).collect();
            let mix_exs = |dir: &AppDir| {
                Ok::<_, ()>((dir.path() == umbrella).then(|| format!("[\n  apps_path: \"{apps_path}\",\n]")))
            };
            AppDir::nearest(&dirs, mix_exs).unwrap().path().to_owned()
        };
        assert_eq!(nearest(&["services/cart", "services"], "none", ""), "services/cart");
        assert_eq!(nearest(&[], "none", ""), "");
        assert_eq!(nearest(&["apps/web"], "", "apps"), "");
        assert_eq!(nearest(&["back/apps/web"], "back", "apps"), "back");
        assert_eq!(nearest(&["apps/web"], "", "children"), "apps/web");
        assert_eq!(nearest(&["apps/x/web"], "", "apps"), "apps/x/web");
    }

    #[test]
    fn paths_are_read_from_mix_exs_and_comments_are_not() {
        let text =
            "{:a, path: \"../a\"},\n  # {:b, path: \"../b\"}\n{:c, [path:\n \"c\"]}, lib_path: \"d\", path: \"#{x}/e\"";
        assert_eq!(quoted_after(text, "path:"), ["../a", "c"]);
    }

    #[test]
    fn the_root_is_as_without_a_directory() {
        for text in ["", ".", "./"] {
            let root = AppDir::new(text);
            assert_eq!((root.workdir().as_str(), root.in_tree().as_str()), ("/app", "app"));
            assert_eq!((root.file("mix.exs").as_str(), root.name("shop")), ("mix.exs", "shop"));
        }
        let cart = AppDir::new("./services/cart/");
        assert_eq!((cart.workdir().as_str(), cart.name("shop")), ("/app/services/cart", "cart"));
    }
}
