//! The parent's side of one helper: starts it, talks to it without waiting, and tells what became of it.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::process::{self, Begun, Process};
use super::wire::{Reply, Request, frame, unframe};
use crate::loader::dispositions::signal_name;
use crate::loader::{Description, Identity, Settings, one_line};
use crate::options::OptionValue;
use crate::sys::family::Exit;
use log::{Level, LevelFilter};

/// How long a library may take in all. A little less than the ten seconds within which it is refused, so that
/// killing and telling fit in.
const LIMIT: Duration = Duration::from_millis(9_700);
/// How much of a helper's stderr is kept, and how much of its last line is shown.
const STDERR_BYTES: usize = 4096;
const DETAIL_CHARS: usize = 200;

/// Why a helper did not pass.
#[derive(Debug)]
pub(in crate::loader) enum Failure {
    /// The executable is not ours, or the system refuses.
    Helper {
        /// Why.
        source: io::Error,
    },
    /// The library cannot be loaded.
    Load {
        /// Why, in one line.
        text: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The monitor refuses its options; the text names it.
    Refused {
        /// Why, in one line.
        text: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The executable has not said a word.
    Starting,
    Loading,
    /// It has described the library and waits.
    Described,
    Checking,
    Passed,
}

/// One running helper. Dropping it kills it and all it started.
#[derive(Debug)]
pub(in crate::loader) struct Helper {
    label: String,
    process: Process,
    /// How the process ended, once it has.
    ended: Exit,
    pub(super) channel: UnixStream,
    pub(super) stderr: Option<File>,
    said: Vec<u8>,
    inbox: Vec<u8>,
    pub(super) outbox: Vec<u8>,
    pub(super) deadline: Instant,
    phase: Phase,
    token: [u64; 2],
    described: Option<(Description, Identity)>,
    is_clean: bool,
}

impl Helper {
    /// Starts a helper that loads the library of a label, in a directory or in ours; [`exchange`](super::exchange) hears what
    /// comes of it.
    pub(in crate::loader) fn start(
        executable: &Path,
        directory: Option<&Path>,
        (label, library): (&str, &Path),
        max_level: LevelFilter,
    ) -> io::Result<Self> {
        let deadline = Instant::now() + LIMIT;
        let Begun { process, channel, stderr } = process::begin(executable, directory)?;
        let mut helper = Self {
            label: label.to_owned(),
            process,
            ended: Exit::default(),
            channel,
            stderr: Some(stderr.into()),
            said: Vec::new(),
            inbox: Vec::new(),
            outbox: Vec::new(),
            deadline,
            phase: Phase::Starting,
            token: token(),
            described: None,
            is_clean: false,
        };
        let path = library.as_os_str().as_bytes().to_vec();
        helper.post(&Request::Describe { path, label: label.to_owned(), max_level: max_level as usize })?;
        Ok(helper)
    }

    /// What the library says of itself, once [`exchange`](super::exchange) has come back without a failure.
    pub(in crate::loader) fn described(&self) -> Option<&(Description, Identity)> {
        self.described.as_ref()
    }

    /// Lets the library judge its options; [`exchange`](super::exchange) hears what comes of it.
    pub(in crate::loader) fn check(
        &mut self,
        options: &[OptionValue],
        settings: &Settings,
    ) -> io::Result<()> {
        self.phase = Phase::Checking;
        let (token, options, settings) = (self.token, options.to_vec(), settings.clone());
        self.post(&Request::Check { token, options, settings })
    }

    fn post(&mut self, request: &Request) -> io::Result<()> {
        self.outbox.extend(frame(request)?);
        self.write()
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Described | Phase::Passed)
    }

    pub(super) fn write(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.channel.write(&self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A helper that is gone: its end of the channel says so better.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.outbox.clear(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what there is and acts on whole messages.
    pub(super) fn read(&mut self) -> Result<(), Failure> {
        let mut is_at_end = false;
        let mut buffer = [0; 8192];
        loop {
            match self.channel.read(&mut buffer) {
                Ok(0) => is_at_end = true,
                Ok(count) => {
                    self.inbox.extend_from_slice(&buffer[..count]);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => is_at_end = true,
            }
            break;
        }
        while let Some(reply) = unframe(&mut self.inbox).map_err(|_| self.garbled())? {
            self.hear(reply)?;
        }
        if is_at_end && !self.is_waiting() { Err(self.ended()) } else { Ok(()) }
    }

    fn hear(&mut self, reply: Reply) -> Result<(), Failure> {
        match (reply, self.phase) {
            (Reply::Log { level, target, text }, _) => {
                let level = Level::iter().nth(level.saturating_sub(1)).unwrap_or(Level::Trace);
                log::log!(target: &target, level, "monitor {}: {}", self.label, one_line(&text));
            }
            (Reply::Begun, Phase::Starting) => self.phase = Phase::Loading,
            (Reply::Described { description, identity }, Phase::Loading) => {
                self.described = Some((description, identity));
                self.phase = Phase::Described;
            }
            (Reply::Passed { token, is_clean }, Phase::Checking) if token == self.token => {
                self.phase = Phase::Passed;
                self.is_clean = is_clean;
            }
            (Reply::Failed { text, hint }, Phase::Loading) => return Err(Failure::Load { text, hint }),
            (Reply::Failed { text, hint }, Phase::Checking) => return Err(Failure::Refused { text, hint }),
            (
                Reply::Begun | Reply::Described { .. } | Reply::Passed { .. } | Reply::Failed { .. },
                Phase::Starting | Phase::Loading | Phase::Described | Phase::Checking | Phase::Passed,
            ) => return Err(self.garbled()),
        }
        Ok(())
    }

    pub(super) fn listen(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        let mut buffer = [0; STDERR_BYTES];
        // Once and not until it is empty: a library may write on for ever.
        match stderr.read(&mut buffer) {
            Ok(0) => self.stderr = None,
            Ok(count) => {
                self.said.extend_from_slice(&buffer[..count]);
                self.said.drain(..self.said.len().saturating_sub(STDERR_BYTES));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.stderr = None,
        }
    }

    /// The helper's end of the channel is closed: it has ended, or something in it has closed all it could. In
    /// both cases it is killed; that changes nothing about the status of a process that is ending already.
    fn ended(&mut self) -> Failure {
        self.ended = self.process.end();
        self.tell()
    }

    /// The time is over.
    pub(super) fn late(&mut self) -> Failure {
        self.ended = self.process.end();
        if self.ended.signal != Some(libc::SIGKILL) {
            // It had ended before, and what it started keeps the channel open.
            return self.tell();
        }
        self.load(format!("it did not finish within 10 s {}", self.doing()))
    }

    fn tell(&mut self) -> Failure {
        self.listen();
        let doing = self.doing();
        if self.phase == Phase::Starting {
            let text = format!("it is no immortal executable, or could not begin{}", self.detail());
            return Failure::Helper { source: io::Error::other(text) };
        }
        let text = match (self.ended.signal, self.ended.code) {
            (Some(signal), _) => format!("it crashed with {} {doing}", signal_name(signal)),
            (None, Some(127)) => format!("the dynamic loader gave up (exit status 127) {doing}"),
            (None, Some(code)) => format!("it called exit({code}) {doing}"),
            (None, None) => format!("the helper process ended {doing}"),
        };
        let text = text + &self.detail();
        self.load(text)
    }

    fn garbled(&mut self) -> Failure {
        self.kill();
        self.load(format!("the helper process was disturbed {}", self.doing()))
    }

    fn load(&self, text: String) -> Failure {
        Failure::Load { text, hint: None }
    }

    fn doing(&self) -> &'static str {
        match self.phase {
            Phase::Starting | Phase::Loading => "while loading it",
            Phase::Described | Phase::Checking | Phase::Passed => "while checking its options",
        }
    }

    /// The last thing it wrote to its stderr.
    fn detail(&self) -> String {
        let said = String::from_utf8_lossy(&self.said);
        let mut lines = said.lines().rev().map(str::trim);
        let line = lines.find(|line| !line.is_empty() && !line.starts_with("note: run with"));
        line.map_or_else(String::new, |line| {
            format!(" ({})", one_line(&line.chars().take(DETAIL_CHARS).collect::<String>()))
        })
    }

    /// It has passed, and has left nothing in its process that would go with it.
    pub(in crate::loader) fn is_clean(&self) -> bool {
        self.is_clean
    }

    /// Gets readable when the helper is gone, where the system can tell.
    pub(in crate::loader) fn watch(&self) -> Option<OwnedFd> {
        self.process.watch()
    }

    /// Kills the helper and everything it started.
    pub(in crate::loader) fn kill(&self) {
        self.process.kill();
    }
}

/// Numbers that no library can say by chance; the standard library seeds its hashes from the system.
fn token() -> [u64; 2] {
    [0, 1].map(|index| {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u8(index);
        hasher.finish()
    })
}
