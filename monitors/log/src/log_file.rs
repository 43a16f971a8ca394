//! The log file: bytes go straight to it; what cannot be written is dropped and counted.
//!
//! Never an error to the caller once the group runs. Never a buffer either, but for the end of a line that the
//! other stream would cut (see [`stamped`]): what a write has taken is in the kernel's hands, and survives the
//! pump. How much of it a dead pump has written is known from its last checkpoint (see [`handover`]). The time is the
//! caller's, one reading for each call.

mod checkpoint;
mod handover;
mod open_file;
mod rotation;
mod stamped;

use crate::config;
use crate::line;
use crate::stamp::Format;
use checkpoint::{CheckpointFile, Mark};
use immortal_monitor_api::{Error, Host};
use memchr::{memchr, memrchr};
use open_file::{OpenFile, Place};
use rotation::Rotation;
use stamped::Stamped;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use checkpoint::Told;
pub(crate) use open_file::try_open;

/// How long a file that cannot be written is left alone before it is tried again.
pub(crate) const RETRY: Duration = Duration::from_millis(250);

/// How long it may take, and how many bytes, until it is seen that the file was moved.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_BYTES: u64 = 1 << 20;

/// How much of a line is dropped because its beginning was, at most.
const SKIP_BYTES: usize = 64 * 1024;

/// A stream of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

impl Source {
    fn other(self) -> Self {
        match self {
            Self::Stdout => Self::Stderr,
            Self::Stderr => Self::Stdout,
        }
    }
}

/// What the end of the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// The end of a line: one may begin.
    Ended,
    /// Within a line, of this stream if that is known and it may go on.
    Open(Option<Source>),
}

pub(crate) struct LogFile {
    path: PathBuf,
    host: Host,
    /// `None` while it cannot be opened.
    file: Option<OpenFile>,
    line: Line,
    /// Bytes of the unfinished line at the end of the file, and how many of them are not the process's.
    begun_bytes: u64,
    begun_stamp_bytes: u64,
    /// How long a stamp is; 0 without.
    stamp_bytes: u64,
    /// With time stamps.
    stamped: Option<Box<Stamped>>,
    rotation: Option<Rotation>,
    /// When the path was last looked at, and how much was written since.
    looked_at: Option<SystemTime>,
    unlooked_bytes: u64,
    /// When writing was last tried in vain.
    failed_at: Option<SystemTime>,
    /// Bytes dropped since the file last said so.
    unsaid_bytes: u64,
    /// Bytes dropped in the life of this pump.
    dropped_bytes: u64,
    /// How much more of each stream belongs at most to a line whose beginning was dropped.
    skip_bytes: [usize; 2],
    /// Up to where each stream is in the file, held back, or counted as dropped.
    positions: [u64; 2],
    /// When the file was last written to.
    written_at: SystemTime,
    told: Told,
    /// Lines of the monitor's own that wait for the end of a line of the process.
    own_lines: Vec<u8>,
    is_finished: bool,
    /// Where all this is kept for the next pump; `None` if it need not be, or cannot be.
    checkpoints: Option<Box<CheckpointFile>>,
    /// What the file was when the last pump died, until it is open again.
    inherited: Option<Mark>,
    has_warned: bool,
}

impl LogFile {
    /// Makes a log of this path, which is not opened yet.
    pub(crate) fn new(
        path: PathBuf,
        timestamps: Option<Format>,
        rotation: Option<config::Rotation>,
        host: Host,
    ) -> Self {
        let stamped = timestamps.map(|format| Box::new(Stamped::new(format)));
        let stamp_bytes = stamped.as_ref().map_or(0, |stamped| stamped.stamp_bytes());
        Self {
            path,
            host,
            file: None,
            line: Line::Ended,
            begun_bytes: 0,
            begun_stamp_bytes: 0,
            stamp_bytes: u64::try_from(stamp_bytes).expect("a few bytes"),
            stamped,
            rotation: rotation.map(Rotation::new),
            looked_at: None,
            unlooked_bytes: 0,
            failed_at: None,
            unsaid_bytes: 0,
            dropped_bytes: 0,
            skip_bytes: [0; 2],
            positions: [0; 2],
            written_at: UNIX_EPOCH,
            told: Told::default(),
            own_lines: Vec::new(),
            is_finished: false,
            checkpoints: None,
            inherited: None,
            has_warned: false,
        }
    }

