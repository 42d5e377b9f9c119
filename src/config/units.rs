//! Sizes and times as people write them: a whole number and a unit.
//!
//! The grammar is ours: `humantime` takes `10M` for ten months, and `bytesize` reads sizes through floating point and
//! rounds those that are too large.

/// Units of time, in seconds.
const TIMES: [(&str, u64); 5] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)];
/// Units of size, in bytes.
const SIZES: [(&str, u64); 7] = [
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
    ("", 1),
];

/// The seconds of a time such as `90s`, `10m`, `12h`, `14d` or `2w`; `None` if it is not one or is longer than a century.
pub fn seconds(text: &str) -> Option<u64> {
    let (number, factor) = TIMES.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))?;
    let seconds = whole_number(number)?.checked_mul(factor)?;
    Some(seconds).filter(|_| u32::try_from(seconds).is_ok())
}

/// The bytes of a size such as `1000`, `500MB` or `20 GB` (powers of ten); `None` if it is not one.
pub fn bytes(text: &str) -> Option<u64> {
    let (number, factor) = SIZES.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim(), *factor)))?;
    whole_number(number)?.checked_mul(factor)
}

fn whole_number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, size) in
            [("0", 0), ("1000", 1000), ("2kB", 2000), ("500MB", 500_000_000), ("20 GB", 20_000_000_000), ("3B", 3)]
        {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for text in ["", "GB", "-1", "+1", "1.5GB", "1PB", "99999999999999TB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn times_have_a_unit() {
        for (text, time) in
            [("90s", 90), ("10m", 600), ("1h", 3_600), ("12h", 43_200), ("14d", 1_209_600), ("1w", 604_800), ("0s", 0)]
        {
            assert_eq!(seconds(text), Some(time), "{text}");
        }
        for text in ["", "m", "d", "14", "-1d", "+1d", "1.5h", "10M", "99999999999h", "18446744073709551616s"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
