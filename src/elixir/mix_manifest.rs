//! Where the fields of Mix's manifests stand, by the version that a manifest begins with.
//!
//! Mix writes one for each compiler, `_build/ENV/lib/APP/.mix/compile.NAME`, a term without names. Source: `@manifest_vsn`, the
//! records `module` and `source`, and `write_manifest` in `lib/mix/lib/mix/compilers/elixir.ex` of each version of Elixir. The
//! versions that are not in the table were never in a release or a release candidate since 1.14.

use super::etf::Term;

/// The names of the fields of a manifest of Mix's Elixir compiler (`compile.elixir`), each by its position.
#[derive(Debug, PartialEq, Eq)]
pub struct ElixirLayout {
    /// The manifest's own tuple.
    pub manifest: &'static [&'static str],
    /// The record of a module.
    pub module: &'static [&'static str],
    /// The record of a source.
    pub source: &'static [&'static str],
}

const MANIFEST_14: &[&str] = &["version", "modules", "sources", "exports", "parents", "cache_key", "deps_config"];
const MANIFEST_25: &[&str] = &[
    "version",
    "modules",
    "sources",
    "exports",
    "parents",
    "cache_key",
    "deps_config",
    "project_mtime",
    "config_mtime",
];
const MANIFEST_28: &[&str] = &[
    "version",
    "modules",
    "sources",
    "exports",
    "parents",
    "cache_key",
    "deps_config",
    "project_mtime",
    "config_mtime",
    "protocols_and_impls",
];
const MANIFEST_29: &[&str] = &[
    "version",
    "modules",
    "sources",
    "exports",
    "parents",
    "cache_key",
    "cwd",
    "deps_config",
    "project_mtime",
    "config_mtime",
    "protocols_and_impls",
];

const MODULE_14: &[&str] = &["record", "module", "kind", "sources", "export", "recompile?"];
const MODULE_19: &[&str] = &["record", "module", "kind", "sources", "export", "recompile?", "timestamp"];
const MODULE_22: &[&str] = &["record", "kind", "sources", "export", "recompile?", "timestamp"];

const SOURCE_14: &[&str] = &[
    "record",
    "source",
    "size",
    "digest",
    "compile_references",
    "export_references",
    "runtime_references",
    "compile_env",
    "external",
    "warnings",
    "modules",
];
const SOURCE_19: &[&str] = &[
    "record",
    "source",
    "size",
    "digest",
    "compile_references",
    "export_references",
    "runtime_references",
    "compile_env",
    "external",
    "compile_warnings",
    "runtime_warnings",
    "modules",
];
const SOURCE_22: &[&str] = &[
    "record",
    "size",
    "digest",
    "compile_references",
    "export_references",
    "runtime_references",
    "compile_env",
    "external",
    "compile_warnings",
    "runtime_warnings",
    "modules",
];
const SOURCE_25: &[&str] = &[
    "record",
    "size",
    "mtime",
    "digest",
    "compile_references",
    "export_references",
    "runtime_references",
    "compile_env",
    "external",
    "compile_warnings",
    "runtime_warnings",
    "modules",
];

const fn layout(
    manifest: &'static [&'static str],
    module: &'static [&'static str],
    source: &'static [&'static str],
) -> ElixirLayout {
    ElixirLayout { manifest, module, source }
}

/// The known versions. Elixir 1.14 writes 14; 1.15 19, then 20; 1.16 23 (its candidates 22); 1.17 25; 1.18 26; 1.19 28, then 29;
/// 1.20 35 (its candidates 31 to 34); its branch `main` 37.
const LAYOUTS: [(&[i64], ElixirLayout); 6] = [
    (&[14], layout(MANIFEST_14, MODULE_14, SOURCE_14)),
    (&[19, 20], layout(MANIFEST_14, MODULE_19, SOURCE_19)),
    (&[22, 23], layout(MANIFEST_14, MODULE_22, SOURCE_22)),
    (&[25, 26], layout(MANIFEST_25, MODULE_22, SOURCE_25)),
    (&[28], layout(MANIFEST_28, MODULE_22, SOURCE_25)),
    (&[29, 31, 32, 33, 34, 35, 37], layout(MANIFEST_29, MODULE_22, SOURCE_25)),
];

/// The layout of a `compile.elixir` of this version; `None` for a version that is not known.
pub fn elixir_layout(version: i64) -> Option<&'static ElixirLayout> {
    LAYOUTS.iter().find(|(versions, _)| versions.contains(&version)).map(|(_, layout)| layout)
}

/// The version that a manifest begins with: the first element of a tuple or list.
pub fn version(manifest: &Term) -> Option<i64> {
    let first = match manifest {
        Term::Tuple(fields) => fields.first()?,
        Term::List(items, _) => items.first()?,
        _ => return None,
    };
    if let Term::Int(version) = first { Some(*version) } else { None }
}

/// The position of a field in one of the lists of names.
pub fn position(names: &[&str], name: &str) -> Option<usize> {
    names.iter().position(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_one_layout_and_every_layout_the_fields_that_are_settled() {
        let all: Vec<i64> = LAYOUTS.iter().flat_map(|(versions, _)| versions.iter().copied()).collect();
        assert!(all.is_sorted_by(|one, other| one < other), "{all:?}");
        for version in all {
            let layout = elixir_layout(version).unwrap();
            for name in ["size", "digest", "compile_env", "external", "modules", "runtime_references"] {
                assert!(position(layout.source, name).is_some(), "{version} {name}");
            }
            assert_eq!(position(layout.source, "mtime").is_some(), version >= 25, "{version}");
            assert_eq!(position(layout.module, "timestamp").is_some(), version >= 19, "{version}");
        }
        assert_eq!(elixir_layout(36), None);
    }

    #[test]
    fn a_version_is_what_a_manifest_begins_with() {
        let list = Term::List(vec![Term::Int(3)], Box::new(Term::Nil));
        assert_eq!(version(&Term::Tuple(vec![Term::Int(26), Term::Nil])), Some(26));
        assert_eq!(version(&list), Some(3));
        assert_eq!((version(&Term::Nil), version(&Term::Tuple(vec![]))), (None, None));
    }
}
