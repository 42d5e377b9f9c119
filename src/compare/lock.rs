//! Compares the dependencies in two `mix.lock` files: which are new, removed, or locked to another version.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use semver::Version;
use serde::Serialize;

use crate::elixir::mix_lock;

/// The path of `mix.lock` in images that Phial built.
pub(super) const PATH: &[u8] = b"app/mix.lock";
/// The largest `mix.lock` that is read, in bytes.
pub(super) const MAX: u64 = 4 << 20;

/// A dependency that two `mix.lock` files lock differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// The name of its app.
    pub name: String,
    /// The version on the left, or the first 12 digits of the git revision; `None` if it is not locked there.
    pub left: Option<String>,
    /// The same on the right.
    pub right: Option<String>,
    /// How it changed.
    #[serde(rename = "way")]
    pub change: LockChange,
}

/// How a locked dependency changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LockChange {
    /// To a higher version.
    Up,
    /// To a lower version.
    Down,
    /// Only the right side has it.
    Added,
    /// Only the left side has it.
    Removed,
    /// To another revision, source or checksum.
    Other,
}

/// The texts of `mix.lock` on both sides; of several layers that have one, the topmost.
#[derive(Default)]
pub(super) struct Locks {
    left: Option<String>,
    right: Option<String>,
}

impl Locks {
    /// Adds the text of a layer's `mix.lock`. Must be called for lower layers first.
    pub(super) fn left(&mut self, text: Option<&String>) {
        self.left = text.cloned().or(self.left.take());
    }

    pub(super) fn right(&mut self, text: Option<&String>) {
        self.right = text.cloned().or(self.right.take());
    }

    pub(super) fn dependencies(&self) -> Vec<Dependency> {
        dependencies(self.left.as_deref().unwrap_or_default(), self.right.as_deref().unwrap_or_default())
    }
}

/// A line of `mix.lock`.
struct Locked<'a> {
    /// The version, or the first 12 digits of the git revision.
    shown: String,
    line: &'a str,
}

/// The dependencies that differ between the texts of two `mix.lock` files, by name. Lines that cannot be
/// parsed are ignored.
pub fn dependencies(left: &str, right: &str) -> Vec<Dependency> {
    let (left, right) = (read(left), read(right));
    let mut names: Vec<&&str> = left.keys().chain(right.keys()).collect();
    names.sort();
    names.dedup();
    let changed = names.into_iter().filter_map(|name| {
        let (one, other) = (left.get(name), right.get(name));
        let change = match (one, other) {
            (Some(one), Some(other)) if one.line == other.line => return None,
            (Some(one), Some(other)) => version_change(&one.shown, &other.shown),
            (None, _) => LockChange::Added,
            (_, None) => LockChange::Removed,
        };
        let shown = |locked: Option<&Locked<'_>>| locked.map(|locked| locked.shown.clone());
        Some(Dependency { name: (*name).to_string(), left: shown(one), right: shown(other), change })
    });
    changed.collect()
}

fn version_change(left: &str, right: &str) -> LockChange {
    match (Version::parse(left), Version::parse(right)) {
        (Ok(left), Ok(right)) => match left.cmp_precedence(&right) {
            Ordering::Less => LockChange::Up,
            Ordering::Greater => LockChange::Down,
            Ordering::Equal => LockChange::Other,
        },
        _ => LockChange::Other,
    }
}

fn read(text: &str) -> BTreeMap<&str, Locked<'_>> {
    mix_lock::entries(text).filter_map(locked).collect()
}

fn locked(entry: mix_lock::LockEntry<'_>) -> Option<(&str, Locked<'_>)> {
    let shown = match entry.scm {
        "hex" => entry.version()?.to_owned(),
        "git" => entry.version()?.chars().take(12).collect(),
        scm => scm.to_owned(),
    };
    Some((entry.app, Locked { shown, line: entry.line }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_go_up_down_come_and_leave() {
        let hex = |name: &str, version: &str| {
            format!(
                "  \"{name}\": {{:hex, :{name}, \"{version}\", \"aa\", [:mix], [{{:x, \"~> 1.0\"}}], \"hexpm\", \"bb\"}},\n"
            )
        };
        let git =
            |rev: &str| format!("  \"stamp\": {{:git, \"https://u:p@host/stamp.git\", \"{rev}\", [tag: \"v1\"]}},\n");
        let left = [
            "%{\n",
            &hex("a", "1.4.4"),
            &hex("b", "2.0.0"),
            &hex("c", "1.0.0"),
            &hex("e", "1.0.0"),
            &git("0123456789abcdef"),
            "}\n",
        ];
        let right = [
            "%{\n",
            &hex("a", "1.4.10"),
            &hex("b", "2.0.0-rc.1"),
            &hex("d", "1.0.0"),
            &hex("e", "1.0.0"),
            &git("f123456789abcdef"),
            "}\n",
        ];
        let found = dependencies(&left.concat(), &right.concat());
        let shown = |side: &Option<String>| side.clone().unwrap_or_else(|| "-".into());
        let lines: Vec<String> = found
            .iter()
            .map(|d| format!("{} {} -> {} {:?}", d.name, shown(&d.left), shown(&d.right), d.change))
            .collect();
        assert_eq!(
            lines,
            [
                "a 1.4.4 -> 1.4.10 Up",
                "b 2.0.0 -> 2.0.0-rc.1 Down",
                "c 1.0.0 -> - Removed",
                "d - -> 1.0.0 Added",
                "stamp 0123456789ab -> f123456789ab Other"
            ]
        );
    }

    #[test]
    fn the_same_version_with_another_checksum_is_a_change() {
        let lock = |sum: &str| format!("  \"a\": {{:hex, :a, \"1.0.0\", \"{sum}\", [:mix], [], \"hexpm\", \"bb\"}},\n");
        assert_eq!(dependencies(&lock("aa"), &lock("ab"))[0].change, LockChange::Other);
        assert_eq!(dependencies(&lock("aa"), &lock("aa")), []);
        assert_eq!(dependencies("not a lock", ""), []);
    }
}
