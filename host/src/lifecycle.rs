//! What a pump does next, decided without doing anything: `step(event) -> actions`.
//!
//! A pump prepares its monitors, spawns the process, and from then on lives in a circle: running, dead (its
//! output and its end are delivered, what is left of its process group is ended), pausing perhaps, running again.
//! Four things leave the circle: the group is to end, the daemon has died, a monitor's hook has failed, or this
//! pump itself was told to die. Whatever comes, the process is ended politely first, unless somebody else will.
//!
//! With `keep` the process outlives all of this but the end of the group: a pump begins with the process that the one
//! before it has left, and one whose daemon dies becomes the daemon itself. And a pump may be asked to yield: it ends
//! its monitors in order, as soon as it has nothing else to do, and leaves the process to another one; until that is there
//! it stands by.
//!
//! No I/O, no clock, no pid, no log: time comes as an event, and a failed action is an event too.

mod vocabulary;

pub(crate) use vocabulary::{Action, Event, Inherited, Outcome, Phase, Timer};

use crate::backoff::pause;
use crate::launch::{Policy, Restart, Strategy};
use crate::state::State;
use std::time::Duration;

/// How long monitors may take to end in order.
pub(crate) const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the delivery of a dead process's output may take when the group is to end.
pub(crate) const DELIVER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long SIGKILL has to end everyone before it is sent again: to what was forked meanwhile.
pub(crate) const KILL_AGAIN: Duration = Duration::from_secs(1);
/// How long a role that got SIGTERM waits to hear that its partner got one too.
pub(crate) const TERM_GRACE: Duration = Duration::from_millis(100);

/// What the pump is about to reach; a higher one replaces a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Goal {
    /// What the policy says.
    Policy,
    Restart,
    HandOver,
    Fail,
    GiveUp,
    Shutdown,
}

/// The state of a pump's life.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Lifecycle {
    policy: Policy,
    strategy: Strategy,
    phase: Phase,
    goal: Goal,
    /// The process was executed at least once in the life of the group.
    executed: bool,
    /// The start of the group has succeeded.
    group_started: bool,
    /// The process has still to say that it is ready.
    unready: bool,
    /// The process ended and is not to be respawned by itself, and nobody has asked for it since.
    held: bool,
    /// The monitors are still being set up and the process of the pump before is there already.
    kept: bool,
    /// The daemon is gone, and nobody would replace this pump.
    daemon_gone: bool,
    /// Another pump is wanted in this one's place.
    yields: bool,
    /// Yielding: there is a process.
    leaves_process: bool,
    /// The relay does not read.
    relay_held: bool,
    /// The relay is gone or hangs: nothing can be delivered any more.
    relay_gone: bool,
    unstable: u32,
    last: (Duration, bool, u16),
    stop_armed: bool,
    terminated: bool,
    daemon_terminated: bool,
}

impl Lifecycle {
    /// Begins a pump's life with what the one before it left.
    pub(crate) fn new(policy: Policy, strategy: Strategy, inherited: Inherited) -> (Self, Vec<Action>) {
        let setup_timeout = policy.setup_timeout;
        let Inherited { group_started, held, unstable, kept, stop_wanted, restart_wanted } = inherited;
        let goal = match (stop_wanted, kept && restart_wanted) {
            (true, _) => Goal::Shutdown,
            (false, true) => Goal::Restart,
            (false, false) => Goal::Policy,
        };
        let lifecycle = Self {
            policy,
            strategy,
            phase: Phase::Preparing,
            goal,
            executed: group_started,
            group_started,
            unready: false,
            held,
            kept,
            daemon_gone: false,
            yields: false,
            leaves_process: false,
            relay_held: false,
            relay_gone: false,
            unstable,
            last: (Duration::ZERO, false, 0),
            stop_armed: false,
            terminated: false,
            daemon_terminated: false,
        };
        let mut actions = Vec::new();
        if stop_wanted {
            if strategy == Strategy::Daemon {
                // The pump before may have died before it could say so, and so may the daemon that it told.
                actions.push(Action::AnnounceEnd);
            }
            actions.push(Action::State(State::Stopping));
            actions.push(Action::Arm(Timer::Setup, setup_timeout.min(DELIVER_TIMEOUT)));
        } else {
            actions.push(Action::State(State::Starting));
            actions.push(Action::Arm(Timer::Setup, setup_timeout));
        }
        (lifecycle, actions)
    }