    /// Opens the file, and looks how its last line ends.
    ///
    /// # Errors
    /// If it cannot be opened for appending. Later writes try again.
    pub(crate) fn open(&mut self, now: SystemTime) -> io::Result<()> {
        self.file = None;
        let file = OpenFile::open(&self.path).inspect_err(|_| self.failed_at = Some(now))?;
        let file = self.go_on_with(file, now);
        if let (Some(rotation), true) = (&mut self.rotation, file.is_regular) {
            let is_begun = file.length > 0;
            rotation.opened(&self.path, if is_begun { self.written_at } else { now });
            rotation.tick(now);
        }
        self.looked_at = Some(now);
        self.unlooked_bytes = 0;
        self.file = Some(file);
        self.commit();
        Ok(())
    }

    /// What to say when [`Self::open`] has failed and must not.
    pub(crate) fn refused(&self, error: &io::Error) -> Error {
        format!("unable to open {}: {error}", self.path.display()).into()
    }

    /// Appends output of the process.
    pub(crate) fn append(&mut self, source: Source, bytes: &[u8], now: SystemTime) {
        self.tick(now);
        let bytes = self.skip(source, bytes);
        if bytes.is_empty() {
            return;
        }
        if self.own_lines.is_empty() {
            return self.append_fresh(source, bytes, now);
        }
        // Behind the first line that ends, the rest of one that was there already perhaps.
        let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
        self.append_fresh(source, &bytes[..end], now);
        if !self.has_open_line() {
            self.append_own_lines(now);
        }
        if end < bytes.len() {
            self.append_fresh(source, &bytes[end..], now);
        }
    }

    fn append_fresh(&mut self, source: Source, bytes: &[u8], now: SystemTime) {
        if !self.is_healthy() && !self.recover(now) {
            return self.drop_output(source, bytes);
        }
        match self.stamped {
            None => self.append_plain(source, bytes, now),
            Some(_) => self.append_stamped(source, bytes, now),
        }
    }

    /// Appends whole lines of the monitor's own as soon as the process's line is whole: its rest is still to come, for
    /// the process was kept running. Whoever stops reading for a while calls [`LogFile::rest`].
    pub(crate) fn append_lines_behind(&mut self, lines: &[u8], now: SystemTime) {
        self.own_lines.extend_from_slice(lines);
        if !self.has_open_line() {
            self.append_own_lines(now);
        }
    }

    fn has_open_line(&self) -> bool {
        self.line != Line::Ended || self.stamped.as_ref().is_some_and(|stamped| stamped.holds())
    }

    fn append_own_lines(&mut self, now: SystemTime) {
        let lines = std::mem::take(&mut self.own_lines);
        if !lines.is_empty() {
            self.append_lines(&lines, now);
        }
    }

    /// Appends whole lines of the monitor's own, at the beginning of a line and all in one file.
    pub(crate) fn append_lines(&mut self, lines: &[u8], now: SystemTime) {
        self.append_own_lines(now);
        self.look(now);
        self.tick(now);
        self.flush(now);
        if !self.is_healthy() && !self.recover(now) {
            return self.count(lines.len());
        }
        if self.line != Line::Ended && self.write(b"\n", None, now) == 0 {
            return self.count(lines.len());
        }
        if self.share(0, true, lines) < lines.len() {
            self.rotate(now);
        }
        let written = self.write(lines, None, now);
        self.count(lines.len() - written);
    }

    /// Gives memory back: nothing more comes for now.
    pub(crate) fn rest(&mut self, now: SystemTime) {
        self.append_own_lines(now);
        if let Some(stamped) = &mut self.stamped {
            stamped.shrink();
        }
    }

