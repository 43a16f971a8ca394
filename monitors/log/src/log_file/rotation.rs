//! When a new file is begun: how much of what comes belongs into the old one.

use crate::archive::Archive;
use crate::config;
use crate::stamp::local_offset_s;
use memchr::{memchr, memrchr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long everything goes on in the old file when it could not be renamed.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Rotation {
    plan: config::Rotation,
    /// Where the old files are; known once the file was opened.
    pub(super) archive: Option<Archive>,
    /// When the span of time ends that this file is for.
    due_at: Option<SystemTime>,
    /// When it last could not be renamed.
    hindered_at: Option<SystemTime>,
    pub(super) is_due: bool,
    is_hindered: bool,
}

impl Rotation {
    pub(super) fn new(plan: config::Rotation) -> Self {
        Self { plan, archive: None, due_at: None, hindered_at: None, is_due: false, is_hindered: false }
    }

    /// Takes note of a file that was opened at this path, last written to at that time.
    pub(super) fn opened(&mut self, path: &Path, written_at: SystemTime) {
        // The old files belong beside the file, not beside a link to it.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if !self.archive.as_ref().is_some_and(|archive| archive.is_of(&path)) {
            self.archive = Some(Archive::load(&path, &self.plan));
        }
        self.begin_span(written_at);
    }

    /// Takes note of the time; everything else goes by it.
    pub(super) fn tick(&mut self, now: SystemTime) {
        self.is_due = self.due_at.is_some_and(|due_at| now >= due_at);
        self.is_hindered = self
            .hindered_at
            .is_some_and(|since| now.duration_since(since).is_ok_and(|passed| passed < PAUSE));
    }

    /// A new file was begun.
    pub(super) fn begun(&mut self, now: SystemTime) {
        self.hindered_at = None;
        self.begin_span(now);
        self.tick(now);
    }

    /// No new file could be begun.
    pub(super) fn hindered(&mut self, now: SystemTime) {
        self.hindered_at = Some(now);
        self.tick(now);
    }

    fn begin_span(&mut self, at: SystemTime) {
        self.due_at = self.plan.every.map(|every| span_end(at, every, local_offset_s(at)));
    }

    /// How many bytes belong into a file of this length, whatever they are.
    pub(super) fn room(&self, length: u64) -> usize {
        match (self.is_hindered, self.is_due && length > 0) {
            (true, _) => usize::MAX,
            (false, true) => 0,
            (false, false) => room_below(self.max_bytes(), length),
        }
    }

    fn max_bytes(&self) -> u64 {
        self.plan.max_bytes.unwrap_or(u64::MAX)
    }

    /// How much of these bytes belongs into a file of this length; 0: a new file is to be begun first.
    ///
    /// No line of at most `max_size` is ever divided. A line under way is completed in the file it began in,
    /// which may so become twice as large as `max_size`, and no larger: a longer line is cut there.
    pub(super) fn share(&self, length: u64, at_line_start: bool, bytes: &[u8]) -> usize {
        let room = self.room(length);
        if bytes.len() <= room {
            return bytes.len();
        }
        match memrchr(b'\n', &bytes[..room]) {
            Some(end) => end + 1,
            None if at_line_start && length > 0 => 0,
            None => {
                let most = room_below(self.max_bytes().saturating_mul(2), length).min(bytes.len());
                memchr(b'\n', &bytes[..most]).map_or(most, |end| end + 1)
            }
        }
    }
}

fn room_below(limit: u64, length: u64) -> usize {
    usize::try_from(limit.saturating_sub(length)).unwrap_or(usize::MAX)
}

/// The end of the span of local time that this moment is in: spans follow each other from 1970 on, so that those
/// of a day end at midnight and those of an hour at the full hour.
fn span_end(at: SystemTime, every: Duration, offset_s: i32) -> SystemTime {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().cast_signed();
    let offset = i128::from(offset_s) * 1_000_000_000;
    let every = every.as_nanos().max(1).cast_signed();
    let end = ((since + offset).div_euclid(every) + 1) * every - offset;
    let end = u64::try_from(end).unwrap_or(u64::MAX);
    UNIX_EPOCH + Duration::from_nanos(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Compression;

    fn rotation(max_bytes: u64) -> Rotation {
        Rotation::new(config::Rotation {
            max_bytes: Some(max_bytes),
            every: None,
            keep: None,
            max_total_bytes: None,
            compression: Compression::None,
        })
    }

    #[test]
    fn as_many_whole_lines_as_fit_belong_into_the_old_file() {
        let rotation = rotation(10);
        assert_eq!(rotation.share(0, true, b"123\n567\n"), 8);
        assert_eq!(rotation.share(2, true, b"123\n567\n"), 8);
        assert_eq!(rotation.share(3, true, b"123\n567\n"), 4);
        assert_eq!(rotation.share(7, true, b"123\n567\n"), 0);
    }

    #[test]
    fn a_line_under_way_is_completed_where_it_began() {
        let rotation = rotation(10);
        assert_eq!(rotation.share(9, false, b"123\n567\n"), 4);
        assert_eq!(rotation.share(9, false, b"12345"), 5);
    }

    #[test]
    fn a_line_is_cut_at_twice_the_size_and_not_before() {
        let rotation = rotation(10);
        assert_eq!(rotation.share(0, true, &[b'x'; 30]), 20);
        assert_eq!(rotation.share(15, false, &[b'x'; 30]), 5);
        assert_eq!(rotation.share(20, false, b"x\n"), 0);
        assert_eq!(rotation.share(0, true, b"123456789012345\n78"), 16);
    }

    #[test]
    fn spans_end_at_multiples_of_local_time() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let day = Duration::from_secs(86_400);
        assert_eq!(span_end(at(86_400 * 3), day, 0), at(86_400 * 4));
        assert_eq!(span_end(at(86_400 * 3 - 1), day, 0), at(86_400 * 3));
        // An hour east of Greenwich a day ends an hour earlier.
        assert_eq!(span_end(at(86_400 * 3 - 1), day, 3600), at(86_400 * 4 - 3600));
        assert_eq!(span_end(at(5), Duration::MAX, 0), UNIX_EPOCH + Duration::from_nanos(u64::MAX));
    }
}
