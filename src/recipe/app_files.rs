//! Which files of a repository an app needs: its own directory, its path dependencies, and what symbolic links lead to.

use std::collections::BTreeSet;

use super::app_dir::quoted_after;
use super::source_tree::{Found, SourceTree};
use super::{Recipe, RecipeError, SourceFile, SourceKind};

/// The part of a repository that is in the image of one of its apps.
#[derive(Debug, Default)]
pub struct AppFiles {
    /// The paths of the files.
    pub files: BTreeSet<Vec<u8>>,
    /// The directories and files that were chosen with all below them; the empty path is the whole repository.
    pub roots: BTreeSet<Vec<u8>>,
}

impl AppFiles {
    /// Whether a path is one of these files or may become one.
    pub fn covers(&self, path: &[u8]) -> bool {
        self.roots.iter().any(|root| root.is_empty() || super::is_below(path, root))
    }
}

impl Recipe {
    /// The files that the app needs of all `files` of its repository. `read` has the text of a file; its paths of dependencies
    /// are followed as far as they are written out in a `mix.exs`, others are named by `image.include`.
    pub fn app_files<E: From<RecipeError>>(
        &self,
        files: &[SourceFile],
        read: impl Fn(&[u8]) -> Result<Option<String>, E>,
    ) -> Result<AppFiles, E> {
        let tree = SourceTree::new(files);
        self.check_app_dir(&tree)?;
        let mut found = AppFiles::default();
        let mut queue = vec![self.app.path().as_bytes().to_vec()];
        for path in &self.include {
            if !tree.exists(path.as_bytes()) {
                return Err(RecipeError::Missing { key: "image.include", path: path.clone() }.into());
            }
            let resolved = tree.resolve(path.as_bytes());
            found.files.extend(resolved.links);
            queue.push(resolved.path);
        }
        while let Some(root) = queue.pop() {
            if found.covers(&root) {
                continue;
            }
            found.roots.insert(root.clone());
            let own = tree.kind(&root).map(|kind| (root.as_slice(), kind));
            let below: Vec<_> =
                own.into_iter().chain(tree.below(&root)).map(|(path, kind)| (path.to_vec(), kind)).collect();
            for (path, kind) in below {
                match kind {
                    SourceKind::Link(_) => {
                        let resolved = tree.resolve(&path);
                        found.files.extend(resolved.links);
                        if matches!(resolved.found, Found::File | Found::Dir) {
                            queue.push(resolved.path);
                        }
                    }
                    SourceKind::File | SourceKind::Executable if is_mix_exs(&path) => {
                        let dir = &path[..path.len() - "mix.exs".len()];
                        for target in path_dependencies(&read(&path)?.unwrap_or_default()) {
                            let resolved = tree.resolve(&[dir, target.as_bytes()].concat());
                            found.files.extend(resolved.links);
                            match resolved.found {
                                Found::Dir => queue.push(resolved.path),
                                Found::File => {}
                                Found::Missing | Found::Outside if dir.strip_suffix(b"/").unwrap_or(dir) != root => {}
                                Found::Missing | Found::Outside => {
                                    let mix_exs = path.escape_ascii().to_string();
                                    return Err(RecipeError::PathDependency { mix_exs, path: target }.into());
                                }
                            }
                        }
                    }
                    _ => {}
                }
                found.files.insert(path);
            }
        }
        Ok(found)
    }

    /// Checks that the commit has the app's directory.
    fn check_app_dir(&self, tree: &SourceTree<'_>) -> Result<(), RecipeError> {
        let dir = self.app.path();
        let resolved = tree.resolve(dir.as_bytes());
        let why = match resolved.found {
            _ if !resolved.links.is_empty() => "a symbolic link is on the way to it",
            Found::Dir if tree.kind(dir.as_bytes()).is_some() => "it is a submodule",
            Found::Dir => return Ok(()),
            Found::File => "it is a file",
            Found::Missing | Found::Outside => "the commit does not have it",
        };
        Err(RecipeError::AppDir { dir: dir.to_owned(), why })
    }
}

