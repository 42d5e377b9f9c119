//! Foreign text made harmless: the one place through which everything passes that is printed.
//!
//! What a step, an image, a commit or a registry says may hold control characters (of a terminal, or a line break that forges a
//! line of Phial), characters that change the direction of text, and commands that a CI engine takes from a log. None of them
//! reaches stdout or stderr.

use std::borrow::Cow;

/// Words that are commands of CI engines anywhere in a line: sections of GitLab and folds of Travis.
const WORDS: [&str; 4] = ["section_start:", "section_end:", "travis_fold:", "travis_time:"];

/// What is a command at the start of a line: of GitHub and Gitea, and the headers of Buildkite.
const STARTS: [&str; 5] = ["::", "---", "+++", "~~~", "^^^"];

/// Text on one line: control characters and line breaks are escaped, and no command of a CI engine is left.
pub(super) fn line(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.trim_end_matches(['\n', '\r']).chars() {
        if is_printable(c) { plain.push(c) } else { plain.extend(c.escape_debug()) }
    }
    without_commands(&plain)
}

/// Several lines, each as [`line`] has it.
pub(super) fn lines(text: &str) -> String {
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A line of a program's output: as [`line`], but without escape sequences and control characters.
pub(super) fn output(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    // Tabs are control characters to the stripper, and part of the text here.
    let cells: Vec<String> = text.split('\t').map(strip_ansi_escapes::strip_str).collect();
    line(&cells.join("\t").chars().filter(|c| !c.is_control() || *c == '\t').collect::<String>())
}

/// JSON on one line, with the same values: what would be escaped in text is an escape of JSON.
pub(super) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) {
            out.push(c);
        } else {
            out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    // These can be in strings only, where a character may be written as its number.
    for (word, harmless) in [("##", r"#\u0023"), ("section_", r"section\u005f"), ("travis_", r"travis\u005f")] {
        out = out.replace(word, harmless);
    }
    out
}

/// Whether a character stays as it is.
fn is_printable(c: char) -> bool {
    let is_direction =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_line_break = matches!(c, '\u{2028}' | '\u{2029}');
    // The joiners U+200C and U+200D are part of words and of emoji.
    let is_invisible = matches!(c, '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    (c == '\t' || !c.is_control()) && !is_direction && !is_line_break && !is_invisible
}

/// A line with a backslash in each command of a CI engine.
fn without_commands(line: &str) -> String {
    let mut text = Cow::Borrowed(line);
    for word in WORDS.iter().filter(|word| line.contains(**word)) {
        text = text.replace(word, &word.replace(':', "\\:")).into();
    }
    let mut text = without_bracket_commands(&text);
    let start = text.len() - text.trim_start().len();
    if STARTS.iter().any(|command| text[start..].starts_with(command)) {
        text.insert(start, '\\');
    }
    text
}

/// A line without `##[` (Azure, GitHub), `##vso[`, `##teamcity[` and the like.
fn without_bracket_commands(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("##") {
        let word = rest[at + 2..].bytes().take_while(u8::is_ascii_alphanumeric).count();
        let is_command = rest[at + 2 + word..].starts_with('[');
        let (before, after) = rest.split_at(if is_command { at + 2 + word } else { at + 1 });
        out.push_str(before);
        out.push_str(if is_command { "\\" } else { "" });
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What no printed line may hold, whatever it was made of.
    fn is_harmless(text: &str) -> bool {
        let has_command = |line: &str| {
            let line = line.trim_start();
            STARTS.iter().any(|command| line.starts_with(command))
                || WORDS.iter().any(|word| line.contains(word))
                || ["##[", "##vso[", "##teamcity["].iter().any(|command| line.contains(command))
        };
        text.chars().all(|c| is_printable(c) || c == '\n') && !text.lines().any(has_command)
    }

    /// Pieces that are dangerous alone or together.
    const PIECES: [&str; 30] = [
        "\u{1b}",
        "[0K",
        "[31m",
        "]0;x\u{7}",
        "\u{1b}_bk;t=1\u{7}",
        "\n",
        "\r",
        "\r\n",
        "\0",
        "\u{85}",
        "\u{9b}31m",
        "\u{202e}",
        "\u{2066}",
        "\u{2028}",
        "\u{feff}",
        "::error::",
        ":",
        "#",
        "##",
        "[",
        "vso[",
        "teamcity[",
        "--- x",
        "-",
        "+++ x",
        "~~~ x",
        "^^^ +++",
        "section_start:1:a",
        " ",
        "\t",
    ];

    #[test]
    fn nothing_that_is_put_together_of_dangerous_pieces_stays_dangerous() {
        for one in PIECES {
            for two in PIECES {
                for three in PIECES {
                    let text = [one, two, three].concat();
                    assert!(is_harmless(&line(&text)) && !line(&text).contains('\n'), "{text:?}: {:?}", line(&text));
                    assert!(is_harmless(&lines(&text)), "{text:?}: {:?}", lines(&text));
                    assert!(is_harmless(&output(text.as_bytes())), "{text:?}: {:?}", output(text.as_bytes()));
                    let document = json(&serde_json::json!({ "key": text }).to_string());
                    assert!(is_harmless(&document), "{text:?}: {document:?}");
                    let read: serde_json::Value = serde_json::from_str(&document).unwrap();
                    assert_eq!(read["key"], text, "the same value");
                }
            }
        }
    }

    #[test]
    fn what_is_harmless_stays_as_it_is() {
        for text in ["a: b::c", "#1 [x] ## note", "  | x", "- gone", "+ new", "a\tb", "größer 日本 👩‍💻", "`x`", "a -- b"]
        {
            assert_eq!(line(text), text);
            assert_eq!(output(text.as_bytes()), text);
        }
        assert_eq!(line("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert_eq!(line(" ::error::x ##vso[task]"), " \\::error::x ##vso\\[task]");
    }

    #[test]
    fn output_is_printed_without_colours() {
        let text = |line: &str| output(line.as_bytes());
        assert_eq!(text("\u{1b}[1m\u{1b}[31mred\u{1b}[0m [1m \u{1b}[2Kx\ty\r"), "red [1m x\ty");
        assert_eq!(text("cut \u{1b}["), "cut ");
        assert_eq!(text("\u{1b}]0;title\u{7}text"), "text");
        assert_eq!(text("#\u{1b}[m#[error]"), "##\\[error]", "what stripping puts together");
    }
}
