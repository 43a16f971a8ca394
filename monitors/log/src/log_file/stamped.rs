//! Output with a time stamp before each line.
//!
//! A read is stamped as a whole: its lines and their stamps are gathered in one flat buffer, for one write. The
//! two streams have lines of their own. One that is under way in the file is ended with a newline when something
//! else is to be written, and its rest becomes a line with a stamp of its own. So that this happens only to
//! lines that are really written in parts, the unfinished line at the end of a read is held back for up to a second
//! once the other stream has talked as well: most programs write stdout in blocks that end anywhere, and stderr in
//! lines between them.

use super::{Line, LogFile, Source};
use crate::stamp::{Format, Stamp, Stamper};
use memchr::{memchr_iter, memrchr};
use std::time::{Duration, SystemTime};

/// How much goes into one write, unless a single line is longer. A larger buffer would be mapped by the allocator,
/// which then raises its threshold, and keeps what was given back.
const WRITE_BYTES: usize = 120 * 1024;

/// From how many bytes on the buffer is made that large at once; with less it cannot come to it.
const BURST_BYTES: usize = 2 * 1024;

/// How much of an unfinished line is held back, at most, and how long.
const HELD_BYTES: usize = 16 * 1024;
const HELD: Duration = Duration::from_secs(1);

/// What is kept of the buffer when there is nothing to read.
const IDLE_BYTES: usize = 4 * 1024;

pub(super) struct Stamped {
    stamper: Stamper,
    /// What goes into the next write.
    buffer: Vec<u8>,
    held: [Option<Held>; 2],
    /// Which streams have had something.
    has_talked: [bool; 2],
}

/// The beginning of a line, not in the file yet.
struct Held {
    stamp: Stamp,
    since: SystemTime,
    bytes: Vec<u8>,
}

impl Stamped {
    pub(super) fn new(format: Format) -> Self {
        Self { stamper: Stamper::new(format), buffer: Vec::new(), held: [None, None], has_talked: [false; 2] }
    }

    /// Gives back what the last burst needed.
    pub(super) fn shrink(&mut self) {
        if self.buffer.capacity() > IDLE_BYTES {
            self.buffer = Vec::new();
        }
    }

    /// Takes what is held back of a stream, and returns how much that was.
    pub(super) fn drop_held(&mut self, source: Source) -> usize {
        self.held[source as usize].take().map_or(0, |held| held.bytes.len())
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
        let Some(mut stamped) = self.stamped.take() else { return };
        for source in [Source::Stdout, Source::Stderr] {
            self.flush_one(&mut stamped, source, now);
        }
        self.stamped = Some(stamped);
    }

    /// Writes what has been held back for long enough.
    pub(super) fn flush_old(&mut self, now: SystemTime) {
        let Some(mut stamped) = self.stamped.take() else { return };
        for source in [Source::Stdout, Source::Stderr] {
            self.flush_one_if_old(&mut stamped, source, now);
        }
        self.stamped = Some(stamped);
    }

    fn flush_one_if_old(&mut self, stamped: &mut Stamped, source: Source, now: SystemTime) {
        if stamped.held[source as usize].as_ref().is_some_and(|held| !is_recent(held.since, now)) {
            self.flush_one(stamped, source, now);
        }
    }

    fn flush_one(&mut self, stamped: &mut Stamped, source: Source, now: SystemTime) {
        if let Some(held) = stamped.held[source as usize].take() {
            if !self.is_healthy() && !self.recover(now) {
                return self.drop_output(source, &held.bytes);
            }
            self.append_stamped_lines(stamped, source, &held.bytes, (held.stamp, held.stamp), None, now);
        }
    }

    /// Appends bytes that were read at this moment.
    pub(super) fn append_stamped(
        &mut self,
        stamped: &mut Stamped,
        source: Source,
        bytes: &[u8],
        now: SystemTime,
    ) {
        self.flush_one_if_old(stamped, source.other(), now);
        let stamp = stamped.stamper.stamp(now);
        let is_shared = stamped.has_talked[source.other() as usize];
        stamped.has_talked[source as usize] = true;
        match stamped.held[source as usize].take() {
            None => {
                let may_hold = is_shared.then_some(now);
                self.append_stamped_lines(stamped, source, bytes, (stamp, stamp), may_hold, now);
            }
            Some(mut held) => {
                held.bytes.extend_from_slice(bytes);
                // One that has waited for so long that it is no whole line is not held any more.
                let may_hold = (is_shared && is_recent(held.since, now)).then_some(held.since);
                self.append_stamped_lines(stamped, source, &held.bytes, (held.stamp, stamp), may_hold, now);
            }
        }
    }

    /// Appends bytes with the first of the stamps before the first line and the second before the others.
    /// `held_since`: whether an unfinished line may be held back, and since when its beginning was.
    fn append_stamped_lines(
        &mut self,
        stamped: &mut Stamped,
        source: Source,
        mut bytes: &[u8],
        (first, others): (Stamp, Stamp),
        held_since: Option<SystemTime>,
        now: SystemTime,
    ) {
        let mut stamp = first;
        if let Some(since) = held_since {
            let begun = memrchr(b'\n', bytes).map_or(0, |end| end + 1);
            let is_fresh_line = begun > 0 || self.line != Line::Open(Some(source));
            let tail = &bytes[begun..];
            if is_fresh_line && !tail.is_empty() && tail.len() <= HELD_BYTES {
                let (stamp, since) = if begun > 0 { (others, now) } else { (first, since) };
                stamped.held[source as usize] = Some(Held { stamp, since, bytes: tail.to_vec() });
                bytes = &bytes[..begun];
            }
        }
        let mut buffer = core::mem::take(&mut stamped.buffer);
        buffer.clear();
        if bytes.len() >= BURST_BYTES {
            buffer.reserve_exact(WRITE_BYTES);
        }
        while !bytes.is_empty() {
            buffer.clear();
            let is_continued = self.line == Line::Open(Some(source));
            if self.line != Line::Ended && !is_continued {
                buffer.push(b'\n');
            }
            let batch = Batch { bytes, is_continued, lead: buffer.len() };
            let (taken, is_full) = self.gather(&mut buffer, &batch, &mut stamp, &others);
            let written = self.write(&buffer, Some(source), now);
            if written < buffer.len() {
                self.drop_output(source, &bytes[batch.taken(&buffer[..written])..]);
                break;
            }
            bytes = &bytes[taken..];
            if is_full {
                self.rotate(now);
            }
        }
        stamped.buffer = buffer;
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
        let ends = memchr_iter(b'\n', bytes).map(|end| end + 1);
        let unfinished = (bytes.last() != Some(&b'\n')).then_some(bytes.len());
        for end in ends.chain(unfinished) {
            let begins = taken > 0 || !batch.is_continued;
            let at = buffer.len();
            if at > 0 && at + stamp.as_bytes().len() + (end - taken) > WRITE_BYTES {
                break;
            }
            if begins {
                buffer.extend_from_slice(stamp.as_bytes());
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
        }
        (taken, false)
    }
}
