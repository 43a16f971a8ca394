//! Reads single values from text: integers, booleans, sizes and durations. Pure; for use by monitors and hosts
//! alike, so that all understand the same units.

use core::time::Duration;

/// Units of [`size`], by their names in lower case. One letter means the power of 1024, as for systemd.
const SIZES: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

/// Units of [`duration`], in nanoseconds.
const DURATIONS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Reads a signed 64-bit integer in decimal.
///
/// # Errors
/// Says in a few words what is wrong.
pub fn integer(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("not an integer".to_owned());
    }
    text.parse().map_err(|_| "out of range for an integer of 64 bits".to_owned())
}

/// Reads `true` or `false`.
///
/// # Errors
/// Says in a few words what is wrong.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}

/// Reads a number of bytes: a whole number and a unit, in upper or lower case. `K`, `M`, `G`, `T` and `KiB`, …
/// are powers of 1024, `KB`, `MB`, `GB`, `TB` powers of 1000; without a unit or with `B` it is bytes.
///
/// # Errors
/// Says in a few words what is wrong.
pub fn size(text: &str) -> Result<u64, String> {
    let bad = || "not a size such as 10MiB".to_owned();
    let (number, unit) = number_and_rest(text).ok_or_else(bad)?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
    let number = number.ok_or("too large a size")?;
    number.checked_mul(*factor).ok_or_else(|| "too large a size".to_owned())
}

/// Reads a span of time: one or more whole numbers with a unit each, `ns`, `us`, `ms`, `s`, `m`, `h` or `d`, as
/// in `500ms` or `1m30s`. A number needs its unit, except `0`.
///
/// # Errors
/// Says in a few words what is wrong.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "not a duration such as 500ms or 1m30s".to_owned();
    let long = || "too long a duration".to_owned();
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let (number, tail) = number_and_rest(rest).ok_or_else(bad)?;
        let end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let number = number.ok_or_else(long)?;
        if unit.is_empty() {
            let alone = rest.len() == text.len() && tail.is_empty();
            match (alone, number) {
                (true, 0) => return Ok(Duration::ZERO),
                (true, _) => return Err(format!("a duration needs a unit, as in {number}s")),
                (false, _) => return Err(bad()),
            }
        }
        let (_, nanos) = DURATIONS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        let part = match nanos.checked_mul(number) {
            Some(nanos) => Duration::from_nanos(nanos),
            // Past 584 years in nanoseconds; whole seconds may still hold it.
            None => Duration::from_secs((nanos / 1_000_000_000).checked_mul(number).ok_or_else(long)?),
        };
        total = total.checked_add(part).ok_or_else(long)?;
        rest = tail;
    }
    Ok(total)
}

/// Splits the digits off the front. `None`: there are none. An inner `None`: more than a u64 holds.
fn number_and_rest(text: &str) -> Option<(Option<u64>, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (!digits.is_empty()).then(|| (digits.parse().ok(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_unless_they_say_kb() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("7B", 7),
            ("10MiB", 10 << 20),
            ("10M", 10 << 20),
            ("10 MiB", 10 << 20),
            ("3k", 3 << 10),
            ("3KB", 3_000),
            ("2GB", 2_000_000_000),
            ("2gib", 2 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "MiB", "-1", "1.5M", "10X", "10Mi", "1M1K", "99999999999999999999", "99999999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_add_up_their_parts() {
        for (text, millis) in [
            ("0", 0),
            ("0ms", 0),
            ("500ms", 500),
            ("1s", 1_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("1d1ms", 86_400_001),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("10us"), Ok(Duration::from_micros(10)));
        assert_eq!(duration("300000d"), Ok(Duration::from_secs(300_000 * 86_400)));
    }

    #[test]
    fn a_duration_without_unit_is_refused_with_the_reason() {
        assert_eq!(duration("5"), Err("a duration needs a unit, as in 5s".to_owned()));
        for text in ["", "s", "-1s", "1.5s", "1s5", "1 s", "5min", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn integers_are_decimal_and_in_range() {
        assert_eq!(integer("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(integer("+7"), Ok(7));
        for text in ["", "-", "1e3", "0x10", "9223372036854775808", " 1", "1_000"] {
            assert!(integer(text).is_err(), "{text}");
        }
    }
}
