//! Output with a time stamp before each line.
//!
//! A read is stamped as a whole: its lines and their stamps are gathered in one flat buffer, for one write. The
//! two streams have lines of their own. One that is under way in the file is ended with a newline when something
//! else is to be written, and its rest becomes a line with a stamp of its own. So that this happens only to
//! lines that are really written in parts, the unfinished line at the end of a read is held back for up to a second
//! once the other stream has talked as well: most programs write stdout in blocks that end anywhere, and stderr in
//! lines between them.

use super::checkpoint::HeldLine;
use super::{Line, LogFile, Source, to_u64};
use crate::stamp::{Format, STAMP_BYTES, Stamp, Stamper, append_lines};
use memchr::{memchr, memchr_iter, memrchr};
use std::borrow::Cow;
use std::mem::take;
use std::time::{Duration, SystemTime};

/// How much goes into one write, unless a single line is longer. A larger buffer would be mapped by the allocator,
/// which then raises its threshold, and keeps what was given back.
const WRITE_BYTES: usize = 120 * 1024;

/// From how many bytes on the buffer is made that large at once; with less it cannot come to it.
const BURST_BYTES: usize = 2 * 1024;

/// How much of an unfinished line is held back, at most, and how long.
pub(super) const HELD_BYTES: usize = 16 * 1024;
const HELD: Duration = Duration::from_secs(1);

/// What is kept of the buffer when there is nothing to read.
const IDLE_BYTES: usize = 4 * 1024;

pub(super) struct Stamped {
    stamper: Stamper,
    /// What goes into the next write.
    buffer: Vec<u8>,
    held: [Option<Held>; 2],
    /// Which streams have had something.
    pub(super) has_talked: [bool; 2],
    /// The newest [`Held::id`].
    newest_id: u64,
}

/// The beginning of a line, not in the file yet.
struct Held {
    /// Another one whenever its beginning is another one.
    id: u64,
    stamp: Stamp,
    since: SystemTime,
    bytes: Vec<u8>,
}

impl Stamped {
    pub(super) fn new(format: Format) -> Self {
        Self {
            stamper: Stamper::new(format),
            buffer: Vec::new(),
            held: [None, None],
            has_talked: [false; 2],
            newest_id: 0,
        }
    }

    /// Gives back what the last burst needed.
    pub(super) fn shrink(&mut self) {
        if self.buffer.capacity() > IDLE_BYTES {
            self.buffer = Vec::new();
        }
    }

    /// Takes so many bytes of a stream, or all, from what is held back of it, and returns how many there were.
    pub(super) fn take_held(&mut self, source: Source, most: usize) -> usize {
        let held = &mut self.held[source as usize];
        let Some(line) = held else { return 0 };
        let count = most.min(line.bytes.len());
        if count == line.bytes.len() {
            *held = None;
        } else if count > 0 {
            line.bytes.drain(..count);
            self.newest_id += 1;
            line.id = self.newest_id;
        }
        count
    }

    /// Holds back bytes, behind what is held back of that stream, if something is.
    pub(super) fn hold(&mut self, source: Source, bytes: &[u8], stamp: Stamp, since: SystemTime) {
        match &mut self.held[source as usize] {
            Some(held) => held.bytes.extend_from_slice(bytes),
            held @ None => {
                self.newest_id += 1;
                *held = Some(Held { id: self.newest_id, stamp, since, bytes: bytes.to_vec() });
            }
        }
    }

    /// Holds back what a dead pump did.
    pub(super) fn hold_again(&mut self, source: Source, bytes: &[u8], since: SystemTime) {
        let stamp = self.stamper.stamp(since);
        self.hold(source, bytes, stamp, since);
    }

    /// What is held back of each stream.
    pub(super) fn held(&self) -> [Option<HeldLine<'_>>; 2] {
        self.held.each_ref().map(|held| {
            let Held { id, since, bytes, .. } = held.as_ref()?;
            Some(HeldLine { id: *id, since: *since, bytes })
        })
    }

