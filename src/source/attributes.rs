//! The attributes of a commit's files by which git gives a file other bytes than its blob has (gitattributes(5)): `filter` and
//! `working-tree-encoding`.
//!
//! Only the files `.gitattributes` of the commit count, not those of a user or a clone: an image depends on the commit alone.
//! libgit2 always reads `info/attributes` of the clone too, and has no limits.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::attribute_pattern::Pattern;

/// The attributes that are looked for.
const FILTER: &[u8] = b"filter";
const ENCODING: &[u8] = b"working-tree-encoding";

/// A longer line is ignored, as by git, in bytes.
const MAX_LINE: usize = 2048;
/// The most macros.
const MAX_MACROS: usize = 256;
/// The most rules, and assignments in them, of all files together.
const MAX_RULES: usize = 1_000_000;
/// The most steps in which rules are looked at and patterns are compared with paths: seconds.
const MAX_STEPS: u64 = 1 << 31;

/// The rules of all files `.gitattributes` of a commit.
#[derive(Default)]
pub(super) struct Attributes {
    /// In the order of precedence, lowest first.
    rules: Vec<Rule>,
    macros: BTreeMap<Vec<u8>, Vec<Assignment>>,
    /// The rules and assignments of all files, also of what is dropped.
    count: usize,
    /// The work so far.
    steps: Cell<u64>,
}

/// A line of such a file.
struct Rule {
    /// The directory of the file, empty or with `/` at its end.
    dir: Vec<u8>,
    pattern: Pattern,
    assignments: Vec<Assignment>,
}

struct Assignment {
    name: Vec<u8>,
    state: State,
}

/// What a line says of an attribute.
enum State {
    /// `name`.
    Set,
    /// `-name` or `!name`.
    Unset,
    /// `name=value`.
    Value(Vec<u8>),
}

/// The values of one file; `None` without a value.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Values {
    pub(super) filter: Option<String>,
    pub(super) encoding: Option<String>,
}

/// What lets attributes be refused: they cost too much.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Attributes {
    /// Adds a file `.gitattributes`. Files come in the order of their directories' depth: the deeper has precedence.
    pub(super) fn add(&mut self, dir: &[u8], text: &[u8]) -> Result<(), TooMany> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        for line in text.split(|byte| *byte == b'\n').filter(|line| line.len() < MAX_LINE) {
            let line = line.trim_ascii();
            if line.starts_with(b"#") {
                continue;
            }
            if let Some(definition) = line.strip_prefix(b"[attr]") {
                let (name, rest) = first_word(definition.trim_ascii_start());
                if dir.is_empty() && is_name(name) {
                    self.macros.insert(name.to_vec(), assignments(rest));
                }
                continue;
            }
            let (pattern, rest) = pattern_and_rest(line);
            let (Some(pattern), assignments) = (Pattern::parse(&pattern), assignments(rest)) else { continue };
            self.count += 1 + assignments.len();
            if self.count > MAX_RULES {
                return Err(TooMany);
            }
            if !assignments.is_empty() {
                self.rules.push(Rule { dir: dir.to_vec(), pattern, assignments });
            }
        }
        if self.macros.len() > MAX_MACROS { Err(TooMany) } else { Ok(()) }
    }

    /// Drops what says nothing of the attributes that are looked for, and returns whether something is left.
    pub(super) fn retain_relevant(&mut self) -> bool {
        let macros = &self.macros;
        let is_relevant = |name: &[u8]| name == FILTER || name == ENCODING || macros.contains_key(name);
        let names_one = |all: &[Assignment]| all.iter().any(|one| name_is_looked_for(&one.name));
        let any_macro = macros.values().any(|all| names_one(all));
        self.rules.retain(|rule| rule.assignments.iter().any(|one| is_relevant(&one.name)));
        any_macro || self.rules.iter().any(|rule| names_one(&rule.assignments))
    }

    /// The values for the file at `path`.
    pub(super) fn of(&self, path: &[u8]) -> Result<Values, TooMany> {
        let mut found = BTreeMap::new();
        for rule in self.rules.iter().rev() {
            let mut steps = self.steps.get() + 1;
            if let Some(below) = path.strip_prefix(rule.dir.as_slice())
                && rule.pattern.matches(below, &mut steps)
            {
                steps += rule.assignments.len() as u64;
                self.fill(&rule.assignments, &mut found);
            }
            self.steps.set(steps);
            if steps > MAX_STEPS {
                return Err(TooMany);
            }
        }
        let value = |name: &[u8]| match found.get(name) {
            Some(State::Value(value)) if !value.is_empty() => Some(String::from_utf8_lossy(value).into_owned()),
            _ => None,
        };
        Ok(Values { filter: value(FILTER), encoding: value(ENCODING) })
    }

    /// Adds what is not decided yet. The last assignment of a line has precedence, and each macro is expanded once.
    fn fill<'a>(&'a self, assignments: &'a [Assignment], found: &mut BTreeMap<&'a [u8], &'a State>) {
        for Assignment { name, state } in assignments.iter().rev() {
            if found.contains_key(name.as_slice()) {
                continue;
            }
            found.insert(name, state);
            if let (State::Set, Some(expansion)) = (state, self.macros.get(name)) {
                self.fill(expansion, found);
            }
        }
    }
}

fn name_is_looked_for(name: &[u8]) -> bool {
    name == FILTER || name == ENCODING
}

