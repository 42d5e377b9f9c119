//! Patterns of gitattributes(5), which are those of gitignore(5), compared with paths in time that is bounded by the product of
//! their lengths.
//!
//! The crates `globset` and `ignore` take patterns in UTF-8 only; these are bytes. libgit2 exports no function for one pattern.

/// A pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    parts: Vec<PatternPart>,
    /// Whether it is compared with the name of a file alone, in any directory.
    is_name: bool,
}

/// What is between two slashes.
#[derive(Debug)]
enum PatternPart {
    /// `**`: directories.
    Dirs,
    /// One name.
    Name(Vec<PatternToken>),
}

#[derive(Debug)]
enum PatternToken {
    /// `*`.
    Star,
    /// `?`.
    Any,
    Byte(u8),
    /// `[…]`: ranges, and whether a byte must be in one.
    Class(Vec<(u8, u8)>, bool),
}

impl Pattern {
    /// Reads a pattern; `None` if it matches no file.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        if text.is_empty() || text.starts_with(b"!") || text.ends_with(b"/") {
            return None;
        }
        let is_name = !text.contains(&b'/');
        let parts = text.strip_prefix(b"/").unwrap_or(text).split(|byte| *byte == b'/');
        let part = |text: &[u8]| match text {
            b"**" if !is_name => Some(PatternPart::Dirs),
            _ => tokens(text).map(PatternPart::Name),
        };
        Some(Self { parts: parts.map(part).collect::<Option<_>>()?, is_name })
    }

    /// Whether it matches a path from the directory of its file. Adds the work to `steps`.
    pub(super) fn matches(&self, path: &[u8], steps: &mut u64) -> bool {
        let mut parts = path.rsplit(|byte| *byte == b'/');
        let names: Vec<&[u8]> = if self.is_name { parts.next().into_iter().collect() } else { parts.rev().collect() };
        *steps += names.len() as u64;
        let (mut at, mut name) = (0, 0);
        // The last `**`, and how many names it takes.
        let mut star: Option<(usize, usize)> = None;
        while name < names.len() {
            *steps += 1;
            match self.parts.get(at) {
                Some(PatternPart::Dirs) if at + 1 == self.parts.len() => return true,
                Some(PatternPart::Dirs) => {
                    star = Some((at, name));
                    at += 1;
                    continue;
                }
                Some(PatternPart::Name(tokens)) if matches_name(tokens, names[name], steps) => {
                    at += 1;
                    name += 1;
                    continue;
                }
                _ => {}
            }
            let Some((part, taken)) = star else { return false };
            star = Some((part, taken + 1));
            (at, name) = (part + 1, taken + 1);
        }
        at == self.parts.len()
    }
}

fn matches_name(tokens: &[PatternToken], name: &[u8], steps: &mut u64) -> bool {
    let (mut at, mut byte) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while byte < name.len() {
        *steps += 1;
        let is_match = match tokens.get(at) {
            Some(PatternToken::Star) => {
                star = Some((at, byte));
                at += 1;
                continue;
            }
            Some(PatternToken::Any) => true,
            Some(PatternToken::Byte(wanted)) => *wanted == name[byte],
            Some(PatternToken::Class(ranges, is_in)) => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&name[byte])) == *is_in
            }
            None => false,
        };
        if is_match {
            at += 1;
            byte += 1;
            continue;
        }
        let Some((token, taken)) = star else { return false };
        star = Some((token, taken + 1));
        (at, byte) = (token + 1, taken + 1);
    }
    tokens[at..].iter().all(|token| matches!(token, PatternToken::Star))
}

/// The tokens of a name; `None` if a bracket or an escape does not end.
fn tokens(text: &[u8]) -> Option<Vec<PatternToken>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        found.push(match first {
            b'*' => PatternToken::Star,
            b'?' => PatternToken::Any,
            b'\\' => {
                let (byte, tail) = rest.split_first()?;
                rest = tail;
                PatternToken::Byte(*byte)
            }
            b'[' => {
                let (class, tail) = class(rest)?;
                rest = tail;
                class
            }
            byte => PatternToken::Byte(*byte),
        });
    }
    Some(found)
}

