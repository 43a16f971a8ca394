//! How a pump's life may begin, what may happen in it, and what the machine promises.

use crate::launch::{Policy, Restart, Strategy};
use crate::lifecycle::Timer;

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
}

/// What happens in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Occurrence {
    MonitorsReady,
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
}

impl Beginning {
    /// All of them.
    pub(super) fn all() -> Vec<Self> {
        let begin = |strategy, restart, executed, held| Self { strategy, restart, executed, held };
        use Strategy::{Daemon, Development, Unattached};
        let mut all = vec![begin(Unattached, Restart::OnFailure, false, false)];
        for restart in [Restart::Always, Restart::Never] {
            all.extend(
                [Development, Unattached, Daemon].map(|strategy| begin(strategy, restart, false, false)),
            );
        }
        all.push(begin(Daemon, Restart::Always, true, false));
        all.push(begin(Daemon, Restart::Never, true, true));
        all
    }

    pub(super) fn policy(self) -> Policy {
        Policy { restart: self.restart, ..Policy::default() }
    }
}
