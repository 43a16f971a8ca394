//! How a pump's life may begin, what may happen in it, and what the machine promises.

use crate::launch::{Policy, Restart, Strategy};
use crate::lifecycle::Timer;
use std::time::Duration;

/// What the machine promises; one test each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Promise {
    OneProcess,
    SpawnWhileRelayHeld,
    SignalsTheLiving,
    ClearsTheDead,
    ReapsTheDead,
    SpawnToldFirst,
    ExitToldOnce,
    ExitDeliveredBeforeReap,
    NothingAfterLeave,
    NothingLeftAtTheEnd,
    HandedOverAfterStartDaemon,
    DaemonIsReplaced,
    LeavesProcessToDaemonOnly,
    NoSpawnAfterShutdown,
    NoSpawnAfterTerm,
    HeldUntilAsked,
    HeldIsHandedOn,
    NobodyReplacedBeforeTheStart,
    EndIsAnnounced,
    StartReportedOnce,
    GivesUpIfToldTo,
}

/// What happens in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Occurrence {
    MonitorsReady,
    SaysReady,
    HookFails,
    RelayAnswers,
    ProcessDies { stable: bool, success: bool },
    AllCleared,
    Elapses(Timer),
    Restart,
    Shutdown,
    DaemonDies,
    Term,
    Interrupt,
    DaemonGetsTerm,
}

/// How what the machine asks for turns out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Luck {
    /// The program can be executed.
    pub(super) executes: bool,
    /// A process group that is to be cleared is gone already.
    pub(super) group_gone: bool,
    /// So is everyone.
    pub(super) everyone_gone: bool,
}

impl Luck {
    /// The program can be executed, and whatever is to be cleared takes its time.
    pub(super) const PLAIN: Self = Self { executes: true, group_gone: false, everyone_gone: false };
}

/// What came of one go.
#[derive(Debug, Default)]
pub(super) struct Went {
    pub(super) broken: Vec<Promise>,
    /// What would have depended on luck.
    pub(super) spawned: bool,
    pub(super) cleared: bool,
}

/// How a pump's life begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Beginning {
    pub(super) strategy: Strategy,
    pub(super) restart: Restart,
    pub(super) executed: bool,
    pub(super) held: bool,
    /// The process has to say that it is ready.
    pub(super) says_ready: bool,
    /// The group gives up after two respawns in a row.
    pub(super) gives_up: bool,
}

impl Beginning {
    /// Of all there could be those that differ in more than a detail.
    pub(super) fn all() -> Vec<Self> {
        use Strategy::{Daemon, Development, Unattached};
        let begin = |strategy, restart| {
            let (executed, held, says_ready, gives_up) = (false, false, false, false);
            Self { strategy, restart, executed, held, says_ready, gives_up }
        };
        vec![
            begin(Unattached, Restart::OnFailure),
            begin(Development, Restart::OnFailure),
            begin(Daemon, Restart::Always),
            Self { executed: true, held: true, ..begin(Daemon, Restart::Never) },
            Self { says_ready: true, ..begin(Unattached, Restart::Always) },
            Self { says_ready: true, ..begin(Daemon, Restart::Never) },
            Self { executed: true, gives_up: true, ..begin(Daemon, Restart::OnFailure) },
        ]
    }

    pub(super) fn policy(self) -> Policy {
        let ready_within = self.says_ready.then_some(Duration::from_secs(5));
        let max_restarts = self.gives_up.then_some(2);
        Policy { restart: self.restart, ready_within, max_restarts, ..Policy::default() }
    }
}