    /// Whether something is held back.
    pub(super) fn holds(&self) -> bool {
        self.held.iter().any(Option::is_some)
    }

    pub(super) fn stamp_bytes(&self) -> usize {
        self.stamper.stamp_bytes()
    }
}

fn is_recent(at: SystemTime, now: SystemTime) -> bool {
    now.duration_since(at).is_ok_and(|passed| passed < HELD)
}

/// One write in the making.
struct Batch<'a> {
    /// What is to be appended, stamps aside, from the beginning of this write on.
    bytes: &'a [u8],
    /// Whether the first line goes on with one that is in the file.
    is_continued: bool,
    /// How much of the buffer is before the first line: a newline that ends another one, or nothing.
    lead: usize,
}

impl Batch<'_> {
    /// How many of the bytes are in the file when so much of the buffer is.
    fn taken(&self, written: &[u8]) -> usize {
        let Some(lines) = written.get(self.lead..) else { return 0 };
        match memchr_iter(b'\n', lines).count() {
            0 if self.is_continued => lines.len(),
            // The file takes whole lines or nothing; if it does not, too much is counted as dropped.
            0 => 0,
            count => memchr_iter(b'\n', self.bytes).nth(count - 1).map_or(0, |end| end + 1),
        }
    }
}

impl LogFile {
    /// Writes everything that is held back.
    pub(super) fn flush(&mut self, now: SystemTime) {
        for source in [Source::Stdout, Source::Stderr] {
            self.flush_one(source, now);
        }
    }

    /// Writes what has been held back for long enough.
    pub(super) fn flush_old(&mut self, now: SystemTime) {
        for source in [Source::Stdout, Source::Stderr] {
            self.flush_one_if_old(source, now);
        }
    }

    fn flush_one_if_old(&mut self, source: Source, now: SystemTime) {
        if self.held_since(source).is_some_and(|since| !is_recent(since, now)) {
            self.flush_one(source, now);
        }
    }

    fn flush_one(&mut self, source: Source, now: SystemTime) {
        let Some(since) = self.held_since(source) else { return };
        if !self.is_healthy() && !self.recover(now) {
            return self.drop_output(source, b"");
        }
        self.append_stamped_lines(source, b"", since, false, now);
    }

    fn held_since(&self, source: Source) -> Option<SystemTime> {
        Some(self.stamped.as_ref()?.held[source as usize].as_ref()?.since)
    }

    /// Appends bytes that were read at this moment.
    pub(super) fn append_stamped(&mut self, source: Source, bytes: &[u8], now: SystemTime) {
        self.flush_one_if_old(source.other(), now);
        // One that has waited for so long that it is no whole line is not held any more.
        let is_due = self.held_since(source).is_some_and(|since| !is_recent(since, now));
        let Some(stamped) = &mut self.stamped else { return };
        stamped.has_talked[source as usize] = true;
        let may_hold = stamped.has_talked[source.other() as usize] && !is_due;
        self.append_stamped_lines(source, bytes, now, may_hold, now);
    }

    /// Appends what is held back of a stream and these bytes behind it, which were read at that moment. `may_hold`:
    /// whether an unfinished line at their end may be held back.
    fn append_stamped_lines(
        &mut self,
        source: Source,
        bytes: &[u8],
        read_at: SystemTime,
        may_hold: bool,
        now: SystemTime,
    ) {
        let Some(stamped) = &mut self.stamped else { return };
        let others = stamped.stamper.stamp(read_at);
        let (first, lines) = match &stamped.held[source as usize] {
            Some(held) => (held.stamp, Cow::Owned([held.bytes.as_slice(), bytes].concat())),
            None => (others, Cow::Borrowed(bytes)),
        };
        let begun = memrchr(b'\n', &lines).map_or(0, |end| end + 1);
        let is_fresh_line = begun > 0 || self.line != Line::Open(Some(source));
        let is_held = may_hold && is_fresh_line && lines.len() - begun <= HELD_BYTES;
        let before = self.positions[source as usize];
        let is_written =
            self.write_stamped(source, if is_held { &lines[..begun] } else { &lines }, (first, others), now);
        let taken = usize::try_from(self.positions[source as usize] - before).unwrap_or(bytes.len());
        let rest = &bytes[taken..];
        if !is_written {
            self.drop_output(source, rest);
        } else if let (false, Some(stamped)) = (rest.is_empty(), &mut self.stamped) {
            stamped.hold(source, rest, others, read_at);
            self.positions[source as usize] += to_u64(rest.len());
        }
    }

