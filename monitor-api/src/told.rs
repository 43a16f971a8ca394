//! What a monitor is told: why it is set up, what was written, and what became of the process.

use crate::abi;
use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a monitor is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// The group was started.
    PumpStart,
    /// The pump died; the message is its stderr.
    PumpRestart,
    /// The daemon died.
    DaemonRestart,
    /// The monitors were reloaded; nothing died.
    Reload,
    /// A newer host has another reason; to be treated as a restart.
    Other(u32),
}

impl Why {
    pub(crate) const fn from_raw(raw: u32) -> Self {
        match raw {
            abi::WHY_PUMP_START => Self::PumpStart,
            abi::WHY_PUMP_RESTART => Self::PumpRestart,
            abi::WHY_DAEMON_RESTART => Self::DaemonRestart,
            abi::WHY_RELOAD => Self::Reload,
            other => Self::Other(other),
        }
    }

    pub(crate) const fn to_raw(self) -> u32 {
        match self {
            Self::PumpStart => abi::WHY_PUMP_START,
            Self::PumpRestart => abi::WHY_PUMP_RESTART,
            Self::DaemonRestart => abi::WHY_DAEMON_RESTART,
            Self::Reload => abi::WHY_RELOAD,
            Self::Other(other) => other,
        }
    }
}

impl core::fmt::Display for Why {
    /// Writes the words of the reference: `pump start`, `pump restart`, `daemon restart`, `reload`.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::PumpStart => f.write_str("pump start"),
            Self::PumpRestart => f.write_str("pump restart"),
            Self::DaemonRestart => f.write_str("daemon restart"),
            Self::Reload => f.write_str("reload"),
            Self::Other(other) => write!(f, "restart for reason {other}"),
        }
    }
}

/// What `setup` returns: whether the process may be spawned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Readiness {
    /// The monitor is ready.
    Ready,
    /// Not yet: the monitor calls [`Host::ready`] later, from any thread. The process is not spawned before
    /// that, and `--setup-timeout` runs on.
    ///
    /// [`Host::ready`]: crate::Host::ready
    Pending,
}

/// One of the group's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A stream that only a newer host knows.
    Other(u32),
}

impl Stream {
    pub(crate) const fn from_raw(raw: u32) -> Self {
        match raw {
            abi::STREAM_STDOUT => Self::Stdout,
            abi::STREAM_STDERR => Self::Stderr,
            other => Self::Other(other),
        }
    }

    pub(crate) const fn to_raw(self) -> u32 {
        match self {
            Self::Stdout => abi::STREAM_STDOUT,
            Self::Stderr => abi::STREAM_STDERR,
            Self::Other(other) => other,
        }
    }
}

/// All that `setup` is told; [`Monitor::setup`] gets the first two of it.
///
/// [`Monitor::setup`]: crate::Monitor::setup
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setup<'a> {
    /// Why the monitor is set up.
    pub why: Why,
    /// Stderr of the dead pump, the newest part of it; empty where there is none.
    pub message: &'a [u8],
    /// How many bytes of that stderr are missing before `message`.
    pub cut_bytes: u64,
    /// Offset of the first byte of stdout that will be delivered.
    pub stdout_offset: u64,
    /// Offset of the first byte of stderr that will be delivered.
    pub stderr_offset: u64,
    /// Whether the process was kept running through the death of pump or daemon.
    pub kept: bool,
    /// Pid of the process if it was kept.
    pub process_pid: Option<i32>,
}

impl<'a> Setup<'a> {
    /// Makes a setup with this reason and message, everything else zero: for tests.
    pub const fn new(why: Why, message: &'a [u8]) -> Self {
        Self {
            why,
            message,
            cut_bytes: 0,
            stdout_offset: 0,
            stderr_offset: 0,
            kept: false,
            process_pid: None,
        }
    }
}

/// Bytes of one stream with where they belong; [`Monitor::stdout`] and [`Monitor::stderr`] get the bytes alone.
///
/// [`Monitor::stdout`]: crate::Monitor::stdout
/// [`Monitor::stderr`]: crate::Monitor::stderr
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output<'a> {
    /// The stream they were written to.
    pub stream: Stream,
    /// What one read returned, up to 512 KiB of a busy stream; it respects no line.
    pub bytes: &'a [u8],
    /// Offset of the first of the bytes in the group's stream.
    pub offset: u64,
    /// Whether an earlier pump may have delivered these bytes already.
    pub redelivered: bool,
    /// `CLOCK_MONOTONIC` at the read, in nanoseconds, if it was taken.
    pub mono_ns: Option<u64>,
}

impl<'a> Output<'a> {
    /// Makes an output of these bytes at this offset: for tests.
    pub const fn new(stream: Stream, bytes: &'a [u8], offset: u64) -> Self {
        Self { stream, bytes, offset, redelivered: false, mono_ns: None }
    }
}

