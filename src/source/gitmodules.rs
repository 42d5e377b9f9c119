//! `.gitmodules`: where the submodules of a commit come from (gitmodules(5), in the syntax of git-config(1)).
//!
//! The reader of libgit2 opens a file by its path and follows the includes in it; this text is a blob of a commit.

/// What the file says of one submodule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SubmoduleSection {
    /// Its name, by which git stores it. Never one that leads out of a directory.
    pub(super) name: String,
    /// Its directory.
    pub(super) path: Option<String>,
    /// Where it comes from: a URL, or one relative to that of its repository.
    pub(super) url: Option<String>,
    /// How git updates it; `none` leaves it out.
    pub(super) update: Option<String>,
}

/// The submodules of a file, in its order; `None` if it is not in the syntax.
pub(super) fn parse(text: &str) -> Option<Vec<SubmoduleSection>> {
    let mut modules: Vec<SubmoduleSection> = Vec::new();
    let mut current: Option<usize> = None;
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { return Some(modules) };
        match first {
            '#' | ';' => rest = rest.find('\n').map_or("", |end| &rest[end..]),
            '[' => {
                let (name, after) = section(&rest[1..])?;
                rest = after;
                current = name.filter(|name| is_safe(name)).map(|name| {
                    modules.iter().position(|module| module.name == name).unwrap_or_else(|| {
                        modules.push(SubmoduleSection { name, ..SubmoduleSection::default() });
                        modules.len() - 1
                    })
                });
            }
            _ => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
                let (key, after) = rest.split_at(end);
                let after = after.trim_start_matches([' ', '\t']);
                let (value, after) = match after.strip_prefix('=') {
                    Some(after) => value(after)?,
                    None if after.is_empty() || after.starts_with(['\n', '\r', '#', ';']) => (String::new(), after),
                    None => return None,
                };
                if key.is_empty() {
                    return None;
                }
                rest = after;
                let Some(module) = current.and_then(|nth| modules.get_mut(nth)) else { continue };
                let field = match key.to_ascii_lowercase().as_str() {
                    "path" => &mut module.path,
                    "url" => &mut module.url,
                    "update" => &mut module.update,
                    _ => continue,
                };
                field.get_or_insert(value); // the first counts, as for git
            }
        }
    }
}

/// Whether a name leads nowhere but below the directory of the submodules (git, too: CVE-2018-11235). An absolute one would be
/// another directory of this machine.
fn is_safe(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('/')
        && !name.split(['/', '\\']).any(|part| part == "..")
        && !name.contains(char::is_control)
}

/// The name in the header of a section after its `[`, `None` if it is not that of a submodule; and what is after the `]`.
fn section(text: &str) -> Option<(Option<String>, &str)> {
    let end = text.find([']', '"', '\n'])?;
    let (kind, mut rest) = text.split_at(end);
    if let Some(after) = rest.strip_prefix(']') {
        return Some((None, after));
    }
    rest = rest.strip_prefix('"')?;
    let mut name = String::new();
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => break,
            '\n' => return None,
            '\\' => {
                let escaped = rest.chars().next()?;
                rest = &rest[escaped.len_utf8()..];
                name.push(escaped);
            }
            c => name.push(c),
        }
    }
    let is_submodule = kind.trim().eq_ignore_ascii_case("submodule");
    Some((is_submodule.then_some(name), rest.strip_prefix(']')?))
}

/// A value after its `=`, and what is after its line.
fn value(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    let (mut value, mut blanks, mut is_quoted) = (String::new(), String::new(), false);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        let plain = match c {
            '\n' if is_quoted => return None,
            '\n' => return Some((value, &text[at..])),
            '#' | ';' if !is_quoted => {
                return Some((value, text[at..].find('\n').map_or("", |end| &text[at + end..])));
            }
            '"' => {
                is_quoted = !is_quoted;
                continue;
            }
            ' ' | '\t' | '\r' if !is_quoted => {
                blanks.push(c);
                continue;
            }
            '\\' => match chars.next()?.1 {
                '\n' => continue,
                'n' => '\n',
                't' => '\t',
                'b' => '\u{8}',
                c @ ('"' | '\\') => c,
                _ => return None,
            },
            c => c,
        };
        value.push_str(&blanks);
        blanks.clear();
        value.push(plain);
    }
    (!is_quoted).then_some((value, ""))
}

#[cfg(test)]
mod tests {
    use super::{SubmoduleSection, parse};

    #[test]
    fn submodules_are_read_as_git_reads_them() {
        let text = "# a comment\n[core]\n\tpath = no\n[Submodule \"lib/a \\\"b\\\"\"] ; another\n\tpath = vendor/a  ; and one\r\n\
                    \tURL = \"https://git.example/a b#c\"\n\turl = second\n\tshallow\n[submodule \"two\"] path=b\n update = \\\nnone\n";
        let module = |name: &str, path: &str, url: Option<&str>, update: Option<&str>| SubmoduleSection {
            name: name.into(),
            path: Some(path.into()),
            url: url.map(Into::into),
            update: update.map(Into::into),
        };
        assert_eq!(
            parse(text).unwrap(),
            [
                module("lib/a \"b\"", "vendor/a", Some("https://git.example/a b#c"), None),
                module("two", "b", None, Some("none")),
            ]
        );
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("[submodule \"../../x\"]\n\tpath = a\n[submodule \"a/../b\"]\n\turl = x\n").unwrap(), []);
        assert_eq!(
            parse("[submodule \"/srv/git/other/.git\"]\n\tpath = a\n").unwrap(),
            [],
            "a directory of the machine"
        );
    }

    #[test]
    fn a_text_in_another_syntax_is_none() {
        for bad in [
            "[submodule \"a\n\"]",
            "[submodule \"a\"",
            "= x",
            "path : x",
            "[s \"a\"]\nurl = \"x",
            "url = \\q",
            "[",
            "é",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