    /// Writes bytes, of which those that are held back are the first, with the first of the stamps before the first
    /// line and the second before the others. Returns whether the file took all of them.
    fn write_stamped(
        &mut self,
        source: Source,
        mut bytes: &[u8],
        (mut stamp, others): (Stamp, Stamp),
        now: SystemTime,
    ) -> bool {
        let mut buffer = self.stamped.as_mut().map(|stamped| take(&mut stamped.buffer)).unwrap_or_default();
        if bytes.len() >= BURST_BYTES {
            buffer.clear();
            buffer.reserve_exact(WRITE_BYTES + STAMP_BYTES);
        }
        let mut is_written = true;
        while is_written && !bytes.is_empty() {
            buffer.clear();
            let is_continued = self.line == Line::Open(Some(source));
            if self.line != Line::Ended && !is_continued {
                buffer.push(b'\n');
            }
            let batch = Batch { bytes, is_continued, lead: buffer.len() };
            let (gathered, is_full) = self.gather(&mut buffer, &batch, &mut stamp, &others);
            let written = self.write(&buffer, Some(source), now);
            is_written = written == buffer.len();
            let taken = if is_written { gathered } else { batch.taken(&buffer[..written]) };
            self.consume(source, taken);
            bytes = &bytes[taken..];
            if is_written && is_full {
                self.rotate(now);
            }
        }
        if let Some(stamped) = &mut self.stamped {
            stamped.buffer = buffer;
        }
        is_written
    }

    /// So many bytes of a stream are in the file: those that were held back first. Whenever the pump is killed, every
    /// byte is in one place, and a checkpoint says in which.
    fn consume(&mut self, source: Source, count: usize) {
        let held = self.stamped.as_mut().map_or(0, |stamped| stamped.take_held(source, count));
        self.positions[source as usize] += to_u64(count - held);
    }

    /// Fills the buffer for one write. Returns how many of the bytes are in it, and whether a new file is to be
    /// begun after it.
    fn gather(
        &self,
        buffer: &mut Vec<u8>,
        batch: &Batch<'_>,
        stamp: &mut Stamp,
        others: &Stamp,
    ) -> (usize, bool) {
        let bytes = batch.bytes;
        let mut taken = 0;
        while taken < bytes.len() {
            let end = memchr(b'\n', &bytes[taken..]).map_or(bytes.len(), |end| taken + end + 1);
            let begins = taken > 0 || !batch.is_continued;
            let at = buffer.len();
            if at > 0 && at + stamp.as_bytes().len() + (end - taken) > WRITE_BYTES {
                break;
            }
            if begins {
                stamp.append_to(buffer);
            }
            let stamp_bytes = buffer.len() - at;
            buffer.extend_from_slice(&bytes[taken..end]);
            // With a newline before it, or after other lines, it begins at the start of a line.
            let share = self.share(at, begins, &buffer[at..]);
            if share < buffer.len() - at {
                buffer.truncate(at + share);
                if share > 0 {
                    *stamp = *others;
                }
                return (taken + share.saturating_sub(stamp_bytes), true);
            }
            taken = end;
            *stamp = *others;
            // The next that asks for a closer look is the next here.
            let most = WRITE_BYTES.min(self.room());
            taken += append_lines(buffer, &bytes[taken..], others, most);
        }
        (taken, false)
    }
}
