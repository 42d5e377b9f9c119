//! Times in configs, annotations and records: RFC 3339 in UTC.

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};

const UNIX_EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// The years that RFC 3339 has, in seconds since 1970: 0000-01-01T00:00:00 to 9999-12-31T23:59:59.
const RANGE: (i64, i64) = (-62_167_219_200, 253_402_300_799);

/// Seconds since 1970 in UTC: `2026-11-22T11:13:20Z`. Times outside the years 0000 to 9999 are clamped.
pub fn rfc3339(seconds: i64) -> String {
    format!("{}Z", UNIX_EPOCH.saturating_add(SignedDuration::from_secs(seconds.clamp(RANGE.0, RANGE.1))))
}

/// Milliseconds since 1970 in UTC: `2026-11-22T11:13:20.250Z`.
pub fn rfc3339_millis(millis: i64) -> String {
    let text = rfc3339(millis.div_euclid(1000));
    format!("{}.{:03}Z", text.trim_end_matches('Z'), millis.rem_euclid(1000))
}

/// Milliseconds since 1970 of a time in UTC, with or without a fraction. `None` for any other form, also for those that
/// `jiff` reads: offsets, a space instead of `T`, a leap second.
pub fn from_rfc3339(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let time: DateTime = text.parse().ok()?;
    let millis = i64::try_from(time.duration_since(UNIX_EPOCH).as_millis()).ok()?;
    let (to_second, _) = text.split_once('.').unwrap_or((text, ""));
    // `as_millis` rounds towards zero, `rfc3339` needs the second before.
    let nanos = time.duration_since(UNIX_EPOCH).as_nanos();
    let millis = if nanos.rem_euclid(1_000_000) != 0 && nanos < 0 { millis - 1 } else { millis };
    (rfc3339(millis.div_euclid(1000)) == format!("{to_second}Z")).then_some(millis)
}

#[cfg(test)]
mod tests {
    use super::{from_rfc3339, rfc3339, rfc3339_millis};

    #[test]
    fn a_time_is_read_as_it_was_written_and_nothing_else_is_one() {
        for millis in [0, 1, 951_827_696_250, 1_795_346_000_999, -1, 4_107_542_400_000] {
            assert_eq!(from_rfc3339(&rfc3339_millis(millis)), Some(millis));
        }
        for (text, millis) in [
            ("1970-01-01T00:00:01Z", Some(1000)),
            ("1970-01-01T00:00:01.5Z", Some(1500)),
            ("1970-01-01T00:00:01.123456789Z", Some(1123)),
            ("1970-01-01T00:00:01+00:00", None),
            ("1970-02-30T00:00:00Z", None),
            ("1970-01-01T24:00:00Z", None),
            ("1970-01-01 00:00:00Z", None),
            ("+970-01-01T00:00:00Z", None),
            ("1970-01-01T00:00:00.Z", None),
            ("1970-01-01T00:00:0\u{e9}Z", None),
            ("", None),
        ] {
            assert_eq!(from_rfc3339(text), millis, "{text}");
        }
    }

    #[test]
    fn seconds_become_the_date_that_the_calendar_says() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_795_346_000, "2026-11-22T11:13:20Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (i64::MAX, "9999-12-31T23:59:59Z"),
            (i64::MIN, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
