//! Time stamps before lines: `rfc3339` and `tai64n`. Pure but for the time zone of this machine.
//!
//! A stamp is formatted once for a whole read. What changes within a second are its last digits, so date and
//! offset are kept from stamp to stamp.

mod lines;

pub(crate) use lines::append_lines;

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs};

/// Which stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `2026-08-01T12:34:56.789+02:00 `: local time with its offset, which is `+00:00` in UTC.
    Rfc3339,
    /// `@400000006a6d9fba2f075f40 `: 2^62 + 10 + seconds of Unix time, then nanoseconds, in hexadecimal.
    ///
    /// These are the labels of daemontools' `tai64n` and `multilog`, and of `svlogd`: TAI taken as UTC + 10 s, so
    /// that their `tai64nlocal` gives the time back. A usual build of s6 adds the leap seconds besides (27 since
    /// 2017), and its `s6-tai64nlocal` shows these labels so much too early.
    Tai64n,
}

/// A stamp and the space after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    text: [u8; STAMP_BYTES],
    length: usize,
}

/// Room for a stamp of any format. A copy of a round length that the compiler knows is a few instructions.
pub(crate) const STAMP_BYTES: usize = 32;

const RFC3339_BYTES: usize = "2026-08-01T12:34:56.789+02:00 ".len();
const TAI64N_BYTES: usize = "@400000006a6d9fba2f075f40 ".len();
/// Where the milliseconds are.
const MILLIS: core::ops::Range<usize> = 20..23;
/// TAI64 of 1970 with the ten seconds that the convention adds.
const TAI64_EPOCH: u64 = (1 << 62) + 10;

impl Stamp {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }

    /// Appends it, for a moment with what is left of its room.
    #[inline]
    pub(crate) fn append_to(&self, buffer: &mut Vec<u8>) {
        let end = buffer.len() + self.length;
        buffer.extend_from_slice(&self.text);
        buffer.truncate(end);
    }
}

/// Formats stamps.
pub(crate) struct Stamper {
    format: Format,
    /// The last RFC 3339 stamp, and the second it was for.
    last: Option<(u64, Stamp)>,
}

impl Stamper {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, last: None }
    }

    /// How long a stamp is.
    pub(crate) fn stamp_bytes(&self) -> usize {
        match self.format {
            Format::Rfc3339 => RFC3339_BYTES,
            Format::Tai64n => TAI64N_BYTES,
        }
    }

    /// Formats the stamp of this moment. One before 1970 counts as 1970, one after 9999 as well.
    pub(crate) fn stamp(&mut self, now: SystemTime) -> Stamp {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        match self.format {
            Format::Rfc3339 => self.rfc3339(since),
            Format::Tai64n => tai64n(since),
        }
    }

    fn rfc3339(&mut self, since: Duration) -> Stamp {
        let mut stamp = match self.last {
            Some((second, stamp)) if second == since.as_secs() => stamp,
            Some(_) | None => rfc3339(since, &zone()),
        };
        put(&mut stamp.text[MILLIS], since.subsec_millis());
        self.last = Some((since.as_secs(), stamp));
        stamp
    }
}

/// How far local time is ahead of UTC, in seconds. Whole minutes: RFC 3339 has no room for more, and no time zone
/// has needed more since 1972.
pub(crate) fn local_offset_s(at: SystemTime) -> i32 {
    whole_minutes(&zone(), Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The time zone of whoever started the group.
///
/// `TZ=Area/City` is looked up here: jiff would first list all names of the database, some hundred KiB that the
/// pump would keep. Everything else is jiff's, which looks at `/etc/localtime` again every five minutes.
fn zone() -> TimeZone {
    static NAMED: OnceLock<Option<TimeZone>> = OnceLock::new();
    let named = NAMED.get_or_init(|| named(env::var_os("TZ")?.to_str()?));
    named.clone().unwrap_or_else(TimeZone::system)
}

/// The zone of this name in the database of this machine.
fn named(name: &str) -> Option<TimeZone> {
    let name = name.strip_prefix(':').unwrap_or(name);
    if name.is_empty() || name.starts_with('/') {
        return None;
    }
    let places = ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];
    let found = places.iter().find_map(|place| fs::read(Path::new(place).join(name)).ok())?;
    TimeZone::tzif(name, &found).ok()
}

fn whole_minutes(zone: &TimeZone, at: Timestamp) -> i32 {
    zone.to_offset(at).seconds() / 60 * 60
}

/// A stamp whose milliseconds are still to be filled in.
fn rfc3339(since: Duration, zone: &TimeZone) -> Stamp {
    let second = i64::try_from(since.as_secs()).ok().and_then(|second| Timestamp::from_second(second).ok());
    let second = second.unwrap_or(Timestamp::UNIX_EPOCH);
    let offset_s = whole_minutes(zone, second);
    let local = Offset::from_seconds(offset_s).unwrap_or(Offset::UTC).to_datetime(second);
    let mut text = *b"0000-00-00T00:00:00.000+00:00   ";
    put(&mut text[0..4], u32::from(local.year().unsigned_abs()));
    put(&mut text[5..7], u32::from(local.month().unsigned_abs()));
    put(&mut text[8..10], u32::from(local.day().unsigned_abs()));
    put(&mut text[11..13], u32::from(local.hour().unsigned_abs()));
    put(&mut text[14..16], u32::from(local.minute().unsigned_abs()));
    put(&mut text[17..19], u32::from(local.second().unsigned_abs()));
    if offset_s < 0 {
        text[23] = b'-';
    }
    let minutes = offset_s.unsigned_abs() / 60;
    put(&mut text[24..26], minutes / 60);
    put(&mut text[27..29], minutes % 60);
    Stamp { text, length: RFC3339_BYTES }
}

/// Writes a number in decimal, with leading zeros.
fn put(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
    }
}

