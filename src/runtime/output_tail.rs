//! The last lines of a command's output, which its error shows.

/// Number of lines.
const LINES: usize = 25;
/// Longest line, in bytes; longer ones are cut.
const WIDTH: usize = 400;

/// Collects the last lines of a stream of any length.
#[derive(Debug, Default)]
pub(crate) struct OutputTail {
    lines: std::collections::VecDeque<Vec<u8>>,
    /// The line that has no end yet.
    unfinished: Vec<u8>,
}

impl OutputTail {
    /// Adds output, which may begin and end anywhere in a line.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = WIDTH.saturating_sub(self.unfinished.len());
            self.unfinished.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < piece.len() {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(std::mem::take(&mut self.unfinished));
    }

    /// The lines as the command wrote them; who prints them makes them harmless.
    pub(crate) fn lines(mut self) -> Vec<String> {
        if !self.unfinished.is_empty() {
            self.close();
        }
        self.lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }
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
        assert_eq!(lines[LINES - 2..], ["line 99", "no end \u{1b}[31m"]);
    }

    #[test]
    fn a_long_line_is_cut() {
        let mut tail = OutputTail::default();
        (0..1000).for_each(|_| tail.push(&[b'x'; 1000]));
        assert_eq!(tail.lines(), ["x".repeat(WIDTH)]);
    }
}
