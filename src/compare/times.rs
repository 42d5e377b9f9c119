//! Whether the bytes of a file that differ are a time: such a file was written by a program that reads the clock.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The number of digits of a time in seconds, milliseconds, microseconds and nanoseconds since 1970, and how many of its last digits
/// are less than a second.
const SINCE_1970: [(usize, u32); 4] = [(10, 0), (13, 3), (16, 6), (19, 9)];
/// The nanoseconds of what counts the time since the machine was started: seconds, ticks of processes (proc(5)), milliseconds,
/// microseconds, nanoseconds.
const SINCE_START: [u128; 5] = [1_000_000_000, 10_000_000, 1_000_000, 1000, 1];
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

/// Whether two files are equal except for numbers that are times, or parts of a date or a time of day. `uptimes` are those of the
/// machine while it wrote both.
pub(super) fn differ_by_time(left: &[u8], right: &[u8], uptimes: Option<&RangeInclusive<Duration>>) -> bool {
    let (left, right) = (pieces(left), pieces(right));
    if left.len() != right.len() {
        return false;
    }
    let is_uptime = |nth| uptimes.is_some_and(|known| [&left, &right].iter().all(|text| is_uptime(text, nth, known)));
    if is_proc_uptime(&left) && is_proc_uptime(&right) && is_uptime(0) {
        return left != right;
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
                || is_uptime(nth)
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

/// Whether the number that the digits `nth` belong to is one of the uptimes, in whichever unit.
fn is_uptime(pieces: &[Piece<'_>], nth: usize, uptimes: &RangeInclusive<Duration>) -> bool {
    let digits = |nth: usize| match pieces.get(nth) {
        Some(Piece::Digits(digits)) => Some(*digits),
        _ => None,
    };
    let has_point = |nth: usize| pieces.get(nth) == Some(&Piece::Other(b"."));
    let whole = if nth > 1 && has_point(nth - 1) && digits(nth - 2).is_some() { nth - 2 } else { nth };
    let is_within = |value: u128, unit: u128| {
        let after = value.saturating_add(1).saturating_mul(unit);
        value.saturating_mul(unit) <= uptimes.end().as_nanos() && after > uptimes.start().as_nanos()
    };
    match (digits(whole), digits(whole + 2).filter(|_| has_point(whole + 1))) {
        (Some(whole), Some(fraction)) if fraction.len() <= 9 => {
            let unit = 10_u128.pow(9 - u32::try_from(fraction.len()).unwrap_or(0));
            number(&[whole, fraction].concat()).is_some_and(|value| is_within(value, unit))
        }
        (Some(whole), None) => {
            number(whole).is_some_and(|value| SINCE_START.iter().any(|unit| is_within(value, *unit)))
        }
        _ => false,
    }
}

/// Whether a text is that of `/proc/uptime`, in which the second number is the time that the cores were idle.
fn is_proc_uptime(pieces: &[Piece<'_>]) -> bool {
    let others = pieces.iter().skip(1).step_by(2);
    pieces.len() >= 7
        && matches!(pieces[0], Piece::Digits(_))
        && others.zip([&b"."[..], b" ", b"."]).all(|(piece, text)| *piece == Piece::Other(text))
        && matches!(pieces[7..], [] | [Piece::Other(b"\n")])
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
            assert!(differ_by_time(one.as_bytes(), other.as_bytes(), None), "{one:?}");
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
            assert!(!differ_by_time(one.as_bytes(), other.as_bytes(), None), "{one:?}");
        }
    }

    #[test]
    fn how_long_the_machine_is_up_is_a_time_of_this_machine_alone() {
        let uptimes = Duration::from_millis(15_234_100)..=Duration::from_millis(15_239_400);
        for (one, other) in [
            ("15234.11 28011.93\n", "15238.40 28019.03\n"),
            ("15234.11 28011.93", "15238.40 28019.03"),
            ("up 15234.1 s\n", "up 15238.9 s\n"),
            ("15234", "15239"),
            ("started at tick 1523490", "started at tick 1523811"),
            ("15234500123", "15238500123"),
            ("15234.500123987", "15238.500123987"),
        ] {
            let differ = |uptimes| differ_by_time(one.as_bytes(), other.as_bytes(), uptimes);
            assert!(differ(Some(&uptimes)) && !differ(None), "{one:?}");
        }
        for (one, other) in [
            ("15233.11 28011.93\n", "15238.40 28019.03\n"),
            ("15234.11 28011.93 1\n", "15238.40 28019.03 1\n"),
            ("0.15 1\n", "0.23 1\n"),
            ("15234 of 7", "15239 of 8"),
            ("15234.11 28011.93\n", "15234.11 28011.93\n"),
        ] {
            assert!(!differ_by_time(one.as_bytes(), other.as_bytes(), Some(&uptimes)), "{one:?}");
        }
    }
}