/// A `mix.exs` that is not that of a fetched or committed dependency.
fn is_mix_exs(path: &[u8]) -> bool {
    let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let name = parts.pop();
    name == Some(b"mix.exs") && !parts.iter().any(|part| matches!(*part, b"deps" | b"_build" | b"node_modules"))
}

/// The paths in a `mix.exs` that lead out of its directory.
fn path_dependencies(text: &str) -> Vec<String> {
    quoted_after(text, "path:").into_iter().filter(|path| path.split('/').any(|part| part == "..")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::source_tree::tests::files;
    use super::super::{AppDir, Script};
    use super::*;

    fn needed(app: &str, include: &[&str], paths: &[&str], mix: &[(&str, &str)]) -> Result<String, RecipeError> {
        let recipe = Recipe {
            app: AppDir::new(app),
            include: include.iter().map(|path| (*path).to_owned()).collect(),
            script: Script::BuiltIn,
            envs: vec!["prod".into()],
            inputs: vec![],
            lockfile: None,
            hex: None,
            env: BTreeMap::new(),
        };
        let read =
            |path: &[u8]| Ok(mix.iter().find(|(name, _)| name.as_bytes() == path).map(|(_, text)| (*text).to_owned()));
        let found = recipe.app_files::<RecipeError>(&files(paths), read)?;
        Ok(found.files.into_iter().map(|path| String::from_utf8(path).unwrap()).collect::<Vec<_>>().join(" "))
    }

    const PATHS: [&str; 9] = [
        "mix.exs",
        "services/cart/mix.exs",
        "services/cart/lib/a.ex",
        "services/other/mix.exs",
        "libs/shared/mix.exs",
        "libs/shared/lib/s.ex",
        "libs/base/mix.exs",
        "data/x.json",
        "file",
    ];

    #[test]
    fn path_dependencies_of_path_dependencies_are_needed_and_a_neighbour_is_not() {
        let own = "services/cart/lib/a.ex services/cart/mix.exs";
        assert_eq!(needed("services/cart", &[], &PATHS, &[]).unwrap(), own);
        let mix = [
            ("services/cart/mix.exs", "{:shared, path: \"../../libs/shared\"}"),
            ("libs/shared/mix.exs", "{:base, path: \"../base\"}, {:cart, path: \"../../services/cart\"}"),
        ];
        let shared = "libs/base/mix.exs libs/shared/lib/s.ex libs/shared/mix.exs";
        assert_eq!(needed("services/cart", &[], &PATHS, &mix).unwrap(), format!("{shared} {own}"));
        assert_eq!(needed("services/cart", &["data"], &PATHS, &[]).unwrap(), format!("data/x.json {own}"));
    }

    #[test]
    fn what_links_lead_to_is_needed() {
        let paths = [&PATHS[..], &["services/cart/config -> ../../conf", "conf -> libs/base"]].concat();
        let found = needed("services/cart", &[], &paths, &[]).unwrap();
        assert_eq!(found, "conf libs/base/mix.exs services/cart/config services/cart/lib/a.ex services/cart/mix.exs");
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let mix = [("services/cart/mix.exs", "{:gone, path: \"../gone\"}")];
        let error = needed("services/cart", &[], &PATHS, &mix).unwrap_err();
        assert_eq!(
            error,
            RecipeError::PathDependency { mix_exs: "services/cart/mix.exs".into(), path: "../gone".into() }
        );
        let error = needed("services/cart", &["gone"], &PATHS, &[]).unwrap_err();
        assert!(matches!(error, RecipeError::Missing { key: "image.include", .. }));
        let paths = [&PATHS[..], &["link -> services/cart", "sub/"]].concat();
        for (dir, text) in [("gone", "not have"), ("file", "a file"), ("link", "link"), ("sub", "submodule")] {
            let error = needed(dir, &[], &paths, &[]).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains(dir), "{error}");
        }
    }
}
