//! Names from layers made fit for a message: no byte of them reaches a terminal raw, and none is longer than a line.

use std::fmt::Write as _;

const LONGEST: usize = 200;

/// `bytes` as text: what is valid UTF-8 and printable as it is, the rest escaped; cut after 200 characters or so.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if text.len() > LONGEST {
                text.push_str("...");
                return text;
            }
            match c {
                '\'' | '"' => text.push(c),
                '`' => text.push_str("\\u{60}"),
                other => text.extend(other.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}"); // a String takes whatever is written
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn control_bytes_are_escaped_and_long_names_are_cut() {
        assert_eq!(escaped("lib/é`\u{1b}[31m\n".as_bytes()), "lib/é\\u{60}\\u{1b}[31m\\n");
        assert_eq!(escaped(b"a\xffb"), "a\\xffb");
        assert!(escaped(&[b'a'; 10_000]).len() < 220);
    }
}