/// A class after its `[`, and what is after its `]`.
fn class(text: &[u8]) -> Option<(PatternToken, &[u8])> {
    let inverted = text.strip_prefix(b"!").or(text.strip_prefix(b"^"));
    let mut rest = inverted.unwrap_or(text);
    let mut ranges = Vec::new();
    let mut is_first = true;
    loop {
        let (first, tail) = rest.split_first()?;
        if *first == b']' && !is_first {
            return Some((PatternToken::Class(ranges, inverted.is_none()), tail));
        }
        is_first = false;
        if let Some(named) = rest.strip_prefix(b"[:") {
            let end = named.windows(2).position(|two| two == b":]")?;
            ranges.extend(posix_class(&named[..end])?);
            rest = &named[end + 2..];
            continue;
        }
        let (low, tail) = class_byte(rest)?;
        match tail {
            [b'-', after @ ..] if !after.starts_with(b"]") => {
                let (high, tail) = class_byte(after)?;
                ranges.push((low, high));
                rest = tail;
            }
            _ => {
                ranges.push((low, low));
                rest = tail;
            }
        }
    }
}

fn class_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    let (first, tail) = text.split_first()?;
    if *first == b'\\' { tail.split_first().map(|(byte, tail)| (*byte, tail)) } else { Some((*first, tail)) }
}

fn posix_class(name: &[u8]) -> Option<Vec<(u8, u8)>> {
    Some(match name {
        b"alnum" => vec![(b'0', b'9'), (b'A', b'Z'), (b'a', b'z')],
        b"alpha" => vec![(b'A', b'Z'), (b'a', b'z')],
        b"blank" => vec![(b' ', b' '), (b'\t', b'\t')],
        b"cntrl" => vec![(0, 31), (127, 127)],
        b"digit" => vec![(b'0', b'9')],
        b"graph" => vec![(33, 126)],
        b"lower" => vec![(b'a', b'z')],
        b"print" => vec![(32, 126)],
        b"punct" => vec![(33, 47), (58, 64), (91, 96), (123, 126)],
        b"space" => vec![(b' ', b' '), (9, 13)],
        b"upper" => vec![(b'A', b'Z')],
        b"xdigit" => vec![(b'0', b'9'), (b'A', b'F'), (b'a', b'f')],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns_match_the_paths_that_git_takes_them_for() {
        for (pattern, matching, others) in [
            ("*.bin", "a.bin a/b/c.bin .bin", "a.bi a.bin/x"),
            ("a*c?", "abcd acd a/b/aXcY", "abc abcde"),
            ("/top", "top", "a/top"),
            ("a/*.x", "a/1.x", "a/b/1.x b/a/1.x"),
            ("**/x", "x a/x a/b/x", "ax a/xx"),
            ("a/**", "a/b a/b/c", "a b/a"),
            ("a/**/z", "a/z a/b/z a/b/c/z", "a/b az"),
            ("a/**/b/*/c", "a/b/x/c a/b/b/x/c a/q/b/b/c", "a/b/c a/b/x/y/c"),
            ("a**b", "ab axxb d/ab", "a/b"),
            ("d/a**b", "d/axb", "d/a/b"),
            ("[a-c]x", "ax cx", "dx"),
            ("[!a-c]x", "dx -x", "ax"),
            ("[^]]x", "ax", "]x"),
            ("[]a-]", "] a -", "b"),
            ("[[:digit:]x][\\]]", "1] x]", "y]"),
            ("\\*\\!", "*!", "a!"),
            ("?", "a", "é ab"),
        ] {
            let pattern_ = Pattern::parse(pattern.as_bytes()).unwrap();
            for (paths, wanted) in [(matching, true), (others, false)] {
                for path in paths.split(' ') {
                    assert_eq!(pattern_.matches(path.as_bytes(), &mut 0), wanted, "{pattern} {path}");
                }
            }
        }
        for none in ["", "!a", "a/", "[a", "[[:no:]]", "a\\"] {
            assert!(Pattern::parse(none.as_bytes()).is_none(), "{none}");
        }
    }
}
