//! The words of a pump's life: where it is, what happens to it, what it does about it.

use crate::state::State;
use std::time::Duration;

/// What a pump finds when it begins: what the one before it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Inherited {
    /// The start of the group has succeeded.
    pub(crate) group_started: bool,
    /// The process ended and is not to be respawned by itself.
    pub(crate) held: bool,
    /// Unstable deaths in a row.
    pub(crate) unstable: u32,
    /// The process was kept: it runs, or its end has not been dealt with.
    pub(crate) kept: bool,
    /// The end of the group is wanted.
    pub(crate) stop_wanted: bool,
    /// A restart of the process is wanted.
    pub(crate) restart_wanted: bool,
}

/// Where in its life the pump is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// The monitors are being set up; a process that was kept runs.
    Preparing,
    /// The relay was asked to stop reading, so that no byte comes before its event.
    Holding,
    /// The process is being started; the result comes next.
    Spawning,
    /// The process runs.
    Running,
    /// The process runs and has got the stop signal.
    Ending,
    /// The process is dead, its output and its end are being delivered.
    Delivering,
    /// The process is dead, what is left of it is being ended.
    Clearing,
    /// A pause before the next attempt.
    Pausing,
    /// The process ended and is not to be respawned by itself.
    Held,
    /// The monitors end in order.
    Finishing,
    /// The monitors end in order, and all else is left as it is to another pump.
    Yielding,
    /// The monitors have ended. This pump stays until the other one is there, in case that the daemon dies meanwhile.
    StandingBy,
    /// This pump has left.
    Over,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// All monitors are ready and were given what was left in the streams; the relay reads no more.
    MonitorsReady,
    /// The relay reads no more.
    RelayHeld,
    /// The process was executed.
    Spawned,
    /// The process could not be executed.
    SpawnFailed,
    /// The process says that it is ready.
    Ready,
    /// The process ended; `success`: with code 0, `jitter`: 0 to 200 per mille for a pause.
    ProcessDied { ran: Duration, success: bool, jitter: u16 },
    /// The dead process's output and its end were delivered; the relay reads no more.
    Delivered,
    /// Nothing is left of what was to be cleared: of the process group, or of everyone.
    Cleared { everyone: bool },
    /// A timer ran out.
    Elapsed(Timer),
    /// A restart of the process is wanted.
    RestartAsked,
    /// The end of the group is wanted.
    ShutdownAsked,
    /// The end of the process is wanted at once.
    KillAsked,
    /// Another pump is wanted in this one's place.
    YieldAsked,
    /// The other pump is there.
    Dismissed,
    /// The daemon is gone.
    DaemonDied,
    /// This pump could not become the daemon.
    NotReplaced,
    /// A hook failed, or a monitor was not ready in time: the relay is gone.
    HookFailed,
    /// The monitors have ended.
    Finished,
    /// This pump got SIGTERM.
    Terminated,
    /// This pump got SIGINT or SIGHUP.
    Interrupted,
    /// The daemon got SIGTERM.
    DaemonTerminated,
}

/// A span that is being measured; one of each at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Timer {
    Setup,
    Ready,
    Stop,
    Backoff,
    Deliver,
    Finish,
    Term,
}

impl Timer {
    /// All of them.
    pub(crate) const ALL: [Self; 7] =
        [Self::Setup, Self::Ready, Self::Stop, Self::Backoff, Self::Deliver, Self::Finish, Self::Term];
}

/// How a pump leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// The group was never there: nothing was executed.
    StartFailed,
    /// The group has ended as it was asked to.
    Ended,
    /// The group has ended because this pump could not go on, and nobody replaces it.
    Failed,
    /// The process died too often.
    GaveUp,
    /// A hook failed; the daemon ends the process and starts a new pump.
    Crashed,
    /// This pump was killed; the daemon ends the process and starts a new pump.
    Killed,
    /// A new daemon was started, which starts a new pump.
    HandedOver,
    /// Another pump takes the process over. The monitors have ended, or hang.
    Yielded,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Make the relay stop reading.
    Hold,
    /// Let the relay read.
    Read,
    /// Start the process.
    Spawn,
    /// Tell the monitors that the process runs, then let the relay read.
    TellSpawned {
        respawn: bool,
    },
    /// Tell whoever waits for it that the group is there.
    ReportStarted,
    /// Tell the daemon that the monitors are ready.
    ReportReady,
    /// Tell the daemon that another pump may begin. This one does nothing more.
    ReportYielded,
    /// Give the monitors what the dead process wrote, then its end.
    TellExited,
    /// Send the stop signal to the process group.
    Signal,
    /// Send SIGKILL to the process group and to every descendant that left it.
    Kill,
    /// End politely what is left: of the process group, or of everyone who descends from it.
    Clear {
        everyone: bool,
    },
    /// Reap the dead process.
    Reap,
    Arm(Timer, Duration),
    Disarm(Timer),
    State(State),
    /// Tell the daemon that the group is to end.
    AnnounceEnd,
    /// Tell the daemon that the group has failed.
    AnnounceFailure,
    /// Tell the daemon that this pump got SIGTERM.
    AnnounceTerm,
    /// Let the monitors end in order.
    Finish,
    /// Execute a new daemon.
    StartDaemon,
    /// Become the daemon, in place: the process stays a child of this one.
    BecomeDaemon,
    Leave(Outcome),
}
