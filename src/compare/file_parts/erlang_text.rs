//! The parts of a file that is one term of Erlang as text: `.app` (`{application, Name, Properties}.`) and `.rel`
//! (`{release, {Name, Version}, {erts, Version}, Applications}.`). Their properties are the tuples in the outer tuple, and in
//! its list.

use super::FoundParts;

/// Adds each property by the atom that it begins with, and what is outside of them as `content`.
pub(super) fn find(text: &[u8], parts: &mut FoundParts) {
    let mut rest = Vec::new();
    let mut depth = 0_usize;
    let mut start = None;
    let mut at = 0;
    while at < text.len() {
        let end = token(text, at);
        match text[at] {
            b'{' | b'[' => {
                depth += 1;
                // Tuples at depth 2 are in the outer tuple; those at depth 3 in its list.
                if text[at] == b'{' && depth >= 2 && start.is_none() {
                    start = Some((at, depth));
                }
            }
            b'}' | b']' => {
                if let Some((from, _)) = start.filter(|(_, level)| *level == depth) {
                    parts.add(&first_word(&text[from + 1..at]), &text[from..end]);
                    start = None;
                    depth = depth.saturating_sub(1);
                    at = end;
                    continue;
                }
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        if start.is_none() {
            rest.extend_from_slice(&text[at..end]);
        }
        at = end;
    }
    parts.add("content", &rest);
}

/// Where the token that begins at `at` ends: a string, a quoted atom, a comment, a character, or one byte.
fn token(text: &[u8], at: usize) -> usize {
    let quote = text[at];
    let end = match quote {
        b'"' | b'\'' => {
            let mut end = at + 1;
            while end < text.len() && text[end] != quote {
                end += if text[end] == b'\\' { 2 } else { 1 };
            }
            end + 1
        }
        b'%' => text[at..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |length| at + length),
        b'$' => at + if text.get(at + 1) == Some(&b'\\') { 3 } else { 2 },
        _ => at + 1,
    };
    end.min(text.len())
}

fn first_word(inside: &[u8]) -> String {
    let inside = inside.trim_ascii_start();
    let end = match inside.first() {
        Some(b'"' | b'\'') => token(inside, 0),
        _ => inside.iter().position(|byte| matches!(byte, b',' | b'\n' | b' ')).unwrap_or(inside.len()),
    };
    String::from_utf8_lossy(&inside[..end]).trim_matches(['"', '\'']).to_owned()
}
