//! Circles of files inside one module: each file of it uses the others, if only by way of them. Only those are allowed that are
//! argued for. That a parent (`mod.rs`) uses its own children is no edge: it is made of them, and they of its types.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::paths::{code, paths, statements, without_tests};
use super::{project, read, rust};

/// The circles that are as they should be, each with its reason.
const ALLOWED: &[(&[&str], &str)] = &[
    (
        &["compare::comparison", "compare::fields", "compare::files"],
        "a comparison is made of the differences of fields and of files, which count and print themselves in it",
    ),
    (
        &["unpack::header", "unpack::list", "unpack::sparse"],
        "the map of a sparse file is a part of its header, written in the numbers of a header",
    ),
];

type Name = Vec<String>;

/// The files of a crate by the path of their module.
struct Files {
    code: BTreeMap<Name, String>,
    /// What the `use` statements of a file bring into it: the last part of each path, and the whole path.
    imports: BTreeMap<Name, BTreeMap<String, Name>>,
}

impl Files {
    fn read(root: &str) -> Self {
        let mut texts = BTreeMap::new();
        for path in rust(&[root]) {
            if !path.ends_with("tests.rs") {
                texts.insert(module(&project().join(root), &path), code(without_tests(&read(&path))));
            }
        }
        Self::of(texts)
    }

    fn of(code: BTreeMap<Name, String>) -> Self {
        let mut files = Self { code, imports: BTreeMap::new() };
        let starts = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "];
        for (file, text) in &files.code {
            let used = statements(text, &starts).into_iter().filter_map(|path| files.absolute(file, &path));
            files.imports.insert(file.clone(), used.filter_map(|path| Some((path.last()?.clone(), path))).collect());
        }
        files
    }

    /// The path from the root of the crate, if it leads into the crate.
    fn absolute(&self, file: &Name, path: &[String]) -> Option<Name> {
        let mut base = file.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => (base, rest) = (Vec::new(), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|part| part == "super") {
                    base.pop()?;
                    rest = &rest[1..];
                }
            }
            child => {
                base.push(child.to_owned());
                let known = self.code.contains_key(&base);
                base.pop();
                known.then_some(())?;
            }
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// The file that has what an absolute path names; imports and re-exports on the way are followed.
    fn owner(&self, path: &[String], steps: usize) -> Option<Name> {
        let length = (0..=path.len()).rev().find(|length| self.code.contains_key(&path[..*length]))?;
        let (file, rest) = path.split_at(length);
        let imported = rest.first().and_then(|name| self.imports[file].get(name));
        match imported.filter(|target| steps > 0 && target[..] != path[..=length]) {
            Some(target) => self.owner(&[target, &rest[1..]].concat(), steps - 1),
            None => Some(file.to_vec()),
        }
    }

    /// Which file uses which, within a top-level module, or within the whole crate if it is to be seen as one.
    fn edges(&self, whole: bool) -> BTreeMap<Name, BTreeSet<Name>> {
        let mut edges = BTreeMap::new();
        for (file, text) in &self.code {
            let exported = statements(text, &["pub use ", "pub(crate) use ", "pub(super) use "]);
            let used = paths(text).into_iter().filter(|path| !exported.contains(path));
            let owners = used.filter_map(|path| self.owner(&self.absolute(file, &path)?, 8));
            let inside = owners.filter(|owner| !owner.starts_with(file) && (whole || owner.first() == file.first()));
            edges.insert(file.clone(), inside.collect());
        }
        edges
    }
}

/// The module of a file below `root`: `registry/client.rs` is `registry::client`, `registry/mod.rs` is `registry`.
fn module(root: &Path, path: &Path) -> Name {
    let below = path.strip_prefix(root).expect("below the root").with_extension("");
    let mut parts: Name = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// The sets of files that all reach each other.
fn circles(edges: &BTreeMap<Name, BTreeSet<Name>>) -> BTreeSet<Vec<String>> {
    let reached = |from: &Name| {
        let mut seen: BTreeSet<&Name> = BTreeSet::new();
        let mut next: Vec<&Name> = edges[from].iter().collect();
        while let Some(file) = next.pop() {
            if seen.insert(file) {
                next.extend(&edges[file]);
            }
        }
        seen
    };
    let all: BTreeMap<&Name, BTreeSet<&Name>> = edges.keys().map(|file| (file, reached(file))).collect();
    let circle = |file: &Name| {
        all[file].iter().filter(|other| all[**other].contains(file)).map(|other| other.join("::")).collect::<Vec<_>>()
    };
    edges.keys().map(circle).filter(|files| files.len() > 1).collect()
}

#[test]
fn files_of_a_module_use_each_other_in_one_direction() {
    let mut found = circles(&Files::read("src").edges(false));
    found.extend(circles(&Files::read("layers/src").edges(true)));
    let allowed: BTreeSet<Vec<String>> =
        ALLOWED.iter().map(|(files, _)| files.iter().map(|file| (*file).to_owned()).collect()).collect();
    let show = |circles: Vec<&Vec<String>>| circles.iter().map(|files| files.join(", ")).collect::<Vec<_>>().join("\n");
    let new = show(found.difference(&allowed).collect());
    assert!(new.is_empty(), "circles of files that nothing argues for:\n{new}");
    let gone = show(allowed.difference(&found).collect());
    assert!(gone.is_empty(), "circles that are open now; take them off the list:\n{gone}");
}

#[test]
fn a_circle_is_found_by_way_of_a_reexport_and_a_third_file_but_not_between_parent_and_child() {
    let name = |path: &str| path.split("::").map(str::to_owned).collect::<Name>();
    let files = Files::of(BTreeMap::from([
        (Vec::new(), "pub mod a;".to_owned()),
        (name("a"), "mod x; mod y; mod z;\npub use y::{Y, other};\npub struct Here;".to_owned()),
        (name("a::x"), "use super::Y;\nuse super::Here;".to_owned()),
        (name("a::y"), "fn f() { super::z::go() }".to_owned()),
        (name("a::z"), "use crate::a::x::X;".to_owned()),
        (name("b"), "mod c;\nfn f() { c::g() }\nstruct B;".to_owned()),
        (name("b::c"), "use super::B;\nfn g() {}".to_owned()),
    ]));
    let circle = ["a::x", "a::y", "a::z"].map(str::to_owned).to_vec();
    assert_eq!(circles(&files.edges(false)), BTreeSet::from([circle]));
}