/// A word up to a blank, and what is after it.
fn first_word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    text.split_at(end)
}

/// The pattern of a line, which may be quoted as in C, and the assignments after it.
fn pattern_and_rest(line: &[u8]) -> (Vec<u8>, &[u8]) {
    unquoted(line).unwrap_or_else(|| {
        let (word, rest) = first_word(line);
        (word.to_vec(), rest)
    })
}

/// A text in double quotes at the beginning, and what is after it; `None` if there is none.
fn unquoted(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = line.strip_prefix(b"\"")?;
    let mut text = Vec::new();
    loop {
        let (first, tail) = rest.split_first()?;
        rest = tail;
        match first {
            b'"' => return Some((text, rest)),
            b'\\' => {
                let (escape, tail) = rest.split_first()?;
                rest = tail;
                text.push(match escape {
                    b'a' => 7,
                    b'b' => 8,
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'v' => 11,
                    b'f' => 12,
                    b'r' => b'\r',
                    b'\\' | b'"' => *escape,
                    b'0'..=b'3' => {
                        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                        rest = &rest[2..];
                        (escape - b'0') << 6 | u8::from_str_radix(digits, 8).ok()?
                    }
                    _ => return None,
                });
            }
            byte => text.push(*byte),
        }
    }
}

/// What a line says of attributes; nothing if one of them is not valid.
fn assignments(text: &[u8]) -> Vec<Assignment> {
    let words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let parse = |word: &[u8]| {
        let (name, state) = match (word.strip_prefix(b"-").or(word.strip_prefix(b"!")), word) {
            (Some(name), _) => (name, State::Unset),
            (None, word) => match word.iter().position(|byte| *byte == b'=') {
                Some(at) => (&word[..at], State::Value(word[at + 1..].to_vec())),
                None => (word, State::Set),
            },
        };
        is_name(name).then(|| Assignment { name: name.to_vec(), state })
    };
    words.map(parse).collect::<Option<_>>().unwrap_or_default()
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name[0] != b'-' && name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(b))
}

#[cfg(test)]
mod tests {
    use super::{Attributes, MAX_STEPS, TooMany};

    fn filter(files: &[(&str, &str)], path: &str) -> String {
        let mut attributes = Attributes::default();
        for (dir, text) in files {
            attributes.add(dir.as_bytes(), text.as_bytes()).unwrap();
        }
        attributes.retain_relevant();
        attributes.of(path.as_bytes()).unwrap().filter.unwrap_or_default()
    }

    #[test]
    fn the_last_line_and_the_deepest_file_decide() {
        let root = ("", "# *.x filter=no\n*.bin filter=lfs diff=lfs -text\nkeep.bin -filter\n");
        assert_eq!(filter(&[root], "a/b.bin"), "lfs");
        assert_eq!(filter(&[root], "a/keep.bin"), "");
        assert_eq!(filter(&[root], "a/b.x"), "");
        let files = [root, ("a/", "*.bin !filter\nkeep.bin filter=other\n")];
        assert_eq!(filter(&files, "a/b.bin"), "");
        assert_eq!(filter(&files, "a/keep.bin"), "other");
        assert_eq!(filter(&files, "ab/b.bin"), "lfs");
        assert_eq!(filter(&[("", "* filter=a filter=b\r\n")], "x"), "b");
        assert_eq!(filter(&[("", "\u{feff}* filter=a\n* filter\n")], "x"), "");
        assert_eq!(filter(&[("", "* filter=a\n* filter=b bad^name\n!* filter=c\n")], "x"), "a");
        assert_eq!(filter(&[("", &format!("* filter=a\n* filter=b {}\n", "x".repeat(2048)))], "x"), "a");
    }

    #[test]
    fn a_quoted_pattern_is_a_text_of_c() {
        assert_eq!(filter(&[("", "\"a b.\\\"\\303\\251\" filter=lfs\n")], "a b.\"é"), "lfs");
        assert_eq!(filter(&[("", "\"a filter=lfs\n")], "\"a"), "lfs");
    }

    #[test]
    fn a_macro_of_the_root_is_expanded() {
        let macros = "[attr]big filter=lfs -text\n[attr]huge big\n";
        let text = format!("{macros}*.a big\n*.b huge\n*.c huge -filter\n*.d huge filter=x\n*.e -huge\n");
        for (path, value) in [("1.a", "lfs"), ("1.b", "lfs"), ("1.c", ""), ("1.d", "x"), ("1.e", "")] {
            assert_eq!(filter(&[("", &text)], path), value, "{path}");
        }
        assert_eq!(filter(&[("", "* filter=x\n"), ("a/", "[attr]big filter=lfs\n* big\n")], "a/b"), "x");
        assert_eq!(filter(&[("", "[attr]loop loop filter=x\n* loop\n")], "a"), "x");
    }

    #[test]
    fn attributes_that_cost_too_much_are_refused() {
        let macros = (0..300).map(|n| format!("[attr]m{n} m{}", n + 1)).collect::<Vec<_>>().join("\n");
        assert_eq!(Attributes::default().add(b"", macros.as_bytes()), Err(TooMany));
        let mut attributes = Attributes::default();
        attributes.add(b"", format!("{}b filter=x\n", "*a".repeat(900)).as_bytes()).unwrap();
        attributes.steps.set(MAX_STEPS - 100);
        assert_eq!(attributes.of("a".repeat(255).as_bytes()), Err(TooMany));
    }
}
