//! Names of old files. Pure.

use super::Compression;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{SystemTime, UNIX_EPOCH};

/// When a file was set aside, in microseconds of Unix time; more than that if there was one at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(i64);

/// How a moment is written; digits stand for themselves.
const SHAPE: &[u8; 23] = b"00000000T000000.000000Z";

impl Moment {
    /// This moment, or the next one if the newest name is not older.
    pub(super) fn after(newest: Option<Self>, now: SystemTime) -> Self {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Self(newest.map_or(now, |newest| now.max(newest.0.saturating_add(1))))
    }

    fn text(self) -> String {
        let at = Timestamp::from_microsecond(self.0).unwrap_or(Timestamp::MAX);
        let utc = Offset::UTC.to_datetime(at);
        let micros = utc.subsec_nanosecond().unsigned_abs() / 1_000;
        format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}.{micros:06}Z",
            utc.year(),
            utc.month(),
            utc.day(),
            utc.hour(),
            utc.minute(),
            utc.second()
        )
    }

    /// `None` if it was not written by [`Self::text`].
    fn parse(text: &[u8]) -> Option<Self> {
        let has_shape = text.len() == SHAPE.len()
            && text.iter().zip(SHAPE).all(|(byte, shape)| match shape {
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            });
        if !has_shape {
            return None;
        }
        let number = |range: core::ops::Range<usize>| {
            text[range].iter().fold(0_i32, |number, digit| number * 10 + i32::from(digit - b'0'))
        };
        let small = |range| i8::try_from(number(range)).ok();
        let local = DateTime::new(
            i16::try_from(number(0..4)).ok()?,
            small(4..6)?,
            small(6..8)?,
            small(9..11)?,
            small(11..13)?,
            small(13..15)?,
            number(16..22) * 1_000,
        );
        Offset::UTC.to_timestamp(local.ok()?).ok().map(|at| Self(at.as_microsecond()))
    }
}

/// The name of the file that was set aside then.
pub(super) fn of(base: &OsStr, moment: Moment, compression: Compression) -> OsString {
    let mut name = base.to_owned();
    name.push(".");
    name.push(moment.text());
    name.push(compression.suffix());
    name
}

/// What the name of an old file of this log says; `None` if it is none.
pub(super) fn parse(base: &OsStr, name: &OsStr) -> Option<(Moment, Compression)> {
    let rest = name.as_bytes().strip_prefix(base.as_bytes())?.strip_prefix(b".")?;
    let (moment, suffix) = rest.split_at_checked(SHAPE.len())?;
    let known = [Compression::None, Compression::Gzip, Compression::Zstd];
    let compression = known.into_iter().find(|known| known.suffix().as_bytes() == suffix)?;
    Some((Moment::parse(moment)?, compression))
}

/// A name without so much at its front and its end, if it has both.
pub(super) fn between(name: &OsStr, front: &[u8], end: &[u8]) -> Option<OsString> {
    let inner = name.as_bytes().strip_prefix(front)?.strip_suffix(end)?;
    Some(OsString::from_vec(inner.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_name_says_the_time_in_utc_to_the_microsecond() {
        let moment = Moment::after(None, UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_007));
        let name = of(OsStr::new("log"), moment, Compression::Zstd);
        assert_eq!(name, "log.20231114T221320.000007Z.zst");
    }

    #[test]
    fn what_only_looks_like_an_old_file_is_none() {
        for name in [
            "log",
            "log.1",
            "log.20231114T221320.000007",
            "log.20231114T221320.000007Z.bak",
            "log.20231314T221320.000007Z",
            "log.2023111xT221320.000007Z",
            "other.20231114T221320.000007Z",
            "loge.20231114T221320.000007Z",
        ] {
            assert_eq!(parse(OsStr::new("log"), OsStr::new(name)), None, "{name}");
        }
    }

    #[test]
    fn names_grow_though_the_clock_stands_or_goes_back() {
        let at = |micros| UNIX_EPOCH + Duration::from_micros(micros);
        let mut newest = None;
        let mut names = Vec::new();
        for now in [5_000_000, 5_000_000, 5_000_000, 4_000_000, 0, 5_000_001, 6_000_000] {
            let moment = Moment::after(newest, at(now));
            names.push(of(OsStr::new("log"), moment, Compression::None));
            newest = Some(moment);
        }
        assert!(names.is_sorted_by(|earlier, later| earlier < later), "{names:?}");
    }

    proptest! {
        #[test]
        fn a_name_is_read_as_it_was_written_and_sorts_as_its_moment(
            one in 0_i64..253_402_207_199_999_999,
            other in 0_i64..253_402_207_199_999_999,
        ) {
            let base = OsStr::new("a.log");
            let name = |micros| of(base, Moment(micros), Compression::Gzip);
            prop_assert_eq!(parse(base, &name(one)), Some((Moment(one), Compression::Gzip)));
            prop_assert_eq!(name(one).cmp(&name(other)), one.cmp(&other));
        }
    }
}
