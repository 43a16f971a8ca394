//! The default monitor, `log`: appends the process's stdout and stderr to one file, byte for byte, and notes
//! events in it.
//!
//! It never fails for a file that cannot be written, once a group has been started: what cannot be written is
//! dropped and counted (`dropped_bytes` in `status`, since the pump's start), and the process goes on.
//!
//! - A new log file or pid file has the mode 0644, less the umask. The log is appended to, whatever is in it.
//! - Each chunk of output is one write, without buffer: what was delivered survives the pump.
//! - Times are RFC 3339 in UTC with milliseconds, for events of the process those of the fact itself.
//! - With `events=false` nothing but output is written, and one line for bytes that were dropped.
//! - The pid file is replaced by rename and removed when the group ends in order; a killed pump leaves it.
//! - The message of a dead pump is written as it was handed over, with a newline at its end if it has none.
#![forbid(unsafe_code)]

mod config;
mod line;
mod log_file;
mod pid_file;

use config::Config;
use immortal_monitor_api::{
    Exit, Host, Monitor, OptionSpec, Options, Output, Readiness, Result, Setup, Spawn, Stream, Why,
    export_monitor,
};
use log_file::LogFile;
use pid_file::PidFile;
use std::time::{Instant, SystemTime};

/// The monitor of one group.
struct Log {
    host: Host,
    /// `None` if `output` is null.
    file: Option<LogFile>,
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
        Ok(Self {
            file: config.output.map(|path| LogFile::new(path, host.clone())),
            pid_file: config.pid_file.map(PidFile::new),
            writes_events: config.events,
            host,
        })
    }

    fn setup_details(&mut self, setup: &Setup<'_>) -> Result<Readiness> {
        let is_first = setup.why == Why::PumpStart;
        if let Some(file) = &mut self.file {
            match file.open() {
                // Only the very first start has somebody who reads the refusal.
                Err(error) if is_first => return Err(file.refused(&error)),
                Ok(()) | Err(_) => {}
            }
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
        if let (Stream::Stdout | Stream::Stderr, Some(file)) = (output.stream, &mut self.file) {
            file.append(output.bytes);
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
        self.write_pids(None);
        Ok(())
    }

    fn idle(&mut self) -> Result {
        if let Some(file) = &mut self.file {
            file.settle();
        }
        Ok(())
    }

    fn finish(&mut self, _deadline: Instant) -> Result {
        if let Some(file) = &mut self.file {
            file.settle();
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
        if let (true, Some(file)) = (self.writes_events, &mut self.file) {
            let mut note = line::Note::at(at);
            what(&mut note);
            file.append_lines(note.into_bytes());
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