    /// Where in its life the pump is.
    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Unstable deaths in a row.
    pub(crate) fn unstable(&self) -> u32 {
        self.unstable
    }

    /// The process ended and is not to be respawned by itself: what the next pump begins with.
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// The end of the group is wanted: what the next pump begins with.
    pub(crate) fn wants_end(&self) -> bool {
        self.goal == Goal::Shutdown
    }

    /// A restart of the process is wanted: what the next pump begins with.
    pub(crate) fn wants_restart(&self) -> bool {
        self.goal == Goal::Restart
    }

    /// Whether the group is about to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.goal >= Goal::Fail || self.phase == Phase::Over
    }

    /// Takes one event and says what to do about it, in this order.
    pub(crate) fn step(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.phase != Phase::Over {
            self.take(event, &mut actions);
            self.yield_at_rest(&mut actions);
        }
        actions
    }

    fn take(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::MonitorsReady => self.monitors_ready(out),
            Event::RelayHeld => self.relay_held(out),
            Event::Spawned => self.spawned(out),
            Event::SpawnFailed => self.spawn_failed(out),
            Event::Ready => self.ready(out),
            Event::ProcessDied { ran, success, jitter } => self.process_died((ran, success, jitter), out),
            Event::Delivered => self.delivered(out),
            Event::Cleared { everyone } => self.cleared(everyone, out),
            Event::Elapsed(timer) => self.elapsed(timer, out),
            Event::RestartAsked => self.restart_asked(out),
            Event::ShutdownAsked => self.pursue(Goal::Shutdown, out),
            Event::KillAsked => out.push(Action::Kill),
            Event::YieldAsked => self.yield_asked(out),
            Event::Dismissed if self.phase == Phase::StandingBy => self.go(Outcome::Yielded, out),
            Event::Dismissed => {}
            Event::DaemonDied => self.daemon_died(out),
            Event::NotReplaced => self.pursue(Goal::HandOver, out),
            Event::HookFailed => self.hook_failed(out),
            Event::Finished => self.finished(out),
            Event::Terminated => self.terminated(out),
            Event::Interrupted => self.killed(out),
            Event::DaemonTerminated => self.daemon_terminated(out),
        }
    }

    fn monitors_ready(&mut self, out: &mut Vec<Action>) {
        if self.phase != Phase::Preparing {
            return;
        }
        self.relay_held = true;
        out.push(Action::Disarm(Timer::Setup));
        if self.policy.keeps() && self.group_started {
            out.push(Action::ReportReady);
        }
        if self.kept {
            self.take_over(out)
        } else if self.goal >= Goal::HandOver {
            self.clear(out)
        } else if self.held {
            self.hold(out)
        } else {
            self.spawn(out)
        }
    }

    /// The process that was kept is this pump's now, alive or dead.
    fn take_over(&mut self, out: &mut Vec<Action>) {
        self.kept = false;
        self.phase = Phase::Running;
        self.read(out);
        if self.goal == Goal::Policy {
            out.push(Action::State(State::Running));
            out.push(Action::ReportStarted);
        } else {
            // Who has asked for a restart waits for the process that comes then.
            self.end_process(out);
        }
    }

    fn relay_held(&mut self, out: &mut Vec<Action>) {
        self.relay_held = true;
        match (self.phase, self.goal) {
            (Phase::Holding, _) => self.spawn(out),
            (Phase::Finishing, Goal::HandOver) => self.leave(out),
            _ => {}
        }
    }

    fn spawn(&mut self, out: &mut Vec<Action>) {
        if self.terminated {
            // This pump is about to leave: the next one spawns it, or nobody does.
            self.wait(out);
        } else if self.relay_held {
            self.phase = Phase::Spawning;
            out.push(Action::Spawn);
        } else {
            self.phase = Phase::Holding;
            out.push(Action::Hold);
        }
    }

    fn spawned(&mut self, out: &mut Vec<Action>) {
        if self.phase != Phase::Spawning {
            return;
        }
        self.phase = Phase::Running;
        self.relay_held = false;
        self.unready = true;
        match self.policy.ready_within {
            Some(span) => {
                out.push(Action::State(State::Starting));
                out.push(Action::Arm(Timer::Ready, span));
            }
            // Before the monitors are told: it is true whatever a hook does about it.
            None => self.ready(out),
        }
        out.push(Action::TellSpawned { respawn: self.executed });
        self.executed = true;
    }

    fn ready(&mut self, out: &mut Vec<Action>) {
        if self.phase != Phase::Running || !self.unready {
            return;
        }
        self.unready = false;
        self.group_started = true;
        out.push(Action::Disarm(Timer::Ready));
        out.push(Action::State(State::Running));
        out.push(Action::ReportStarted);
    }

    /// The process was not ready in time: at a start that is a failure, at a respawn an unstable death.
    fn not_ready(&mut self, out: &mut Vec<Action>) {
        if self.group_started { self.end_process(out) } else { self.pursue(Goal::Fail, out) }
    }

    fn spawn_failed(&mut self, out: &mut Vec<Action>) {
        if self.phase != Phase::Spawning {
            return;
        }
        if self.executed {
            self.phase = Phase::Running;
            self.process_died((Duration::ZERO, false, self.last.2), out);
        } else {
            self.finish(out);
        }
    }

    fn process_died(&mut self, last: (Duration, bool, u16), out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Yielding | Phase::StandingBy) {
            // For the next pump, or there is nothing to end if none comes.
            self.leaves_process = false;
        }
        if !matches!(self.phase, Phase::Running | Phase::Ending) {
            return;
        }
        self.last = last;
        self.phase = Phase::Delivering;
        if std::mem::replace(&mut self.unready, false) {
            out.push(Action::Disarm(Timer::Ready));
            self.last.0 = Duration::ZERO;
            if !self.group_started && self.goal == Goal::Policy {
                self.goal = Goal::Fail;
            }
        }
        // The end of a process that goes with its daemon has no event of its own, and what it left in the
        // streams is for the next pump.
        if self.relay_gone || self.goal == Goal::HandOver {
            return self.clear(out);
        }
        // Before the monitors are told: it is decided, whatever a hook does about it.
        self.held |= self.goal == Goal::Policy && !self.wants_respawn();
        out.push(Action::TellExited);
        if self.goal >= Goal::Fail || self.yields {
            out.push(Action::Arm(Timer::Deliver, DELIVER_TIMEOUT));
        }
    }

    fn delivered(&mut self, out: &mut Vec<Action>) {
        self.relay_held = true;
        if self.phase == Phase::Delivering {
            out.push(Action::Disarm(Timer::Deliver));
            self.clear(out);
        }
    }

    /// Ends what is left: for a respawn the process group, for good everyone.
    fn clear(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Clearing;
        if !self.stop_armed {
            self.stop_armed = true;
            out.push(Action::Arm(Timer::Stop, self.policy.stop_timeout));
        }
        out.push(Action::Clear { everyone: self.goal >= Goal::HandOver });
    }

    fn cleared(&mut self, everyone: bool, out: &mut Vec<Action>) {
        // The group may have been gone already when the end for good was asked for: everyone is still to go.
        if self.phase != Phase::Clearing || (self.goal >= Goal::HandOver && !everyone) {
            return;
        }
        self.stop_armed = false;
        out.push(Action::Disarm(Timer::Stop));
        out.push(Action::Reap);
        self.decide(out);
    }

    /// The process is dead and nothing is left of it: what now?
    fn decide(&mut self, out: &mut Vec<Action>) {
        match self.goal {
            Goal::HandOver | Goal::Fail | Goal::GiveUp | Goal::Shutdown => self.finish(out),
            Goal::Restart => {
                self.goal = Goal::Policy;
                self.unstable = 0;
                self.spawn(out);
            }
            // The pump before may have decided that already, when it still knew how the process had ended.
            Goal::Policy if self.held || !self.wants_respawn() => self.hold(out),
            Goal::Policy => self.respawn(out),
        }
    }

    fn wants_respawn(&self) -> bool {
        match self.policy.restart {
            Restart::Always => true,
            Restart::OnFailure => !self.last.1,
            Restart::Never => false,
        }
    }

    fn respawn(&mut self, out: &mut Vec<Action>) {
        let (ran, _, jitter) = self.last;
        // What could not even be executed is not stable, however short a stable run may be.
        if !ran.is_zero() && ran >= self.policy.stable {
            self.unstable = 0;
            return self.spawn(out);
        }
        self.unstable = self.unstable.saturating_add(1);
        if self.policy.gives_up(self.unstable) {
            return self.pursue(Goal::GiveUp, out);
        }
        match pause(&self.policy, self.unstable, jitter) {
            Duration::ZERO => self.spawn(out),
            pause => {
                self.wait(out);
                out.push(Action::Arm(Timer::Backoff, pause));
                out.push(Action::State(State::Backoff));
            }
        }
    }

    /// No process runs and none is being started; the relay reads what strangers may still write.
    fn wait(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Pausing;
        self.read(out);
    }

    fn hold(&mut self, out: &mut Vec<Action>) {
        if self.strategy == Strategy::Development {
            self.goal = Goal::Shutdown;
            return self.clear(out);
        }
        self.phase = Phase::Held;
        self.held = true;
        out.push(Action::State(State::Stopped));
        self.read(out);
    }

    fn read(&mut self, out: &mut Vec<Action>) {
        if self.relay_held {
            self.relay_held = false;
            out.push(Action::Read);
        }
    }

    fn restart_asked(&mut self, out: &mut Vec<Action>) {
        // Whatever comes between, this pump or the next one spawns it.
        self.held = false;
        match self.phase {
            Phase::Running if self.goal == Goal::Policy => {
                self.goal = Goal::Restart;
                self.end_process(out);
            }
            Phase::Ending | Phase::Delivering | Phase::Clearing | Phase::Yielding | Phase::StandingBy => {
                self.goal = self.goal.max(Goal::Restart);
            }
            Phase::Pausing | Phase::Held if !self.terminated => {
                self.unstable = 0;
                out.push(Action::Disarm(Timer::Backoff));
                out.push(Action::State(State::Starting));
                self.spawn(out);
            }
            Phase::Preparing if self.kept => self.goal = self.goal.max(Goal::Restart),
            Phase::Pausing
            | Phase::Held
            | Phase::Running
            | Phase::Preparing
            | Phase::Holding
            | Phase::Spawning
            | Phase::Finishing
            | Phase::Over => {}
        }
    }

    fn yield_asked(&mut self, out: &mut Vec<Action>) {
        if !self.policy.keeps() || !self.group_started || self.goal >= Goal::HandOver {
            return;
        }
        self.yields = true;
        if self.phase == Phase::Delivering {
            // The relay may hang, and then there is no other way to get rid of it.
            out.push(Action::Arm(Timer::Deliver, DELIVER_TIMEOUT));
        }
    }

    /// Makes way for another pump if that is wanted and there is nothing that this one had better finish.
    fn yield_at_rest(&mut self, out: &mut Vec<Action>) {
        let is_at_rest = match self.phase {
            Phase::Running => !self.unready,
            Phase::Pausing | Phase::Held => true,
            Phase::Preparing
            | Phase::Holding
            | Phase::Spawning
            | Phase::Ending
            | Phase::Delivering
            | Phase::Clearing
            | Phase::Finishing
            | Phase::Yielding
            | Phase::StandingBy
            | Phase::Over => false,
        };
        if !self.yields || !is_at_rest || self.goal != Goal::Policy || self.terminated {
            return;
        }
        self.leaves_process = self.phase == Phase::Running;
        self.phase = Phase::Yielding;
        out.push(Action::Disarm(Timer::Backoff));
        out.push(Action::Finish);
        out.push(Action::Arm(Timer::Finish, FINISH_TIMEOUT));
    }

    /// Nobody is there any more to whom this pump could yield.
    fn end_alone(&mut self, out: &mut Vec<Action>) {
        self.relay_gone = true;
        out.push(Action::Disarm(Timer::Finish));
        if self.leaves_process { self.end_process(out) } else { self.clear(out) }
    }

    fn end_process(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Ending;
        self.stop_armed = true;
        out.push(Action::State(State::Stopping));
        out.push(Action::Signal);
        out.push(Action::Arm(Timer::Stop, self.policy.stop_timeout));
    }

    /// Leaves the circle for good, ending the process on the way.
    fn pursue(&mut self, goal: Goal, out: &mut Vec<Action>) {
        if goal <= self.goal {
            return;
        }
        self.goal = goal;
        if goal == Goal::Shutdown && self.strategy == Strategy::Daemon {
            out.push(Action::AnnounceEnd);
        }
        if goal == Goal::GiveUp && self.strategy == Strategy::Daemon {
            out.push(Action::AnnounceFailure);
        }
        match self.phase {
            Phase::Running => self.end_process(out),
            Phase::Ending | Phase::Spawning => {}
            Phase::Delivering if self.relay_gone => self.clear(out),
            Phase::Delivering => {
                out.push(Action::State(State::Stopping));
                out.push(Action::Arm(Timer::Deliver, DELIVER_TIMEOUT));
            }
            Phase::Preparing if self.kept => {
                // What it has written is still delivered if the monitors get ready soon.
                out.push(Action::State(State::Stopping));
                out.push(Action::Arm(Timer::Setup, DELIVER_TIMEOUT));
            }
            Phase::Preparing => {
                // A monitor that is not ready cannot end in order, and waiting for it may take long.
                self.relay_gone = true;
                out.push(Action::State(State::Stopping));
                out.push(Action::Disarm(Timer::Setup));
                self.clear(out);
            }
            Phase::Holding | Phase::Pausing | Phase::Held | Phase::Clearing => {
                out.push(Action::State(State::Stopping));
                out.push(Action::Disarm(Timer::Backoff));
                self.clear(out);
            }
            Phase::Yielding | Phase::StandingBy if self.daemon_gone => self.end_alone(out),
            // The next pump ends the group.
            Phase::Yielding | Phase::StandingBy => {}
            Phase::Finishing | Phase::Over => {}
        }
    }

    fn daemon_died(&mut self, out: &mut Vec<Action>) {
        self.daemon_gone = true;
        if self.policy.keeps() && self.group_started && self.goal < Goal::HandOver {
            return out.push(Action::BecomeDaemon);
        }
        if matches!(self.phase, Phase::Yielding | Phase::StandingBy) {
            return self.end_alone(out);
        }
        // Before the group is there, a start fails with its daemon: a new one would know no parent.
        self.pursue(if self.group_started { Goal::HandOver } else { Goal::Fail }, out);
    }

    /// The next pump can end the group as well, and deliver what this one cannot any more.
    fn has_heir(&self) -> bool {
        let unfinished =
            self.kept || matches!(self.phase, Phase::Running | Phase::Ending | Phase::Delivering);
        self.policy.keeps()
            && self.group_started
            && self.goal == Goal::Shutdown
            && !self.daemon_gone
            && unfinished
    }

    fn hook_failed(&mut self, out: &mut Vec<Action>) {
        if self.phase == Phase::StandingBy {
            // A thread that has outlived its monitor: the group is another pump's.
            return;
        }
        self.relay_gone = true;
        if self.phase == Phase::Yielding {
            // What hangs must be gone before another pump begins.
            self.go(Outcome::Yielded, out);
        } else if self.has_heir() {
            self.go(Outcome::Crashed, out);
        } else if self.goal >= Goal::HandOver || self.phase == Phase::Finishing {
            // The group is ending, or the daemon is gone: go on without the monitors.
            match self.phase {
                Phase::Delivering => self.clear(out),
                Phase::Finishing => self.leave(out),
                Phase::Preparing => self.end_unprepared(out),
                Phase::Holding
                | Phase::Spawning
                | Phase::Running
                | Phase::Ending
                | Phase::Clearing
                | Phase::Pausing
                | Phase::Held
                | Phase::Yielding
                | Phase::StandingBy
                | Phase::Over => {}
            }
        } else if self.phase == Phase::Preparing && !self.executed {
            self.go(Outcome::StartFailed, out);
        } else if self.strategy == Strategy::Daemon {
            self.go(Outcome::Crashed, out);
        } else {
            self.pursue(Goal::Fail, out);
        }
    }

    /// The group is ending and its monitors cannot be waited for: what is pending stays undelivered.
    fn end_unprepared(&mut self, out: &mut Vec<Action>) {
        self.relay_gone = true;
        out.push(Action::Disarm(Timer::Setup));
        if std::mem::replace(&mut self.kept, false) { self.end_process(out) } else { self.clear(out) }
    }

    fn finish(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Finishing;
        if self.relay_gone || (self.goal == Goal::HandOver && self.relay_held) {
            return self.leave(out);
        }
        // To the monitors the daemon's death is one of the pump: they do not end in order, they are replaced.
        out.push(if self.goal == Goal::HandOver { Action::Hold } else { Action::Finish });
        out.push(Action::Arm(Timer::Finish, FINISH_TIMEOUT));
    }

    fn finished(&mut self, out: &mut Vec<Action>) {
        if self.phase == Phase::Finishing {
            self.leave(out);
        } else if self.phase == Phase::Yielding {
            self.phase = Phase::StandingBy;
            out.push(Action::Disarm(Timer::Finish));
            out.push(Action::ReportYielded);
        }
    }

    fn leave(&mut self, out: &mut Vec<Action>) {
        match self.goal {
            Goal::HandOver => {
                out.push(Action::StartDaemon);
                self.go(Outcome::HandedOver, out);
            }
            Goal::Fail if self.group_started => self.go(Outcome::Failed, out),
            Goal::GiveUp if self.group_started => self.go(Outcome::GaveUp, out),
            Goal::Shutdown if self.group_started => self.go(Outcome::Ended, out),
            Goal::Policy | Goal::Restart | Goal::Fail | Goal::GiveUp | Goal::Shutdown => {
                self.go(Outcome::StartFailed, out)
            }
        }
    }

    fn go(&mut self, outcome: Outcome, out: &mut Vec<Action>) {
        self.phase = Phase::Over;
        out.push(Action::Leave(outcome));
    }

    fn terminated(&mut self, out: &mut Vec<Action>) {
        if self.strategy != Strategy::Daemon {
            return self.pursue(Goal::Fail, out);
        }
        if self.daemon_terminated {
            return self.pursue(Goal::Shutdown, out);
        }
        if self.goal < Goal::HandOver && !self.terminated {
            self.terminated = true;
            out.push(Action::AnnounceTerm);
            out.push(Action::Arm(Timer::Term, TERM_GRACE));
        }
    }

    fn daemon_terminated(&mut self, out: &mut Vec<Action>) {
        self.daemon_terminated = true;
        if self.terminated {
            out.push(Action::Disarm(Timer::Term));
            self.pursue(Goal::Shutdown, out);
        }
    }

    fn killed(&mut self, out: &mut Vec<Action>) {
        if self.strategy != Strategy::Daemon {
            self.pursue(Goal::Fail, out);
        } else if self.goal < Goal::HandOver {
            self.go(Outcome::Killed, out);
        }
    }

    fn elapsed(&mut self, timer: Timer, out: &mut Vec<Action>) {
        match timer {
            Timer::Setup if self.phase == Phase::Preparing && self.goal >= Goal::HandOver => {
                self.end_unprepared(out);
            }
            Timer::Setup if self.phase == Phase::Preparing => self.hook_failed(out),
            Timer::Stop if self.phase == Phase::Delivering && self.stop_armed => {
                // What then is left is asked politely again.
                self.stop_armed = false;
                out.push(Action::Kill);
            }
            Timer::Ready if self.phase == Phase::Running && self.unready => self.not_ready(out),
            Timer::Stop if self.stop_armed => {
                out.push(Action::Kill);
                out.push(Action::Arm(Timer::Stop, KILL_AGAIN));
            }
            Timer::Backoff if self.phase == Phase::Pausing && !self.terminated => {
                out.push(Action::State(State::Starting));
                self.spawn(out);
            }
            Timer::Deliver if self.phase == Phase::Delivering => {
                self.relay_gone = true;
                // The next pump tells of the end once more.
                if self.yields && self.goal < Goal::HandOver {
                    return self.go(Outcome::Yielded, out);
                }
                self.clear(out);
            }
            Timer::Finish if self.phase == Phase::Yielding => self.go(Outcome::Yielded, out),
            Timer::Finish => self.finished(out),
            Timer::Term => self.killed(out),
            Timer::Setup | Timer::Ready | Timer::Stop | Timer::Backoff | Timer::Deliver => {}
        }
    }
}

#[cfg(test)]
mod tests;
