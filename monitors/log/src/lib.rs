//! The default monitor, `log`: appends the process's stdout and stderr to one file, byte for byte, and notes
//! events in it.
//!
//! It never fails for a file that cannot be written, once a group has been started: what cannot be written is
//! dropped and counted (`dropped_bytes` in `status`, since the pump's start, with `--on-crash keep` since the group's),
//! and the process goes on.
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
//!   a killed pump loses it, but not with `--on-crash keep`. Nothing is held back while one stream alone is used.
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
//!   what was there of it before included, unless somebody else writes to the file as well), and the rest of a line
//!   whose beginning was dropped is dropped as well, up to 64 KiB.
//! - With time stamps, bytes of the process are counted, without their stamps.
//!
//! # When the process is kept running (`--on-crash keep`)
//! - Whenever a pump is killed, the files together have every byte once, every event of the process once, and go on
//!   as if nothing had happened, but for the event lines of the new pump. What a hook has returned from is noted in
//!   `LABEL.delivered` in the group's directory: up to where each stream is in the log, how long that was, and what
//!   is held back. What a killed pump wrote and did not note is cut off when the next one is set up, and delivered
//!   to that once more. Without that file (there is no room for it, say) output may be in the log twice.
//! - Cut is nothing but the log itself, also if it was moved within its directory meanwhile, and only what is behind
//!   the noted length. A log that was seen to be written to by somebody else as well is never cut; one that somebody
//!   has made shorter is gone on with at its end; instead of one that was moved away, a new one is begun.
//! - What a full disk cost stays counted, and is said once.
#![forbid(unsafe_code)]

mod archive;
mod attended;
mod config;
mod kill;
mod line;
mod log_file;
mod pid_file;
mod stamp;

use attended::Attended;
use config::Config;
use immortal_monitor_api::{
    Exit, Host, Monitor, OptionSpec, Options, Output, Readiness, Result, Setup, Spawn, Stream, Why, abi,
    export_monitor,
};
use log_file::{LogFile, Source, Told};
use pid_file::PidFile;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
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
            file.with(|file| {
                self.take_over(file, setup);
                match file.open(SystemTime::now()) {
                    // Only the very first start has somebody who reads the refusal.
                    Err(error) if is_first => Err(file.refused(&error)),
                    Ok(()) | Err(_) => Ok(()),
                }
            })?;
        }
        let pids = self.host.pids();
        self.note(setup.kept, |note| {
            if !setup.message.is_empty() {
                note.message(setup.message);
            }
            note.lives("monitor", pids.monitor, is_first);
            if let (Some(daemon), Why::PumpStart | Why::DaemonRestart) = (pids.daemon, setup.why) {
                note.lives("daemon", daemon, is_first);
            }
        });
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
            file.with(|file| {
                let bytes = file.fresh(source, output.offset, output.bytes);
                if !bytes.is_empty() {
                    file.append(source, bytes, SystemTime::now());
                }
            });
        }
        Ok(())
    }

    fn spawn(&mut self, spawn: &Spawn) -> Result {
        self.begun(abi::EVENT_SPAWN, spawn);
        Ok(())
    }

    fn respawn(&mut self, spawn: &Spawn) -> Result {
        self.begun(abi::EVENT_RESPAWN, spawn);
        Ok(())
    }

    fn exit(&mut self, exit: &Exit) -> Result {
        let told = Told { kind: abi::EVENT_EXIT, pid: exit.pid, count: exit.count };
        self.tell(told, exit.at, line::Note::terminated, |file| file.process_ended(SystemTime::now()));
        self.write_pids(None);
        Ok(())
    }

    fn idle(&mut self) -> Result {
        if let Some(file) = &self.file {
            file.with(|file| file.rest(SystemTime::now()));
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
    /// If the process is kept running through the death of a pump, sees to it that so is the log, to the byte.
    fn take_over(&self, file: &mut LogFile, setup: &Setup<'_>) {
        let Some(path) = checkpoint_path(&self.host) else { return };
        let first_offsets = [setup.stdout_offset, setup.stderr_offset];
        let is_first = setup.why == Why::PumpStart;
        if let Some([stdout, stderr]) = file.keep_checkpoints(path, first_offsets, is_first) {
            self.host.durable(Stream::Stdout, stdout);
            self.host.durable(Stream::Stderr, stderr);
        }
    }

    /// The process runs.
    fn begun(&mut self, kind: u32, spawn: &Spawn) {
        // One that was kept running has not begun.
        if !spawn.kept {
            let told = Told { kind, pid: spawn.pid, count: spawn.count };
            let is_first = kind == abi::EVENT_SPAWN;
            self.tell(told, spawn.at, |note| note.lives("process", spawn.pid, is_first), |_| {});
        }
        self.write_pids(Some(spawn.pid));
    }

    /// Takes note of an event of the process, once.
    fn tell(
        &self,
        event: Told,
        at: SystemTime,
        what: impl FnOnce(&mut line::Note),
        then: impl FnOnce(&mut LogFile),
    ) {
        let Some(file) = &self.file else { return };
        file.with(|file| {
            if file.was_told(event) {
                return;
            }
            self.append_note(file, at, what);
            then(file);
            file.is_told(event);
        });
    }

    /// Takes note of something that happens now. A process that was kept may be in the middle of a line, which is not
    /// divided.
    fn note(&self, kept: bool, what: impl FnOnce(&mut line::Note)) {
        let Some(file) = &self.file else { return };
        let now = SystemTime::now();
        let mut note = line::Note::at(now);
        if self.writes_events {
            what(&mut note);
        }
        let lines = note.into_bytes();
        file.with(|file| match (lines.is_empty(), kept) {
            (true, _) => {}
            (false, true) => file.append_lines_behind(&lines, now),
            (false, false) => file.append_lines(&lines, now),
        });
    }

    fn append_note(&self, file: &mut LogFile, at: SystemTime, what: impl FnOnce(&mut line::Note)) {
        if self.writes_events {
            let mut note = line::Note::at(at);
            what(&mut note);
            file.append_lines(&note.into_bytes(), SystemTime::now());
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

/// Where what is in the log is noted for the next pump; `None` unless the process is kept running when a pump dies.
fn checkpoint_path(host: &Host) -> Option<PathBuf> {
    if host.setting("on_crash")? != b"keep" {
        return None;
    }
    let directory = Path::new(OsStr::from_bytes(host.setting("directory")?));
    Some(directory.join(format!("{}.delivered", host.label())))
}

export_monitor!(Log);

#[cfg(test)]
mod tests;
