//! The default monitor, `log`: appends the process's stdout and stderr to one file, byte for byte, and notes
//! events in it.
//!
//! It never fails for a file that cannot be written, once a group has been started: what cannot be written is
//! dropped and counted (`dropped_bytes` in `status`, since the pump's start), and the process goes on.
//!
//! # The file
//! - A new log file or pid file has the mode 0644, less the umask. The log is appended to, whatever is in it.
//! - Without `timestamps` the bytes of both streams are in the file as they were delivered, nothing added between
//!   them but events. Each chunk is one write, without buffer: what was delivered survives the pump.
//! - Times of events are RFC 3339 in UTC with milliseconds, for events of the process those of the fact itself.
//! - With `events=false` nothing but output is written, and one line for bytes that were dropped.
//! - The pid file is replaced by rename and removed when the group ends in order; a killed pump leaves it.
//! - The message of a dead pump is written as it was handed over, with a newline at its end if it has none.
//! - When the file was moved or removed, a new one is begun at its path. That is looked at before each event,
//!   and before output if the last look was a second or a mebibyte ago; what is written until then is in the
//!   moved file. Written to a file that was removed meanwhile, it is counted as dropped. A file that was cut
//!   (`copytruncate`) is gone on with.
//!
//! # Time stamps
//! - A line has the time of the read in which its first byte came: `rfc3339` is
//!   `2026-08-01T12:34:56.789+02:00 `, local time with its offset (`TZ` of whoever started the group, else
//!   `/etc/localtime`; looked up every five minutes); `tai64n` is `@`, 24 hexadecimal digits and a space, as
//!   daemontools writes it: 2^62 + 10 + Unix seconds, then nanoseconds. Leap seconds are not counted, so
//!   `tai64nlocal` gives the time back and `s6-tai64nlocal` shows it 27 seconds early.
//! - Event lines and the lines of a message have no stamp: an event has its own time, and no line of the process
//!   can pass for one.
//! - Lines of the two streams are never glued together. A line that is still without its end when the other
//!   stream or an event is written gets a newline, and its rest is a line with a stamp of its own. Once both
//!   streams have talked, the unfinished line at the end of a read, up to 16 KiB, is held back until its end
//!   comes, an event is written, or a second has passed, so that one stream does not cut the lines of the other;
//!   a killed pump loses it. Nothing is held back while one stream alone is used.
//!
//! # Rotation
//! - With `max_size` or `rotate_every` the log is renamed to `NAME.20260801T123456.789012Z`, the time in UTC, and
//!   a new one with the same mode and owner takes its place. The names grow strictly, so sorted they are in the
//!   order of the bytes: all files together are what was written, to the byte.
//! - It happens before a write, at the beginning of a line. No line of at most `max_size` is divided: one that
//!   comes in parts is completed in its file, which may so become twice `max_size` and no larger; a longer line
//!   is cut there.
//! - `rotate_every` counts in local time from 1970 on: `24h` ends at midnight, `1h` at the full hour. Nothing
//!   wakes up for it: the first write after that moment begins the new file, also if the pump was restarted in
//!   between. A file without anything is not rotated.
//! - `keep` and `max_total` remove the oldest files at each rotation: before it more are kept, and `max_total`
//!   counts the log itself as `max_size`. A line longer than `max_size` and a file that is being compressed
//!   come on top.
//! - `compress` works in a thread of its own, oldest file first, on `.NAME.….gz.new` (or `.zst.new`); the plain
//!   file goes when the compressed one is on the disk and has its name. It has the mode, owner and time of the
//!   plain one. When a group ends, up to a second is spent on it; what is left, or left half done by a pump that
//!   was killed, is done by the next one.
//! - A log that cannot be renamed is gone on with for a second, however large it becomes.
//!
//! # When it cannot be written
//! - A full disk, a lost directory, a directory in its place: what comes is dropped and counted, and four times
//!   a second writing is tried again, also while the process is silent. As soon as that works, one line says how
//!   many bytes were dropped.
//! - Lines stay whole: of a line that the disk does not take whole nothing is left in the file (it is cut back,
//!   what was there of it before included, unless somebody else writes to the file as well), and the rest of a line whose beginning was dropped is dropped as well,
//!   up to 64 KiB.
//! - With time stamps, bytes of the process are counted, without their stamps.
#![forbid(unsafe_code)]

mod archive;
mod attended;
mod config;
mod line;
mod log_file;
mod pid_file;
mod stamp;

use attended::Attended;
use config::Config;
use immortal_monitor_api::{
    Exit, Host, Monitor, OptionSpec, Options, Output, Readiness, Result, Setup, Spawn, Stream, Why,
    export_monitor,
};
use log_file::{LogFile, Source};
use pid_file::PidFile;
use std::time::{Duration, Instant, SystemTime};

