//! The last lines of a command's output, for the error that says how it ended.

/// How many lines are kept, and how long each may be, in bytes.
const LINES: usize = 25;
const WIDTH: usize = 400;

/// Keeps the last lines of a stream that may be endless.
#[derive(Debug, Default)]
pub(crate) struct OutputTail {
    lines: std::collections::VecDeque<Vec<u8>>,
    open: Vec<u8>,
}

impl OutputTail {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = WIDTH.saturating_sub(self.open.len());
            self.open.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < piece.len() {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(std::mem::take(&mut self.open));
    }

    /// The lines, with control characters escaped.
    pub(crate) fn lines(mut self) -> Vec<String> {
        if !self.open.is_empty() {
            self.close();
        }
        self.lines.iter().map(|line| escaped(&String::from_utf8_lossy(line))).collect()
    }
}

fn escaped(line: &str) -> String {
    line.trim_end_matches('\r')
        .chars()
        .map(|c| if c.is_control() && c != '\t' { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_kept_however_they_arrive() {
        let mut tail = OutputTail::default();
        for n in 0..100 {
            tail.push(format!("line {n}").as_bytes());
            tail.push(b"\n");
        }
        tail.push(b"no end \x1b[31m");
        let lines = tail.lines();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[LINES - 2..], ["line 99", "no end \\u{1b}[31m"]);
    }

    #[test]
    fn an_endless_line_takes_no_endless_room() {
        let mut tail = OutputTail::default();
        (0..1000).for_each(|_| tail.push(&[b'x'; 1000]));
        assert_eq!(tail.lines(), ["x".repeat(WIDTH)]);
    }
}
