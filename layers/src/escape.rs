//! Escapes names of untrusted layers for messages: no control byte reaches a terminal, and the length is bounded.

use std::fmt::Write as _;

/// The length in bytes from which a name is cut.
const MAX_LEN: usize = 200;

/// `bytes` as text: printable characters as they are, all else and the backquote escaped; cut after about 200 bytes.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if text.len() > MAX_LEN {
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
            let _ = write!(text, "\\x{byte:02x}"); // writing to a String never fails
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
        assert_eq!(escaped(b"'\"\\"), "'\"\\\\");
        assert_eq!(escaped(&[b'a'; 201]), "a".repeat(201));
        assert_eq!(escaped(&[b'a'; 202]), format!("{}...", "a".repeat(201)));
        assert!(escaped(&[b'a'; 10_000]).len() < 220);
    }
}