/// How long the end of a group may wait for the compression of old files, and how much of its time is left to
/// the rest.
const COMPRESSION: Duration = Duration::from_secs(1);

/// The monitor of one group.
struct Log {
    host: Host,
    /// `None` if `output` is null.
    file: Option<Attended>,
    pid_file: Option<PidFile>,
    writes_events: bool,
}

impl Monitor for Log {
    const OPTIONS: &'static [OptionSpec] = config::OPTIONS;

    fn check(options: &Options) -> Result {
        Config::read(options)?.check()
    }

    fn new(host: Host, options: &Options) -> Result<Self> {
        let config = Config::read(options)?;
        let Config { timestamps, rotation, .. } = config;
        let file = config.output.map(|path| LogFile::new(path, timestamps, rotation, host.clone()));
        Ok(Self {
            file: file.map(Attended::new),
            pid_file: config.pid_file.map(PidFile::new),
            writes_events: config.events,
            host,
        })
    }

    fn setup_details(&mut self, setup: &Setup<'_>) -> Result<Readiness> {
        let is_first = setup.why == Why::PumpStart;
        if let Some(file) = &self.file {
            file.with(|file| match file.open(SystemTime::now()) {
                // Only the very first start has somebody who reads the refusal.
                Err(error) if is_first => Err(file.refused(&error)),
                Ok(()) | Err(_) => Ok(()),
            })?;
        }
        let pids = self.host.pids();
        if !setup.message.is_empty() {
            self.note(|note| note.message(setup.message));
        }
        self.note(|note| note.lives("monitor", pids.monitor, is_first));
        if let (Some(daemon), Why::PumpStart | Why::DaemonRestart) = (pids.daemon, setup.why) {
            self.note(|note| note.lives("daemon", daemon, is_first));
        }
        self.write_pids(setup.process_pid);
        Ok(Readiness::Ready)
    }

    fn output(&mut self, output: &Output<'_>) -> Result {
        let source = match output.stream {
            Stream::Stdout => Source::Stdout,
            Stream::Stderr => Source::Stderr,
            Stream::Other(_) | _ => return Ok(()),
        };
        if let Some(file) = &self.file {
            file.with(|file| file.append(source, output.bytes, SystemTime::now()));
        }
        Ok(())
    }

    fn spawn(&mut self, spawn: &Spawn) -> Result {
        self.note_at(spawn.at, |note| note.lives("process", spawn.pid, true));
        self.write_pids(Some(spawn.pid));
        Ok(())
    }

    fn respawn(&mut self, spawn: &Spawn) -> Result {
        self.note_at(spawn.at, |note| note.lives("process", spawn.pid, false));
        self.write_pids(Some(spawn.pid));
        Ok(())
    }

    fn exit(&mut self, exit: &Exit) -> Result {
        self.note_at(exit.at, line::Note::terminated);
        if let Some(file) = &self.file {
            file.with(|file| file.process_ended(SystemTime::now()));
        }
        self.write_pids(None);
        Ok(())
    }

    fn idle(&mut self) -> Result {
        if let Some(file) = &self.file {
            file.with(LogFile::rest);
        }
        Ok(())
    }

    fn finish(&mut self, deadline: Instant) -> Result {
        if let Some(file) = &self.file {
            let now = Instant::now();
            let until = deadline.checked_sub(COMPRESSION).unwrap_or(now).min(now + COMPRESSION);
            file.with(|file| file.finish(SystemTime::now(), until));
        }
        if let Some(pid_file) = &mut self.pid_file {
            pid_file.remove();
        }
        Ok(())
    }
}

impl Log {
    fn note(&mut self, what: impl FnOnce(&mut line::Note)) {
        self.note_at(SystemTime::now(), what);
    }

    fn note_at(&mut self, at: SystemTime, what: impl FnOnce(&mut line::Note)) {
        if let (true, Some(file)) = (self.writes_events, &self.file) {
            let mut note = line::Note::at(at);
            what(&mut note);
            file.with(|file| file.append_lines(&note.into_bytes(), SystemTime::now()));
        }
    }

    /// Writes the pid file. The process is said by the caller: a snapshot may be ahead of the event.
    fn write_pids(&mut self, process: Option<i32>) {
        if let Some(pid_file) = &mut self.pid_file {
            let pids = self.host.pids();
            pid_file.write(process, pids.monitor, pids.daemon);
        }
    }
}

export_monitor!(Log);

#[cfg(test)]
mod tests;
