//! Which files of a commit the deps step may see, links followed.
//!
//! A file is chosen by the path at which the step finds it. That is its own path, or one through symbolic links: with
//! `config -> infra/settings`, the step finds `infra/settings/prod.exs` as `config/prod.exs`. Then it must see the file and
//! every link on the way.

use std::collections::BTreeSet;

use super::source_tree::{Found, MAX_LINKS, ResolvedPath, SourceKind, SourceTree};
use super::{Recipe, RecipeError, Script, SourceFile};

/// The most paths through links that are looked at: links to directories that have links to each other make as many as one
/// likes.
const MAX_PATHS: usize = 50_000;

/// The files of a commit that the deps step may see.
#[derive(Debug, Default)]
pub struct DepsInputs {
    /// Their paths, and those of the links that lead to them.
    pub visible: BTreeSet<Vec<u8>>,
    /// The first link that the step needs and that leads to nothing in the commit.
    pub broken: Option<RecipeError>,
}

impl DepsInputs {
    /// The paths; an error if the step needs more than the commit has.
    pub fn complete(self) -> Result<BTreeSet<Vec<u8>>, RecipeError> {
        self.broken.map_or(Ok(self.visible), Err)
    }
}

impl Recipe {
    /// The files that the deps step may see, of all `files` of the source.
    pub fn deps_inputs(&self, files: &[SourceFile]) -> DepsInputs {
        let tree = SourceTree::new(files);
        let mut walk =
            InputsWalk { recipe: self, tree: &tree, inputs: DepsInputs::default(), left: MAX_PATHS + 2 * files.len() };
        walk.dir(&[], &[], &BTreeSet::new());
        walk.inputs
    }

    /// The files that are in the deps layer and not in the app's: the sources of committed dependencies, which are visible
    /// to the step that compiles them and stay as it leaves them.
    pub fn vendored(&self, files: &[SourceFile]) -> BTreeSet<Vec<u8>> {
        let tree = SourceTree::new(files);
        let is_vendored = |file: &&SourceFile| {
            file.kind != SourceKind::Submodule && Project::of(&tree, &file.path).is_some_and(|found| found.in_deps)
        };
        let files = files.iter().filter(|_| self.script == Script::BuiltIn).filter(is_vendored);
        files.map(|file| file.path.clone()).collect()
    }

    /// Whether the step finds at `path` a file that it may see.
    fn wants(&self, tree: &SourceTree<'_>, path: &[u8]) -> bool {
        let is_read_by_script = match &self.script {
            Script::BuiltIn => is_mix_input(tree, path),
            Script::InRepository(script) => path == self.app.file(script).as_bytes(),
        };
        is_read_by_script
            || self.lockfile.as_ref().is_some_and(|lockfile| path == self.app.file(lockfile).as_bytes())
            || self.inputs.iter().any(|input| is_below(path, self.app.file(input).as_bytes()))
    }

    /// Whether the step cannot do without what is at `path`, where the commit has a link.
    fn needs(&self, tree: &SourceTree<'_>, path: &[u8]) -> bool {
        let named =
            self.inputs.iter().chain(&self.lockfile).any(|input| is_below(self.app.file(input).as_bytes(), path));
        if named {
            return true;
        }
        let is_dir_of_mix = || {
            let is = |parent: &str, name: &str| tree.exists(join(parent, name).as_bytes());
            let Ok(text) = std::str::from_utf8(path) else { return false };
            let (parent, name) = text.rsplit_once('/').unwrap_or(("", text));
            (name == "config" && is(parent, "mix.exs"))
                || ([parent, text].contains(&&*self.app.file("apps")) && is(self.app.path(), "mix.exs"))
        };
        match &self.script {
            Script::BuiltIn => {
                let in_deps = Project::of(tree, path).is_some_and(|found| found.in_deps);
                !in_deps && (is_mix_input(tree, path) || is_dir_of_mix())
            }
            Script::InRepository(script) => path == self.app.file(script).as_bytes(),
        }
    }
}

struct InputsWalk<'a> {
    recipe: &'a Recipe,
    tree: &'a SourceTree<'a>,
    inputs: DepsInputs,
    /// How many more paths are looked at.
    left: usize,
}

