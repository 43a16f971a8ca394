//! The group's state page: a small shared file that says who is alive and what is going on.
//!
//! The roles write it, each its own part ([`Page`]); anybody of the same user reads it ([`Snapshot`]), and needs
//! nobody's answer for that. Here is what both must agree on: which number is where, and what it means.

mod page;
mod snapshot;

use crate::delivery;
use crate::sys::family::Exit;
use crate::sys::page::WORDS;

pub(crate) use page::Page;
pub(crate) use snapshot::Snapshot;

const MAGIC: u64 = u64::from_le_bytes(*b"immortal");
const FORMAT: u64 = 2;

/// Where on the page a number is. Never reordered within a format.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
enum Word {
    Magic = 0,
    Format,
    Boot,
    State,
    Sequence,
    Process,
    ProcessStarted,
    Pump,
    PumpStarted,
    Daemon,
    DaemonStarted,
    Launcher,
    LauncherStarted,
    /// Wall clock of the process's start.
    Since,
    Restarts,
    PumpRestarts,
    DaemonRestarts,
    /// Exit code plus one, or 0.
    ExitCode,
    ExitSignal,
    /// Wall clock of the last exit, 0 if there was none.
    ExitAt,
    /// Wall clock of the next attempt during a pause, else 0.
    NextAttempt,
    /// Unstable deaths in a row, of process and pump together.
    Unstable,
    /// `why` of the next `setup`.
    Why,
    /// Bytes missing before the message of the next `setup`.
    MessageCut,
    /// 1 once the start of the group has succeeded.
    GroupStarted,
    /// 1 when the process ended and is not to be respawned.
    Held,
    /// 1 once SIGKILL was needed to end the group.
    Killed,
    ReasonLength,
    ReportLength,
    /// Monotonic clock of the process's start.
    SinceMonotonic,
    /// 1 once the end of the group is wanted: what a pump did not finish, the next one does.
    StopWanted,
    /// 1 while a restart of the process is wanted.
    RestartWanted,
    /// A bit for each monitor that is set aside.
    Aside,
    /// Version of what the roles have in common.
    RolesFormat,
    /// Which request for a reload was the last one. Before its state: a reader that knows it reads a state that is not
    /// older.
    ReloadId,
    ReloadState,
    /// Pid of a process whose end is noted in the next word, before the pump knows of it.
    Ended,
    /// How it ended: code or signal, [`BY_SIGNAL`], [`CORE`].
    EndedHow,
    /// Which descriptors a daemon is given that is executed in place, a bit for each; else 0.
    Handed,
    /// Inodes of the pipes that the streams are: see [`Marks`].
    StdoutPipe,
    StderrPipe,
    StreamsSince,
    ProcessUser,
}

const BY_SIGNAL: u64 = 1 << 32;
const CORE: u64 = 1 << 33;

const REASON: std::ops::Range<usize> = 64..128;
const REPORT: std::ops::Range<usize> = 128..DELIVERY.start;
const DELIVERY: std::ops::Range<usize> = WORDS - delivery::WORDS..WORDS;

/// A group's state, as told by `list` and `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub(crate) enum State {
    Starting = 1,
    Running,
    Stopping,
    Backoff,
    Stopped,
    Failed,
    Orphaned,
}

impl State {
    /// The word of the contract.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Orphaned => "orphaned",
        }
    }

    fn from_number(number: u64) -> Self {
        [Self::Starting, Self::Running, Self::Stopping, Self::Backoff, Self::Stopped, Self::Failed]
            .into_iter()
            .find(|state| *state as u64 == number)
            .unwrap_or(Self::Starting)
    }
}

/// By what it is known who belongs to a group when all are gone who knew them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Inodes of the pipes that the streams are.
    pub(crate) pipes: [u64; 2],
    /// When they were made, in clock ticks since the boot; 0: that is not known.
    pub(crate) since: u64,
    /// The user as whom the process runs.
    pub(crate) uid: u32,
}

/// How far the last reload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum ReloadState {
    /// There was none.
    None,
    /// The new monitors are not ready yet.
    UnderWay,
    /// They are; the new set-up is in force.
    Ready,
    /// They did not get ready; the old ones are not back yet.
    Restoring,
    Done,
    Failed,
}

impl ReloadState {
    fn from_number(number: u64) -> Self {
        [Self::UnderWay, Self::Ready, Self::Restoring, Self::Done, Self::Failed]
            .into_iter()
            .find(|state| *state as u64 == number)
            .unwrap_or(Self::None)
    }
}

/// Whether the monitor of this index is set aside, by the bits of [`Page::aside`].
pub(crate) fn is_aside(mask: u64, monitor: usize) -> bool {
    u32::try_from(monitor)
        .ok()
        .and_then(|monitor| mask.checked_shr(monitor))
        .is_some_and(|bits| bits & 1 == 1)
}

/// Who of a group is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    Process,
    Pump,
    Daemon,
    Launcher,
}

impl Member {
    fn words(self) -> (Word, Word) {
        match self {
            Self::Process => (Word::Process, Word::ProcessStarted),
            Self::Pump => (Word::Pump, Word::PumpStarted),
            Self::Daemon => (Word::Daemon, Word::DaemonStarted),
            Self::Launcher => (Word::Launcher, Word::LauncherStarted),
        }
    }
}

/// The three pids, 0 where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pids {
    pub(crate) process: i32,
    pub(crate) pump: i32,
    pub(crate) daemon: i32,
}

/// How the process ended last, and when (wall clock, nanoseconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastExit {
    pub(crate) exit: Exit,
    pub(crate) at_ns: u64,
}

fn pid_number(pid: i32) -> u64 {
    u64::try_from(pid).unwrap_or(0)
}

fn number_pid(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(0)
}