/// An event of the process's life; [`Monitor::spawn`], [`Monitor::respawn`] and [`Monitor::exit`] get one kind
/// each.
///
/// [`Monitor::spawn`]: crate::Monitor::spawn
/// [`Monitor::respawn`]: crate::Monitor::respawn
/// [`Monitor::exit`]: crate::Monitor::exit
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The process started for the first time.
    Spawn(Spawn),
    /// The process was started again.
    Respawn(Spawn),
    /// The process died.
    Exit(Exit),
    /// An event that only a newer host knows, to be ignored.
    Other(u32),
}

/// The process started.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spawn {
    /// Pid of the process.
    pub pid: i32,
    /// How many times the process has been respawned in the life of the group.
    pub count: u32,
    /// Whether this is the process of before, kept running, and not a new one.
    pub kept: bool,
    /// When it started.
    pub at: SystemTime,
    /// When it started, by `CLOCK_MONOTONIC`, in nanoseconds.
    pub mono_ns: u64,
}

impl Spawn {
    /// Makes the start of this process, at this moment: for tests.
    pub fn new(pid: i32) -> Self {
        Self { pid, count: 0, kept: false, at: SystemTime::now(), mono_ns: 0 }
    }
}

/// The process died.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// Pid that the process had.
    pub pid: i32,
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Number of the signal that ended it, if one did.
    pub signal: Option<i32>,
    /// Whether it left a core dump.
    pub core: bool,
    /// How long it ran.
    pub ran: Duration,
    /// How many times the process has been respawned in the life of the group, up to now.
    pub count: u32,
    /// When it died.
    pub at: SystemTime,
    /// When it died, by `CLOCK_MONOTONIC`, in nanoseconds.
    pub mono_ns: u64,
}

impl Exit {
    /// Makes the death of this process by `exit(code)`, at this moment: for tests.
    pub fn with_code(pid: i32, code: i32) -> Self {
        Self::new(pid, Some(code), None)
    }

    /// Makes the death of this process by a signal, at this moment: for tests.
    pub fn with_signal(pid: i32, signal: i32) -> Self {
        Self::new(pid, None, Some(signal))
    }

    fn new(pid: i32, code: Option<i32>, signal: Option<i32>) -> Self {
        let (ran, at) = (Duration::ZERO, SystemTime::now());
        Self { pid, code, signal, core: false, ran, count: 0, at, mono_ns: 0 }
    }
}

/// A role of the group: a process of immortal's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Hosts the monitors.
    Pump,
    /// Keeps the pump alive.
    Daemon,
    /// A role that only a newer host knows.
    Other(u32),
}

impl Role {
    const fn from_raw(raw: u32) -> Self {
        match raw {
            abi::ROLE_PUMP => Self::Pump,
            abi::ROLE_DAEMON => Self::Daemon,
            other => Self::Other(other),
        }
    }

    const fn to_raw(self) -> u32 {
        match self {
            Self::Pump => abi::ROLE_PUMP,
            Self::Daemon => abi::ROLE_DAEMON,
            Self::Other(other) => other,
        }
    }
}

impl core::fmt::Display for Role {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Pump => f.write_str("pump"),
            Self::Daemon => f.write_str("daemon"),
            Self::Other(other) => write!(f, "role {other}"),
        }
    }
}

/// How a pump or a daemon of the group died; see [`Host::last_crash`].
///
/// [`Host::last_crash`]: crate::Host::last_crash
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Crash<'a> {
    /// Which of them it was.
    pub role: Role,
    /// When its death was noticed.
    pub at: SystemTime,
    /// Pid that it had.
    pub pid: i32,
    /// Exit code; `None` if it did not exit by itself, or if that is not known, as of a daemon.
    pub code: Option<i32>,
    /// Number of the signal that ended it, if one did and that is known.
    pub signal: Option<i32>,
    /// How many crashes there were in a row, this one included. A pump that ran for `--stable` ends a row.
    pub count: u32,
    /// Label of the monitor whose hook was in progress, if one was.
    pub monitor: Option<&'a str>,
    /// Name of the hook that was in progress, if one was: `create` for [`Monitor::new`], `destroy` for the drop, else
    /// as it is called in the trait.
    ///
    /// [`Monitor::new`]: crate::Monitor::new
    pub hook: Option<&'a str>,
    /// Whether that hook ended the pump: it failed, panicked, took too long, called `exit`, or did something for which
    /// the kernel ends a process. `false` if the pump was killed from outside.
    pub by_hook: bool,
    /// Up to where stdout was delivered to every monitor.
    pub stdout_offset: u64,
    /// Up to where stderr was delivered to every monitor.
    pub stderr_offset: u64,
    /// The chunk that was taken and not delivered to every monitor, if there was one.
    pub pending: Option<Pending>,
    /// The last bytes of its stderr, at most 4096. The message of `setup` may have more.
    pub stderr: &'a [u8],
}