    /// The process has ended: with time stamps, what comes next is not the rest of its last line.
    pub(crate) fn process_ended(&mut self, now: SystemTime) {
        self.flush(now);
        if self.stamped.is_some() && self.line != Line::Ended {
            self.line = Line::Open(None);
        }
        self.skip_bytes = [0; 2];
    }

    /// Whether something is to be done even if nothing more comes.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.is_healthy() || self.stamped.as_ref().is_some_and(|stamped| stamped.holds())
    }

    /// Does it, if it is time for that.
    pub(crate) fn attend(&mut self, now: SystemTime) {
        if self.is_healthy() || self.recover(now) {
            self.flush_old(now);
        }
    }

    /// Whether there is nothing to say or to open as soon as that is possible.
    fn is_healthy(&self) -> bool {
        self.file.is_some() && self.unsaid_bytes == 0
    }

    /// Opens the file if it is not, and says in it what was dropped; not too often. Returns whether all is well.
    #[cold]
    fn recover(&mut self, now: SystemTime) -> bool {
        if self.failed_at.is_some_and(|at| now.duration_since(at).is_ok_and(|passed| passed < RETRY)) {
            return false;
        }
        if self.file.is_none() && self.open(now).is_err() {
            return false;
        }
        if self.unsaid_bytes == 0 {
            return true;
        }
        let mut notice = line::dropped(self.unsaid_bytes);
        if self.line != Line::Ended {
            notice.insert(0, b'\n');
        }
        if self.share(0, self.line == Line::Ended, &notice) == 0 {
            self.rotate(now);
        }
        let is_said = self.write(&notice, None, now) == notice.len();
        if is_said {
            self.unsaid_bytes = 0;
            self.failed_at = None;
        }
        is_said
    }

    /// Last chance: writes what is held back, says what was dropped, and waits for the compression until then.
    pub(crate) fn finish(&mut self, now: SystemTime, until: Instant) {
        self.append_own_lines(now);
        self.flush(now);
        self.failed_at = None;
        if !self.is_healthy() {
            self.recover(now);
        }
        self.is_finished = true;
        self.commit();
        if let Some(archive) = self.rotation.as_ref().and_then(|rotation| rotation.archive.as_ref()) {
            archive.finish(until);
        }
    }

    /// Takes note of the time, and looks at the path if it is time for that.
    fn tick(&mut self, now: SystemTime) {
        let is_fresh =
            self.looked_at.is_some_and(|at| now.duration_since(at).is_ok_and(|passed| passed < LOOK));
        if !is_fresh || self.unlooked_bytes >= LOOK_BYTES {
            self.look(now);
        }
        if let Some(rotation) = &mut self.rotation {
            rotation.tick(now);
            // What comes now is the first of a span, though the file was made in another.
            if rotation.is_due && self.file.as_ref().is_some_and(|file| file.length == 0) {
                rotation.begun(now);
            }
        }
    }

    /// Looks whether the file is still at its path, and begins a new one if not. Returns whether all was as it
    /// should be.
    fn look(&mut self, now: SystemTime) -> bool {
        let Some(file) = &mut self.file else { return false };
        let place = file.look(&self.path);
        match place {
            Place::Here => {}
            Place::Changed => {
                (self.begun_bytes, self.begun_stamp_bytes) = (0, 0);
                self.line = line_of_changed(self.line, file, &self.path);
            }
            Place::Moved | Place::Lost => {
                if place == Place::Lost {
                    self.count(usize::try_from(self.unlooked_bytes).unwrap_or(usize::MAX));
                }
                self.commit();
                if let Err(error) = self.open(now) {
                    self.warn("reopen", &error);
                }
            }
        }
        self.looked_at = Some(now);
        self.unlooked_bytes = 0;
        place == Place::Here
    }

    fn append_plain(&mut self, source: Source, mut bytes: &[u8], now: SystemTime) {
        while !bytes.is_empty() {
            let share = self.share(0, self.line == Line::Ended, bytes);
            if share == 0 {
                self.rotate(now);
                continue;
            }
            let written = self.write(&bytes[..share], Some(source), now);
            self.positions[source as usize] += to_u64(written);
            if written < share {
                return self.drop_output(source, &bytes[written..]);
            }
            bytes = &bytes[share..];
        }
    }

    /// How much of these bytes belongs into this file, after so many others; 0: a new file is to be begun.
    fn share(&self, after: usize, at_line_start: bool, bytes: &[u8]) -> usize {
        match (&self.rotation, &self.file) {
            (Some(rotation), Some(file)) if file.is_regular => {
                let length = file.length + to_u64(after);
                rotation.share(length, at_line_start, bytes)
            }
            (Some(_) | None, _) => bytes.len(),
        }
    }

    /// How many bytes belong into this file for sure.
    fn room(&self) -> usize {
        match (&self.rotation, &self.file) {
            (Some(rotation), Some(file)) if file.is_regular => rotation.room(file.length),
            (Some(_) | None, _) => usize::MAX,
        }
    }

    /// Begins a new file, if that can be. Whatever comes of it, `share` says something else afterwards.
    fn rotate(&mut self, now: SystemTime) {
        // Somebody may have put another file in its place, or cut this one.
        if !self.look(now) {
            return;
        }
        if self.file.as_ref().is_none_or(|file| file.length == 0) {
            return;
        }
        self.commit_before_renaming();
        let (Some(file), Some(rotation)) = (&mut self.file, &mut self.rotation) else { return };
        let Some(archive) = &mut rotation.archive else { return rotation.hindered(now) };
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let taken = file.metadata().and_then(|metadata| {
            archive.take(&path, file.length, now)?;
            Ok(metadata)
        });
        match taken {
            Ok(old) => self.begin_anew(&path, &old, now),
            Err(error) => {
                rotation.hindered(now);
                self.warn("rename", &error);
            }
        }
    }

    /// Begins a new file in place of one that was renamed.
    fn begin_anew(&mut self, path: &Path, old: &Metadata, now: SystemTime) {
        match OpenFile::replace(path, old) {
            Ok(file) => {
                (self.begun_bytes, self.begun_stamp_bytes) = (0, 0);
                self.file = Some(file);
            }
            Err(error) => {
                self.file = None;
                self.failed_at = Some(now);
                self.warn("open", &error);
            }
        }
        self.commit();
        let Some(rotation) = &mut self.rotation else { return };
        rotation.begun(now);
        if let Some(archive) = &mut rotation.archive {
            archive.tidy();
        }
    }

    /// Writes as much as the file takes, and returns how much that was.
    fn write(&mut self, bytes: &[u8], source: Option<Source>, now: SystemTime) -> usize {
        let Some(file) = &mut self.file else { return 0 };
        let before = file.length;
        let (mut written, error) = file.write(bytes);
        if let Some(error) = error {
            written = self.cut_divided(&bytes[..written], before);
            self.failed_at = Some(now);
            self.warn("write", &error);
        }
        self.unlooked_bytes += to_u64(written);
        self.written_at = now;
        self.ends_with(&bytes[..written], source);
        written
    }

    /// A full disk takes what fits, in the middle of a line. Cuts that line off again, with what was in the file of it
    /// before, unless somebody else has begun it. Returns how much is left of what was written to a file of this
    /// length.
    fn cut_divided(&mut self, written: &[u8], before: u64) -> usize {
        let begun = self.begun_bytes;
        let (whole, length) = match memrchr(b'\n', written) {
            Some(end) => (end + 1, before + to_u64(end + 1)),
            None if self.line == Line::Open(None) => return written.len(),
            None => (0, before - begun),
        };
        let Some(file) = self.file.as_mut().filter(|file| length < file.length && file.is_own()) else {
            return written.len();
        };
        let full = file.length;
        if length < before {
            // It becomes shorter than the last checkpoint says. So the next one comes first: a pump that is killed in
            // between leaves a file that is too long, which is cut then.
            file.length = length;
            self.drop_begun();
            self.commit();
        }
        let Some(file) = &mut self.file else { return written.len() };
        match file.cut(length) {
            Ok(()) => whole,
            Err(_) if length < before => {
                file.length = full;
                self.line = Line::Open(None);
                0
            }
            Err(_) => written.len(),
        }
    }

    /// The unfinished line at the end of the file was cut off, so its rest is to be dropped too.
    fn drop_begun(&mut self) {
        if let Line::Open(Some(source)) = self.line {
            self.skip_bytes[source as usize] = SKIP_BYTES;
        }
        let bytes = self.begun_bytes.saturating_sub(self.begun_stamp_bytes);
        self.count(usize::try_from(bytes).unwrap_or(usize::MAX));
        self.line = Line::Ended;
        (self.begun_bytes, self.begun_stamp_bytes) = (0, 0);
    }

    /// Takes note of the last line of what was written.
    fn ends_with(&mut self, written: &[u8], source: Option<Source>) {
        let stamp_bytes = self.stamp_bytes;
        // No search for what is seen at once: the first search of a process asks the processor what it can, which
        // takes longer than all else that is done before the first process is spawned.
        if written.ends_with(b"\n") {
            self.line = Line::Ended;
            (self.begun_bytes, self.begun_stamp_bytes) = (0, 0);
            return;
        }
        let unfinished = match memrchr(b'\n', written) {
            _ if written.is_empty() => return,
            Some(end) => written.len() - end - 1,
            None => written.len(),
        };
        if unfinished == written.len() && self.line == Line::Open(None) {
            return;
        }
        if unfinished < written.len() || self.line == Line::Ended {
            (self.begun_bytes, self.begun_stamp_bytes) = (0, stamp_bytes);
        }
        self.line = Line::Open(source);
        self.begun_bytes += to_u64(unfinished);
    }

    /// What is left of these bytes without the end of a line whose beginning was dropped.
    fn skip<'a>(&mut self, source: Source, bytes: &'a [u8]) -> &'a [u8] {
        let most = self.skip_bytes[source as usize].min(bytes.len());
        if most == 0 {
            return bytes;
        }
        let (count, left) = match memchr(b'\n', &bytes[..most]) {
            Some(end) => (end + 1, 0),
            None => (most, self.skip_bytes[source as usize] - most),
        };
        self.skip_bytes[source as usize] = left;
        self.positions[source as usize] += to_u64(count);
        self.count(count);
        &bytes[count..]
    }

    /// Drops what is held back of a stream, these bytes, and what is still to come of their last line.
    fn drop_output(&mut self, source: Source, bytes: &[u8]) {
        let held = self.stamped.as_mut().map_or(0, |stamped| stamped.take_held(source, usize::MAX));
        self.positions[source as usize] += to_u64(bytes.len());
        self.count(held + bytes.len());
        match bytes.last() {
            None if held == 0 => {}
            Some(b'\n') => self.skip_bytes[source as usize] = 0,
            Some(_) | None => self.skip_bytes[source as usize] = SKIP_BYTES,
        }
    }

    fn count(&mut self, bytes: usize) {
        if bytes > 0 {
            let bytes = to_u64(bytes);
            self.unsaid_bytes += bytes;
            self.dropped_bytes += bytes;
            self.host.report("dropped_bytes", self.dropped_bytes);
        }
    }

    /// Said once in the life of a pump: a full disk may come and go with every line, and this is the crash
    /// channel.
    #[cold]
    fn warn(&mut self, what: &str, error: &io::Error) {
        if !self.has_warned {
            self.has_warned = true;
            log::warn!("unable to {what} {}: {error}; output that is lost is counted", self.path.display());
        }
    }
}

/// What the end of a file is that does not end where it did: somebody has cut it or added to it.
fn line_of_changed(line: Line, file: &OpenFile, path: &Path) -> Line {
    match line {
        _ if file.length == 0 => Line::Ended,
        Line::Ended => file.line_at_end(path),
        Line::Open(source) => Line::Open(source),
    }
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("no slice is that long")
}

#[cfg(test)]
pub(crate) mod tests;