impl InputsWalk<'_> {
    /// Chooses files of the directory `real`, which the step finds at `seen` by these links.
    fn dir(&mut self, seen: &[u8], real: &[u8], links: &BTreeSet<Vec<u8>>) {
        for (path, kind) in self.tree.below(real) {
            let Some(left) = self.left.checked_sub(1) else {
                self.inputs.broken.get_or_insert(RecipeError::TooManyLinks);
                return;
            };
            self.left = left;
            let rest = if real.is_empty() { path } else { &path[real.len() + 1..] };
            let at = if seen.is_empty() { rest.to_vec() } else { [seen, b"/", rest].concat() };
            match kind {
                SourceKind::File | SourceKind::Executable => {
                    if self.recipe.wants(self.tree, &at) {
                        self.inputs.visible.extend(links.iter().cloned().chain([path.to_vec()]));
                    }
                }
                SourceKind::Link(target) => self.link(&at, path, target, links),
                SourceKind::Submodule => {}
            }
        }
    }

    fn link(&mut self, at: &[u8], path: &[u8], target: &[u8], links: &BTreeSet<Vec<u8>>) {
        let ResolvedPath { found, path: real, links: followed } = self.tree.resolve(path);
        let wants = self.recipe.wants(self.tree, at);
        let all: BTreeSet<Vec<u8>> = links.union(&followed).cloned().collect();
        match found {
            // The link leads to a directory above itself, or the kernel does not follow as many.
            Found::Dir if links.contains(path) || all.len() > MAX_LINKS => {}
            Found::Dir => {
                if wants {
                    self.inputs.visible.extend(all.clone());
                }
                self.dir(at, &real, &all);
            }
            Found::File if wants => self.inputs.visible.extend(all.into_iter().chain([real])),
            Found::Missing | Found::Outside if self.recipe.needs(self.tree, at) => {
                let [link, target] = [path, target].map(|text| text.escape_ascii().to_string());
                let broken = RecipeError::Link { link, target, is_outside: found == Found::Outside };
                self.inputs.broken.get_or_insert(broken);
            }
            // The step sees such a link as the image has it.
            Found::Missing | Found::Outside if wants => self.inputs.visible.extend(all),
            _ => {}
        }
    }
}

/// A place in a Mix project.
pub(super) struct Project {
    /// Whether it is below the project's `deps`, where Mix keeps sources.
    pub(super) in_deps: bool,
}

impl Project {
    /// The place of a path below `deps` or `_build` of a Mix project; `None` for other paths.
    pub(super) fn of(tree: &SourceTree<'_>, path: &[u8]) -> Option<Self> {
        let mut start = 0;
        for part in path.split(|byte| *byte == b'/') {
            let end = start + part.len();
            let is_project = || tree.exists(&[&path[..start], b"mix.exs"].concat());
            match part {
                b"node_modules" => return None,
                b"deps" | b"_build" if is_project() => {
                    return (end < path.len() || part == b"_build").then_some(Self { in_deps: part == b"deps" });
                }
                _ => start = end + 1,
            }
        }
        None
    }
}

