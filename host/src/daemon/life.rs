//! What a daemon does next, decided without doing anything: `step(event) -> actions`.
//!
//! A daemon keeps one pump alive. When the pump dies, it ends what the pump left, and spawns another one: at
//! once if the dead one had run for long enough, else after a pause that grows. With `keep` it ends nothing: the next
//! pump takes the process over, also when the group is ending and the dead pump had not finished that. A reload is
//! the same with another set-up: the pump yields, one with the new set-up is tried, and if that one dies before its
//! monitors are ready, the old set-up is restored. No I/O, no clock, no pid.

use crate::backoff::pause;
use crate::launch::Policy;
use crate::lifecycle::{KILL_AGAIN, TERM_GRACE};
use crate::reload::{trial_timeout, yield_timeout};
use crate::state::State;
use std::time::Duration;

/// How many pumps may try in a row to end a group in order, with everything delivered.
const MOST_TRIES: u8 = 3;
/// Where in its life the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// The pump that executed this daemon has not ended yet.
    Succeeding,
    /// The pump lives.
    Up,
    /// The pump is dead, what it left is being ended.
    Sweeping,
    /// A pause before the next pump.
    Pausing,
    /// This daemon has left.
    Over,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// The pump that executed this daemon has ended.
    PredecessorGone,
    /// The pump says that the process runs.
    Started,
    /// The pump says that the group is to end.
    PumpEnds,
    /// The pump says that the group has failed: the process died too often.
    PumpGivesUp,
    /// The pump got SIGTERM.
    PumpTerminated,
    /// The pump died; `jitter`: 0 to 200 per mille for a pause, `unfinished`: with `keep`, the process is still to be
    /// dealt with, or what it has written.
    PumpDied { ran: Duration, jitter: u16, unfinished: bool },
    /// The pump could not be started.
    PumpNotStarted { jitter: u16 },
    /// Nothing is left of what the pump left.
    Swept,
    /// The pump is in an error loop.
    Flooded,
    /// The end of the group is wanted.
    ShutdownAsked,
    /// A restart of the process is wanted while no pump lives.
    RestartAsked,
    /// Another set-up is wanted.
    ReloadAsked,
    /// The pump says that its monitors are ready.
    PumpReady,
    /// The pump has yielded: another one may begin. `unfinished`: as of [`Event::PumpDied`].
    PumpYielded { unfinished: bool },
    /// This daemon got SIGTERM.
    Terminated,
    /// This daemon got SIGINT or SIGHUP.
    Interrupted,
    /// A timer ran out.
    Elapsed(Timer),
}

/// A span that is being measured; one of each at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Timer {
    Stop,
    Backoff,
    Term,
    Reload,
}

impl Timer {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Stop, Self::Backoff, Self::Term, Self::Reload];
}

/// How far a reload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reload {
    /// There is none.
    None,
    /// The pump was asked to yield.
    Yielding,
    /// A pump with the new set-up lives, its monitors are not ready.
    Trying,
}

/// How a daemon leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// The group was never there: nothing was executed.
    StartFailed,
    /// The group has ended as it was asked to.
    Ended,
    /// The process or the pump died too often.
    GaveUp,
    /// This daemon was killed; the pump executes a new one.
    Killed,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    SpawnPump,
    KillPump,
    /// Tell the pump to end the group.
    StopPump,
    /// Tell the pump that this daemon got SIGTERM.
    AnnounceTerm,
    /// End politely what the pump left: the process, its group, everyone.
    Sweep,
    /// Send SIGKILL to all of it.
    Kill,
    Arm(Timer, Duration),
    Disarm(Timer),
    State(State),
    /// The reload is under way.
    AcceptReload,
    /// The reload is not possible.
    RefuseReload,
    /// Tell the pump to make way for another one.
    YieldPump,
    /// The next pump is started with the new set-up.
    Replace,
    /// The new set-up works: it is the group's from now on.
    Settle,
    /// The new set-up does not work: the next pump is started with the old one.
    Restore,
    /// The new set-up was not tried: the group is ending.
    AbandonReload,
    Leave(Outcome),
}

/// The state of a daemon's life.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Life {
    policy: Policy,
    phase: Phase,
    group_started: bool,
    ending: bool,
    failed: bool,
    unstable: u32,
    last: (Duration, u16),
    terminated: bool,
    pump_terminated: bool,
    /// Pumps that have tried to end the group.
    tries: u8,
    reload: Reload,
}

impl Life {
    /// Begins a daemon's life. `group_started`: the group's start has succeeded; `succeeding`: a pump executed this
    /// daemon.
    pub(crate) fn new(policy: Policy, group_started: bool, succeeding: bool) -> (Self, Vec<Action>) {
        let phase = if succeeding { Phase::Succeeding } else { Phase::Up };
        let life = Self {
            policy,
            phase,
            group_started,
            ending: false,
            failed: false,
            unstable: 0,
            last: (Duration::ZERO, 0),
            terminated: false,
            pump_terminated: false,
            tries: 0,
            reload: Reload::None,
        };
        let actions = if succeeding { Vec::new() } else { vec![Action::SpawnPump] };
        (life, actions)
    }

