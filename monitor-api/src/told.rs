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
    /// What one read returned; it respects no line.
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