/// Whether Mix or rebar3 reads the file to resolve dependencies, or to compile them. `config/runtime.exs` is read at run time
/// only, and what rebar3 has compiled is not looked at.
fn is_mix_input(tree: &SourceTree<'_>, path: &[u8]) -> bool {
    let is_in = |name: &[u8]| path.split(|byte| *byte == b'/').any(|part| part == name);
    if let Some(Project { in_deps }) = Project::of(tree, path) {
        return in_deps && !is_in(b"_build");
    }
    let Ok(text) = std::str::from_utf8(path) else { return false };
    let (dir, name) = text.rsplit_once('/').unwrap_or(("", text));
    if dir.split('/').any(|part| part == "deps" || part == "_build" || part == "node_modules") {
        return false;
    }
    if matches!(name, "mix.exs" | "mix.lock" | "rebar.config" | "rebar.lock" | ".tool-versions") {
        return true;
    }
    // Everything below a `config/` that is next to a `mix.exs`.
    let mut rest = dir;
    while let Some(at) = rest.rfind("config") {
        let (before, after) = (&rest[..at], &rest[at + "config".len()..]);
        if (after.is_empty() || after.starts_with('/'))
            && (before.is_empty() || before.ends_with('/'))
            && tree.exists(format!("{before}mix.exs").as_bytes())
        {
            return name != "runtime.exs";
        }
        rest = before;
    }
    false
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// Whether a path is a directory or below it.
pub fn is_below(path: &[u8], dir: &[u8]) -> bool {
    let dir = dir.strip_suffix(b"/").unwrap_or(dir);
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::AppDir;
    use super::super::source_tree::tests::files;
    use super::*;

    fn recipe(inputs: &[&str]) -> Recipe {
        let inputs = inputs.iter().map(|input| (*input).to_owned()).collect();
        let envs = vec!["prod".into()];
        Recipe {
            app: AppDir::default(),
            include: vec![],
            script: Script::BuiltIn,
            envs,
            inputs,
            lockfile: None,
            hex: None,
            env: BTreeMap::new(),
        }
    }

    fn shown(paths: BTreeSet<Vec<u8>>) -> String {
        paths.into_iter().map(|path| String::from_utf8(path).unwrap()).collect::<Vec<_>>().join(" ")
    }

    fn seen(inputs: &[&str], paths: &[&str]) -> String {
        shown(recipe(inputs).deps_inputs(&files(paths)).complete().unwrap())
    }

    #[test]
    fn a_link_and_what_it_leads_to_are_seen() {
        let settings = ["mix.exs", "config -> infra/settings", "infra/settings/a.exs", "infra/settings/runtime.exs"];
        assert_eq!(seen(&[], &settings), "config infra/settings/a.exs mix.exs");
        let chain = ["mix.exs -> build/mix.ex", "build -> tools", "tools/mix.ex", "tools/other.ex"];
        assert_eq!(seen(&[], &chain), "build mix.exs tools/mix.ex");
        let umbrella = ["mix.exs", "apps/x -> ../libs/x", "libs/x/mix.exs", "libs/x/config/c.exs", "libs/x/lib/x.ex"];
        assert_eq!(seen(&[], &umbrella), "apps/x libs/x/config/c.exs libs/x/mix.exs mix.exs");
        let all = ["mix.exs", "apps -> libs", "libs/x/mix.exs", "libs/x/lib/x.ex"];
        assert_eq!(seen(&[], &all), "apps libs/x/mix.exs mix.exs");
        let lock = ["mix.exs", "mix.lock -> locks/prod.lock", "locks/prod.lock", "locks/dev.lock"];
        assert_eq!(seen(&[], &lock), "locks/prod.lock mix.exs mix.lock");
        let within = [
            "mix.exs",
            "config/a.exs -> ../shared/b.exs",
            "config/env -> ../shared/env",
            "shared/b.exs",
            "shared/env/p",
        ];
        assert_eq!(seen(&[], &within), "config/a.exs config/env mix.exs shared/b.exs shared/env/p");
        let named = ["mix.exs", "certs -> priv/certs", "priv/certs/a.pem", "priv/b"];
        for inputs in [&["certs"][..], &["certs/a.pem"], &["certs/"]] {
            assert_eq!(seen(inputs, &named), "certs mix.exs priv/certs/a.pem", "{inputs:?}");
        }
    }

    #[test]
    fn links_that_the_step_has_no_use_for_are_not_seen() {
        let paths =
            ["mix.exs", "priv/current -> v2", "priv/v2/x", "config/runtime.exs -> ../r.exs", "r.exs", "gone -> /etc"];
        assert_eq!(seen(&[], &paths), "mix.exs");
    }

    #[test]
    fn a_link_of_the_step_that_leads_to_nothing_is_refused_by_name() {
        for (link, inputs) in [
            ("mix.lock -> /etc/passwd", &[][..]),
            ("mix.lock -> ../../mix.lock", &[]),
            ("config -> infra", &[]),
            ("config/a.exs -> a.exs", &[]),
            ("apps/x -> ../../x", &[]),
            ("certs -> /etc/ssl", &["certs/ca.pem"]),
        ] {
            let error = recipe(inputs).deps_inputs(&files(&["mix.exs", link])).complete().unwrap_err();
            let (name, target) = link.split_once(" -> ").unwrap();
            assert!(
                matches!(&error, RecipeError::Link { link, target: to, .. } if link == name && to == target),
                "{error}"
            );
        }
    }

    #[test]
    fn links_in_circles_end() {
        assert_eq!(
            seen(&[], &["mix.exs", "a/up -> ..", "b/up -> ../a", "config/c.exs"]).split(' ').next_back(),
            Some("mix.exs")
        );
        let dirs: Vec<String> = (0..40).flat_map(|n| (0..40).map(move |m| format!("d{n}/l{m} -> ../d{m}"))).collect();
        let paths: Vec<&str> = ["mix.exs"].into_iter().chain(dirs.iter().map(String::as_str)).collect();
        let error = recipe(&[]).deps_inputs(&files(&paths)).complete().unwrap_err();
        assert_eq!(error, RecipeError::TooManyLinks);
    }

    #[test]
    fn committed_dependencies_are_seen_and_belong_to_the_deps_layer() {
        let paths = [
            "mix.exs",
            "deps/x/mix.exs",
            "deps/x/lib/x.ex",
            "deps/x/link -> /gone",
            "deps/x/_build/default/x.beam",
            "deps/sub/",
            "apps/web/mix.exs",
            "apps/web/deps/y/y.ex",
            "lib/deps/z.ex",
            "assets/node_modules/deps/z.js",
        ];
        let vendored = "apps/web/deps/y/y.ex deps/x/lib/x.ex deps/x/link deps/x/mix.exs";
        assert_eq!(seen(&[], &paths), format!("apps/web/deps/y/y.ex apps/web/mix.exs {} mix.exs", &vendored[21..]));
        let hidden = "deps/x/_build/default/x.beam ";
        let all = vendored.replace("deps/x/lib", &format!("{hidden}deps/x/lib"));
        assert_eq!(shown(recipe(&[]).vendored(&files(&paths))), all);
    }

    #[test]
    fn what_mix_compiles_must_not_be_in_the_commit() {
        for (path, is_refused) in [
            ("_build/prod/lib/a/ebin/a.beam", true),
            ("_build -> /tmp/build", true),
            ("apps/web/_build/x", true),
            ("out/prod/lib/a/.mix/compile.elixir", true),
            ("docs/_build/index.html", false),
            ("lib/_build.ex", false),
            ("deps/a/_build/x", false),
            ("test/fixtures/lib/a/ebin/a.beam", false),
        ] {
            let files = files(&["mix.exs", "apps/web/mix.exs", path]);
            assert_eq!(matches!(recipe(&[]).check(&files), Err(RecipeError::Compiled(_))), is_refused, "{path}");
        }
    }
}