fn tai64n(since: Duration) -> Stamp {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let seconds = TAI64_EPOCH.wrapping_add(since.as_secs()).to_be_bytes();
    let nanos = since.subsec_nanos().to_be_bytes();
    let mut text = [b' '; STAMP_BYTES];
    text[0] = b'@';
    for (place, byte) in text[1..].chunks_exact_mut(2).zip(seconds.iter().chain(&nanos)) {
        place[0] = DIGITS[usize::from(byte >> 4)];
        place[1] = DIGITS[usize::from(byte & 15)];
    }
    Stamp { text, length: TAI64N_BYTES }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(stamp: &Stamp) -> &str {
        core::str::from_utf8(stamp.as_bytes()).unwrap()
    }

    #[test]
    fn tai64n_is_what_daemontools_writes() {
        // `tai64nlocal` of daemontools shows this one as 2023-11-14 22:13:20.123000000 under TZ=UTC.
        let stamp = tai64n(Duration::new(1_700_000_000, 123_000_000));
        assert_eq!(text(&stamp), "@400000006553f10a0754d4c0 ");
    }

    #[test]
    fn rfc3339_is_local_time_with_its_offset() {
        for (offset_s, expected) in [
            (0, "2023-11-14T22:13:20.000+00:00 "),
            (2 * 3600, "2023-11-15T00:13:20.000+02:00 "),
            (5 * 3600 + 1800, "2023-11-15T03:43:20.000+05:30 "),
            (-(3 * 3600 + 1800), "2023-11-14T18:43:20.000-03:30 "),
            // Local mean time of old, cut to whole minutes.
            (3208, "2023-11-14T23:06:20.000+00:53 "),
        ] {
            let zone = TimeZone::fixed(Offset::from_seconds(offset_s).unwrap());
            assert_eq!(text(&rfc3339(Duration::from_secs(1_700_000_000), &zone)), expected);
        }
    }

    #[test]
    fn a_zone_is_found_by_its_name() {
        let Some(zone) = named(":America/St_Johns") else { return };
        let stamp = rfc3339(Duration::from_secs(1_700_000_000), &zone);
        assert_eq!(text(&stamp), "2023-11-14T18:43:20.000-03:30 ");
        assert!(named("Nowhere/At_All").is_none());
    }

    #[test]
    fn a_stamp_of_the_same_second_differs_in_its_milliseconds_alone() {
        let mut stamper = Stamper::new(Format::Rfc3339);
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        for millis in [1_700_000_000_000, 1_700_000_000_007, 1_700_000_000_999, 1_700_000_001_000, 999] {
            let stamp = stamper.stamp(at(millis));
            let parsed: Timestamp = text(&stamp).trim_end().parse().unwrap();
            assert_eq!(parsed.as_millisecond(), i64::try_from(millis).unwrap());
            assert_eq!(stamp.as_bytes().len(), RFC3339_BYTES);
        }
    }

    #[test]
    fn moments_that_no_stamp_can_say_do_no_harm() {
        for format in [Format::Rfc3339, Format::Tai64n] {
            let mut stamper = Stamper::new(format);
            stamper.stamp(UNIX_EPOCH - Duration::from_secs(1));
            stamper.stamp(UNIX_EPOCH + Duration::from_secs(1 << 40));
        }
    }
}
