//! Reads the paths out of Rust source text: `a::b::C`, groups of `use` spelled out, without comments, strings and tests.

/// The code of a file: comments and strings are blanked, so that what is left are names and symbols.
pub(super) fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if first == '"' {
            string(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\") {
            rest[2..].find('\'').map_or(rest.len(), |end| end + 3)
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

/// A file without the module of tests that ends it.
pub(super) fn without_tests(text: &str) -> &str {
    let tests = text.match_indices("#[cfg(test)]").map(|(at, _)| at).find(|at| {
        text[*at..]
            .lines()
            .skip(1)
            .find(|line| !line.starts_with("#["))
            .is_some_and(|l| l.starts_with("mod ") && l.ends_with('{'))
    });
    &text[..tests.unwrap_or(text.len())]
}

/// The length of the raw string that begins here: `r"…"`, `br#"…"#`.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = after.chars().take_while(|c| *c == '#').count();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end)? + end.len();
    Some(text.len() - body.len() + length)
}

/// The length of the string that begins here.
fn string(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// All paths of two parts or more, in order, each as its parts; `use a::{b, c::d}` is `a::b` and `a::c::d`.
pub(super) fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut reader = Reader { rest: code };
    while reader.skip_to_name() {
        reader.path(&mut Vec::new(), &mut found);
    }
    found.retain(|path| path.len() > 1);
    found
}

/// The paths of each statement that begins a line with one of these words, such as `pub use `.
pub(super) fn statements(code: &str, starts: &[&str]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut at = 0;
    for line in code.split_inclusive('\n') {
        let body = &code[at + line.len() - line.trim_start().len()..];
        if let Some(word) = starts.iter().find(|word| body.starts_with(**word)) {
            found.extend(paths(&body[word.len()..body.find(';').unwrap_or(body.len())]));
        }
        at += line.len();
    }
    found
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip_to_name(&mut self) -> bool {
        let start = |c: char| c.is_alphanumeric() || c == '_';
        self.rest = self.rest.find(start).map_or("", |at| &self.rest[at..]);
        !self.rest.is_empty()
    }

    fn name(&mut self) -> String {
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.to_owned()
    }

    /// Reads one path, and the paths of the group that it may end in.
    fn path(&mut self, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        let depth = prefix.len();
        loop {
            let name = self.name();
            if name != "self" || prefix.is_empty() {
                prefix.push(name);
            }
            let Some(after) = self.rest.strip_prefix("::") else { break };
            if let Some(group) = after.strip_prefix('{') {
                self.rest = group;
                self.group(prefix, found);
                prefix.truncate(depth);
                return;
            }
            self.rest = after;
            if !after.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
                break; // `::<…>`, `::*`
            }
        }
        found.push(prefix.clone());
        prefix.truncate(depth);
    }

    fn group(&mut self, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        while let Some(first) = self.rest.chars().next() {
            if first.is_alphanumeric() || first == '_' {
                self.path(prefix, found);
                continue;
            }
            self.rest = &self.rest[first.len_utf8()..];
            if first == '}' {
                return;
            }
            if first == '*' {
                found.push(prefix.clone());
            }
        }
    }
}

#[test]
fn paths_are_read_from_groups_and_bodies_but_not_from_comments_strings_and_tests() {
    let text = "use crate::{event::{self, Watch}, store::Store, host};\n\
                // crate::cli\n\
                fn f() -> &'static str { crate::image::read(); let c = '\"'; \"crate::no\"; r#\"crate::\"no\"# }\n\
                #[cfg(test)]\nmod tests {\n    use crate::release;\n}\n";
    let shown: Vec<String> = paths(&code(without_tests(text))).iter().map(|path| path.join("::")).collect();
    let expected = ["crate::event", "crate::event::Watch", "crate::store::Store", "crate::host", "crate::image::read"];
    assert_eq!(shown, expected);
}

#[test]
fn the_statements_of_a_kind_are_read_on_their_own() {
    let text = "mod a;\npub use a::{B, C};\nuse d::E;\n";
    assert_eq!(statements(text, &["pub use "]), [["a", "B"], ["a", "C"]]);
}
