//! How a pump's life may begin, what may happen in it, and what the machine promises.

use super::world::Process;
use crate::launch::{OnCrash, Policy, Restart, Strategy};
use crate::lifecycle::{Action, Inherited, Lifecycle, Timer};
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
    KeptUntilAsked,
    BecomesDaemonOnce,
    StopIsHandedOn,
    RestartIsHandedOn,
    YieldsAtRest,
    LeavesSomethingToFinish,
}

/// What happens in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Occurrence {
    MonitorsReady,
    SaysReady,
    HookFails,
    RelayAnswers,
    ProcessDies {
        stable: bool,
        success: bool,
    },
    /// The pump finds that a process that was kept is dead: it does not look before the monitors are ready.
    EndIsSeen,
    AllCleared,
    Elapses(Timer),
    Restart,
    Shutdown,
    DaemonDies,
    /// The daemon wants another pump in this one's place.
    Yield,
    /// The other pump is there.
    Dismiss,
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
    /// The pump can become the daemon.
    pub(super) becomes: bool,
}

impl Luck {
    /// The program can be executed, the pump becomes the daemon, and whatever is to be cleared takes its time.
    pub(super) const PLAIN: Self =
        Self { executes: true, group_gone: false, everyone_gone: false, becomes: true };
}

/// What came of one go.
#[derive(Debug, Default)]
pub(super) struct Went {
    pub(super) broken: Vec<Promise>,
    /// What would have depended on luck.
    pub(super) spawned: bool,
    pub(super) cleared: bool,
    pub(super) became: bool,
}

/// What a group was started with, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Rules {
    pub(super) strategy: Strategy,
    pub(super) restart: Restart,
    /// The process has to say that it is ready.
    pub(super) says_ready: bool,
    /// The group gives up after two respawns in a row.
    pub(super) gives_up: bool,
    /// The process outlives its pump and its daemon.
    pub(super) keeps: bool,
    /// Another pump may be wanted.
    pub(super) reloads: bool,
}

impl Rules {
    fn policy(self) -> Policy {
        let ready_within = self.says_ready.then_some(Duration::from_secs(5));
        let max_restarts = self.gives_up.then_some(2);
        let on_crash = if self.keeps { OnCrash::Keep } else { OnCrash::Respawn };
        Policy { restart: self.restart, ready_within, max_restarts, on_crash, ..Policy::default() }
    }
}

/// How a pump's life begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Beginning {
    pub(super) rules: Rules,
    pub(super) group_started: bool,
    pub(super) held: bool,
    /// What an earlier pump has left of the process.
    pub(super) process: Process,
    pub(super) stop_wanted: bool,
    pub(super) restart_wanted: bool,
}

impl Beginning {
    /// Of all there could be those that differ in more than a detail.
    pub(super) fn all() -> Vec<Self> {
        use Strategy::{Daemon, Development, Unattached};
        let rules = |strategy, restart| {
            let (says_ready, gives_up, keeps, reloads) = (false, false, false, false);
            Rules { strategy, restart, says_ready, gives_up, keeps, reloads }
        };
        let begin = |rules| {
            let (group_started, held, stop_wanted, restart_wanted) = (false, false, false, false);
            Self { rules, group_started, held, process: Process::None, stop_wanted, restart_wanted }
        };
        let next = |rules| Self { group_started: true, ..begin(rules) };
        let mut all = vec![
            begin(rules(Unattached, Restart::OnFailure)),
            begin(rules(Development, Restart::OnFailure)),
            begin(rules(Daemon, Restart::Always)),
            Self { held: true, ..next(rules(Daemon, Restart::Never)) },
            begin(Rules { says_ready: true, ..rules(Unattached, Restart::Always) }),
            begin(Rules { says_ready: true, ..rules(Daemon, Restart::Never) }),
            next(Rules { gives_up: true, ..rules(Daemon, Restart::OnFailure) }),
            Self { stop_wanted: true, ..next(rules(Daemon, Restart::Always)) },
        ];
        // Not both at once, so that the number of states stays small.
        let reloads = Rules { keeps: true, reloads: true, ..rules(Daemon, Restart::Always) };
        let ready = Rules { keeps: true, says_ready: true, ..rules(Daemon, Restart::Never) };
        all.extend([
            begin(reloads),
            begin(ready),
            Self { held: true, ..next(ready) },
            Self { stop_wanted: true, ..next(ready) },
            // The pump before had decided that it is over, and was killed before it could reap the process.
            Self { held: true, process: Process::Dead, ..next(ready) },
        ]);
        for process in [Process::Alive, Process::Dead] {
            let kept = |rules| Self { process, ..next(rules) };
            all.extend([kept(reloads), kept(ready)]);
            for (stop_wanted, restart_wanted) in [(true, false), (false, true), (true, true)] {
                all.push(Self { stop_wanted, restart_wanted, ..kept(ready) });
            }
        }
        all
    }

    /// The machine, with what the driver would give it.
    pub(super) fn machine(self) -> (Lifecycle, Vec<Action>) {
        let Self { rules, group_started, held, process, stop_wanted, restart_wanted } = self;
        let kept = process != Process::None;
        let inherited = Inherited { group_started, held, unstable: 0, kept, stop_wanted, restart_wanted };
        Lifecycle::new(rules.policy(), rules.strategy, inherited)
    }
}
