//! Whether the bytes of a file that differ are a time: such a file was written by a program that reads the clock.

/// The number of digits of a time in seconds, milliseconds, microseconds and nanoseconds since 1970, and how many of its last digits
/// are less than a second.
const SINCE_1970: [(usize, u32); 4] = [(10, 0), (13, 3), (16, 6), (19, 9)];
/// 2001-09-09 to 2096-10-02.
const YEARS: std::ops::Range<u128> = 1_000_000_000..4_000_000_000;
/// The most seconds between two times that are taken for those of two builds.
const APART: u128 = 100 * 24 * 3600;

/// A part of a text: a number, or what is between two.
#[derive(PartialEq, Eq)]
enum Piece<'a> {
    Digits(&'a [u8]),
    Other(&'a [u8]),
}

/// Whether two files are equal except for numbers that are times, or parts of a date or a time of day.
pub(super) fn differ_by_time(left: &[u8], right: &[u8]) -> bool {
    let (left, right) = (pieces(left), pieces(right));
    if left.len() != right.len() {
        return false;
    }
    let mut differing = (0..left.len()).filter(|nth| left[*nth] != right[*nth]).peekable();
    differing.peek().is_some()
        && differing.all(|nth| {
            let (Piece::Digits(one), Piece::Digits(other)) = (&left[nth], &right[nth]) else { return false };
            let is_beside = |at: Option<usize>, first: bool| match at.and_then(|at| left.get(at)) {
                Some(Piece::Other(text)) => {
                    let byte = if first { text.first() } else { text.last() };
                    byte.is_some_and(|byte| b":-/TZ".contains(byte))
                }
                _ => false,
            };
            let is_alone = left.iter().filter(|piece| matches!(piece, Piece::Digits(_))).count() == 1;
            since_1970(one, other)
                || ((is_alone || is_beside(nth.checked_sub(1), false) || is_beside(Some(nth + 1), true))
                    && is_part(one)
                    && is_part(other))
        })
}

fn pieces(text: &[u8]) -> Vec<Piece<'_>> {
    let runs = text.chunk_by(|one, other| one.is_ascii_digit() == other.is_ascii_digit());
    runs.map(|run| if run[0].is_ascii_digit() { Piece::Digits(run) } else { Piece::Other(run) }).collect()
}

fn number(digits: &[u8]) -> Option<u128> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether both are times since 1970 that are not far apart.
fn since_1970(one: &[u8], other: &[u8]) -> bool {
    let seconds = |digits: &[u8]| {
        let (_, less) = SINCE_1970.iter().find(|(length, _)| *length == digits.len())?;
        number(digits).map(|number| number / 10_u128.pow(*less)).filter(|seconds| YEARS.contains(seconds))
    };
    match (seconds(one), seconds(other)) {
        (Some(one), Some(other)) => one.abs_diff(other) < APART,
        _ => false,
    }
}

/// Whether it can be a year, a month, a day, an hour, a minute or a second.
fn is_part(digits: &[u8]) -> bool {
    match digits.len() {
        1 | 2 => number(digits).is_some_and(|number| number < 60),
        4 => number(digits).is_some_and(|number| (2000..2100).contains(&number)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_dates_and_minutes_are_no_other_numbers() {
        for (one, other) in [
            ("1764280577\n", "1764280578\n"),
            ("built at 1764280577123 ms", "built at 1764280578004 ms"),
            ("2026-11-27T21:56:17Z", "2026-11-27T21:57:01Z"),
            ("Fri Nov 27 21:59:17 UTC 2026", "Fri Nov 27 22:00:17 UTC 2026"),
            ("built on 2026-11-30", "built on 2026-12-01"),
            ("21:56", "21:57"),
            ("56\n", "57\n"),
            ("a 1 b 1764280577", "a 1 b 1764280599"),
        ] {
            assert!(differ_by_time(one.as_bytes(), other.as_bytes()), "{one:?}");
        }
        for (one, other) in [
            ("same", "same"),
            ("1764280577", "2764280578"),
            ("4711", "4712"),
            ("731", "732"),
            ("pid 12 of 40", "pid 13 of 40"),
            ("1764280577 one", "1764280578 two"),
            ("0123456789", "9876543210"),
            ("", "1764280577"),
        ] {
            assert!(!differ_by_time(one.as_bytes(), other.as_bytes()), "{one:?}");
        }
    }
}