    /// Begins with a pump that lives: the daemon before was this process.
    pub(crate) fn renewed(policy: Policy) -> Self {
        let (life, _) = Self::new(policy, true, false);
        life
    }

    /// Where in its life the daemon is.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the group is about to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending
    }

    /// Whether the group is about to end as it was asked to.
    pub(crate) fn is_stopping(&self) -> bool {
        self.ending && !self.failed
    }

    /// Whether the pump was asked to yield.
    pub(crate) fn is_yielding(&self) -> bool {
        self.reload == Reload::Yielding
    }

    /// Unstable deaths in a row, which the pumps count on.
    pub(crate) fn unstable(&self) -> u32 {
        self.unstable
    }

    /// Takes over what the pumps have counted.
    pub(crate) fn set_unstable(&mut self, count: u32) {
        self.unstable = count;
    }

    /// Takes one event and says what to do about it, in this order.
    pub(crate) fn step(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.phase != Phase::Over {
            self.take(event, &mut actions);
        }
        actions
    }

    fn take(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::PredecessorGone if self.phase == Phase::Succeeding => {
                if self.ending {
                    self.sweep(out)
                } else {
                    self.spawn(out)
                }
            }
            Event::Started => self.group_started = true,
            Event::PumpEnds => self.ending = true,
            Event::PumpGivesUp => {
                self.ending = true;
                self.failed = true;
            }
            Event::PumpTerminated => {
                self.pump_terminated = true;
                if self.terminated {
                    self.end(out);
                }
            }
            Event::PumpDied { ran, jitter, unfinished } if self.phase == Phase::Up => {
                self.pump_died((ran, jitter), unfinished, out);
            }
            Event::PumpNotStarted { jitter } if self.phase == Phase::Up => {
                self.pump_died((Duration::ZERO, jitter), false, out);
            }
            Event::PumpYielded { unfinished } if self.reload == Reload::Yielding => {
                self.pump_died((Duration::ZERO, 0), unfinished, out);
            }
            Event::Swept if self.phase == Phase::Sweeping => self.swept(out),
            Event::Flooded if self.phase == Phase::Up => out.push(Action::KillPump),
            Event::ShutdownAsked => self.end(out),
            Event::RestartAsked if self.phase == Phase::Pausing && !self.ending => {
                self.unstable = 0;
                out.push(Action::Disarm(Timer::Backoff));
                self.spawn(out);
            }
            Event::ReloadAsked => self.reload_asked(out),
            Event::PumpReady if self.reload == Reload::Trying => {
                self.reload = Reload::None;
                self.unstable = 0;
                out.push(Action::Disarm(Timer::Reload));
                out.push(Action::Settle);
            }
            Event::Terminated => self.terminated(out),
            Event::Interrupted if self.phase == Phase::Up && !self.ending => self.go(Outcome::Killed, out),
            Event::Interrupted if self.phase == Phase::Pausing => {
                // The group is to outlive this daemon: here is a pump that starts, or becomes, the next one.
                out.push(Action::Disarm(Timer::Backoff));
                self.spawn(out);
                self.go(Outcome::Killed, out);
            }
            Event::Interrupted => self.end(out),
            Event::Elapsed(timer) => self.elapsed(timer, out),
            Event::PredecessorGone
            | Event::PumpDied { .. }
            | Event::PumpNotStarted { .. }
            | Event::Swept
            | Event::Flooded
            | Event::PumpReady
            | Event::PumpYielded { .. }
            | Event::RestartAsked => {}
        }
    }

    fn reload_asked(&mut self, out: &mut Vec<Action>) {
        let is_possible =
            self.policy.keeps() && self.group_started && !self.ending && self.reload == Reload::None;
        match self.phase {
            Phase::Up if is_possible => {
                self.reload = Reload::Yielding;
                out.push(Action::AcceptReload);
                out.push(Action::YieldPump);
                out.push(Action::Arm(Timer::Reload, yield_timeout(&self.policy)));
            }
            Phase::Pausing if is_possible => {
                out.push(Action::AcceptReload);
                out.push(Action::Disarm(Timer::Backoff));
                self.try_new(out);
            }
            Phase::Up | Phase::Pausing | Phase::Succeeding | Phase::Sweeping | Phase::Over => {
                out.push(Action::RefuseReload);
            }
        }
    }

    /// Starts a pump with the new set-up.
    fn try_new(&mut self, out: &mut Vec<Action>) {
        self.reload = Reload::Trying;
        out.push(Action::Replace);
        out.push(Action::Arm(Timer::Reload, trial_timeout(&self.policy)));
        self.spawn(out);
    }

    /// The pump is gone: what that means for a reload. True: its successor is started.
    fn reload_goes_on(&mut self, out: &mut Vec<Action>) -> bool {
        match self.reload {
            Reload::None => false,
            Reload::Yielding if self.ending => {
                self.reload = Reload::None;
                out.push(Action::Disarm(Timer::Reload));
                out.push(Action::AbandonReload);
                false
            }
            // However it died: a pump whose monitors crash may be why the reload is wanted.
            Reload::Yielding => {
                self.try_new(out);
                true
            }
            Reload::Trying => {
                self.reload = Reload::None;
                out.push(Action::Disarm(Timer::Reload));
                out.push(Action::Restore);
                if !self.ending {
                    self.spawn(out);
                }
                !self.ending
            }
        }
    }

    fn spawn(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Up;
        self.pump_terminated = false;
        out.push(Action::State(if self.ending { State::Stopping } else { State::Starting }));
        out.push(Action::SpawnPump);
    }

    fn pump_died(&mut self, last: (Duration, u16), unfinished: bool, out: &mut Vec<Action>) {
        self.last = last;
        if self.reload_goes_on(out) {
            return;
        }
        if !self.policy.keeps() || !self.group_started || self.failed {
            self.sweep(out)
        } else if !self.ending {
            self.go_on(out)
        } else if unfinished && self.tries < MOST_TRIES {
            self.tries += 1;
            self.spawn(out)
        } else {
            self.sweep(out)
        }
    }

    fn sweep(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Sweeping;
        out.push(Action::State(State::Stopping));
        out.push(Action::Arm(Timer::Stop, self.policy.stop_timeout));
        out.push(Action::Sweep);
    }

    fn swept(&mut self, out: &mut Vec<Action>) {
        out.push(Action::Disarm(Timer::Stop));
        if !self.group_started {
            return self.go(Outcome::StartFailed, out);
        }
        if self.ending {
            let outcome = if self.failed { Outcome::GaveUp } else { Outcome::Ended };
            return self.go(outcome, out);
        }
        self.go_on(out);
    }

    /// The next pump: at once, after a pause, or never.
    fn go_on(&mut self, out: &mut Vec<Action>) {
        let (ran, jitter) = self.last;
        // What could not even be started was not stable, however short a stable run may be.
        if !ran.is_zero() && ran >= self.policy.stable {
            self.unstable = 0;
            return self.spawn(out);
        }
        self.unstable = self.unstable.saturating_add(1);
        if self.policy.gives_up(self.unstable) {
            if !self.policy.keeps() {
                return self.go(Outcome::GaveUp, out);
            }
            // The process runs still.
            self.ending = true;
            self.failed = true;
            return self.sweep(out);
        }
        match pause(&self.policy, self.unstable, jitter) {
            Duration::ZERO => self.spawn(out),
            pause => {
                self.phase = Phase::Pausing;
                out.push(Action::Arm(Timer::Backoff, pause));
                out.push(Action::State(State::Backoff));
            }
        }
    }

    /// The group is to end: the pump does it if it lives.
    fn end(&mut self, out: &mut Vec<Action>) {
        if self.ending {
            return;
        }
        self.ending = true;
        out.push(Action::Disarm(Timer::Term));
        match self.phase {
            Phase::Up => out.push(Action::StopPump),
            Phase::Pausing => {
                out.push(Action::Disarm(Timer::Backoff));
                if self.policy.keeps() { self.spawn(out) } else { self.sweep(out) }
            }
            Phase::Succeeding | Phase::Sweeping | Phase::Over => {}
        }
    }

    fn terminated(&mut self, out: &mut Vec<Action>) {
        let first = !self.terminated;
        self.terminated = true;
        if self.phase != Phase::Up || self.pump_terminated {
            self.end(out);
        } else if first && !self.ending {
            out.push(Action::AnnounceTerm);
            out.push(Action::Arm(Timer::Term, TERM_GRACE));
        }
        if self.pump_terminated && first {
            // The pump waits to hear it.
            out.push(Action::AnnounceTerm);
        }
    }

    fn elapsed(&mut self, timer: Timer, out: &mut Vec<Action>) {
        match timer {
            Timer::Stop if self.phase == Phase::Sweeping => {
                out.push(Action::Kill);
                out.push(Action::Arm(Timer::Stop, KILL_AGAIN));
            }
            Timer::Backoff if self.phase == Phase::Pausing => self.spawn(out),
            Timer::Term if self.ending => {}
            Timer::Term if self.phase == Phase::Up => self.go(Outcome::Killed, out),
            // No pump lives that could execute a new daemon.
            Timer::Term => self.end(out),
            Timer::Reload if self.phase == Phase::Up && self.reload != Reload::None => {
                out.push(Action::KillPump);
            }
            Timer::Stop | Timer::Backoff | Timer::Reload => {}
        }
    }

    fn go(&mut self, outcome: Outcome, out: &mut Vec<Action>) {
        self.phase = Phase::Over;
        out.push(Action::Leave(outcome));
    }
}

#[cfg(test)]
mod tests;