/// Bytes of a stream that were being delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Pending {
    /// The stream they were written to.
    pub stream: Stream,
    /// Offset of the first of them in the group's stream.
    pub offset: u64,
    /// How many they are.
    pub bytes: u64,
}

impl Pending {
    /// So many bytes of a stream from this offset on: for tests.
    pub const fn new(stream: Stream, offset: u64, bytes: u64) -> Self {
        Self { stream, offset, bytes }
    }
}

impl<'a> Crash<'a> {
    /// Makes the first crash in a row, of this role, at this moment, with nothing else known: for tests.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            at: SystemTime::now(),
            pid: 0,
            code: None,
            signal: None,
            count: 1,
            monitor: None,
            hook: None,
            by_hook: false,
            stdout_offset: 0,
            stderr_offset: 0,
            pending: None,
            stderr: b"",
        }
    }

    /// Takes what a host has told; `text` reads one of its texts, `None` if that is null.
    pub(crate) fn from_raw(raw: &abi::Crash, text: impl Fn(abi::Str) -> Option<&'a [u8]>) -> Self {
        let name = |name| text(name).and_then(|name| core::str::from_utf8(name).ok());
        Self {
            role: Role::from_raw(raw.role),
            at: UNIX_EPOCH + Duration::from_nanos(raw.wall_ns),
            pid: raw.pid,
            code: (raw.code >= 0).then_some(raw.code),
            signal: (raw.signal >= 0).then_some(raw.signal),
            count: raw.count,
            monitor: name(raw.monitor),
            hook: name(raw.hook),
            by_hook: raw.flags & abi::CRASH_BY_HOOK != 0,
            stdout_offset: raw.offsets[0],
            stderr_offset: raw.offsets[1],
            pending: (raw.pending_stream != 0).then(|| Pending {
                stream: Stream::from_raw(raw.pending_stream),
                offset: raw.pending_offset,
                bytes: raw.pending_bytes,
            }),
            stderr: text(raw.stderr_tail).unwrap_or_default(),
        }
    }

    /// As it crosses; `lend` makes a text that lives long enough.
    pub(crate) fn to_raw(&self, lend: impl Fn(&[u8]) -> abi::Str) -> abi::Crash {
        let name = |name: Option<&str>| name.map_or(crate::raw::NONE, |name| lend(name.as_bytes()));
        let wall = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        abi::Crash {
            size: u32::try_from(size_of::<abi::Crash>()).expect("a hundred bytes"),
            role: self.role.to_raw(),
            code: self.code.unwrap_or(-1),
            signal: self.signal.unwrap_or(-1),
            wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
            pid: self.pid,
            count: self.count,
            monitor: name(self.monitor),
            hook: name(self.hook),
            offsets: [self.stdout_offset, self.stderr_offset],
            pending_stream: self.pending.map_or(0, |pending| pending.stream.to_raw()),
            flags: if self.by_hook { abi::CRASH_BY_HOOK } else { 0 },
            pending_offset: self.pending.map_or(0, |pending| pending.offset),
            pending_bytes: self.pending.map_or(0, |pending| pending.bytes),
            stderr_tail: lend(self.stderr),
        }
    }
}

impl Event {
    pub(crate) fn from_raw(raw: &abi::Event) -> Self {
        let at = UNIX_EPOCH + Duration::from_nanos(raw.wall_ns);
        let spawn = || Spawn {
            pid: raw.pid,
            count: raw.count,
            kept: raw.flags & abi::FLAG_KEPT != 0,
            at,
            mono_ns: raw.mono_ns,
        };
        match raw.kind {
            abi::EVENT_SPAWN => Self::Spawn(spawn()),
            abi::EVENT_RESPAWN => Self::Respawn(spawn()),
            abi::EVENT_EXIT => Self::Exit(Exit {
                pid: raw.pid,
                code: (raw.code >= 0).then_some(raw.code),
                signal: (raw.signal >= 0).then_some(raw.signal),
                core: raw.flags & abi::FLAG_CORE != 0,
                ran: Duration::from_nanos(raw.ran_ns),
                count: raw.count,
                at,
                mono_ns: raw.mono_ns,
            }),
            other => Self::Other(other),
        }
    }

    /// The hook that is called for this event.
    pub(crate) const fn hook(&self) -> &'static str {
        match self {
            Self::Spawn(_) => "spawn",
            Self::Respawn(_) => "respawn",
            Self::Exit(_) => "exit",
            Self::Other(_) => "event",
        }
    }
}
