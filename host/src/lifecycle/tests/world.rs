//! What is around a pump's machine: process, relay, daemon, timers. It is changed by the machine's actions, it
//! knows what can happen next, and it notices when a promise is broken.

use super::given::{Beginning, Luck, Occurrence, Promise, Rules, Went};
use crate::launch::{Restart, Strategy};
use crate::lifecycle::{Action, Event, Lifecycle, Outcome, Phase, Timer};
use crate::state::State;
use std::collections::VecDeque;
use std::time::Duration;

/// The process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Process {
    None,
    Alive,
    /// Not reaped.
    Dead,
}

/// What waits for the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Job {
    Hold,
    Read,
    Spawned,
    Exited,
    Finish,
}

/// The world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) rules: Rules,
    pub(super) process: Process,
    /// An earlier pump started it.
    pub(super) kept: bool,
    /// It is dead, and the pump has not looked yet.
    unseen: bool,
    /// The pump looks whether the process is dead.
    looking: bool,
    /// Others of the process group may live.
    members: bool,
    /// Descendants that left the group may live.
    strangers: bool,
    preparing: bool,
    reading: bool,
    /// The relay has ended.
    relay_over: bool,
    jobs: Vec<Job>,
    timers: [bool; Timer::ALL.len()],
    /// What is being cleared: everyone?
    clearing: Option<bool>,
    said_ready: bool,
    /// The process was asked to end, or everyone is.
    pub(super) asked: bool,
    /// SIGKILLs since the last spawn; two are as good as many.
    pub(super) kills: u8,
    daemon_dead: bool,
    // What the machine knows.
    /// Something is being cleared, as far as the machine knows.
    clearing_known: bool,
    executed: bool,
    /// The start has succeeded.
    pub(super) group_started: bool,
    start_reported: bool,
    exec_failed: bool,
    spawn_told: bool,
    exit_told: bool,
    delivered: bool,
    /// The end of this process has no `exit`.
    silent: bool,
    relay_lost: bool,
    end_announced: bool,
    pub(super) shutdown: bool,
    pub(super) daemon_death: bool,
    pub(super) terminated: bool,
    pub(super) daemon_terminated: bool,
    /// The process ended for good, and nobody has asked for it since.
    held: bool,
    /// A restart was asked for, and the next process is not there yet.
    pub(super) restart: bool,
    /// The process was not ready in time.
    late: bool,
    /// This pump could not become the daemon.
    not_replaced: bool,
    /// Another pump is wanted.
    pub(super) yields: bool,
    /// It may begin, and is not there yet.
    pub(super) stands_by: bool,
    /// The relay took too long for the end of the process.
    pub(super) hung: bool,
    pub(super) left: Option<Outcome>,
    /// This pump has become the daemon.
    pub(super) became: bool,
}

impl World {
    /// The machine and the world at the beginning.
    pub(super) fn begin(beginning: Beginning) -> (Lifecycle, Self) {
        let Beginning { rules, group_started, held, process, stop_wanted, restart_wanted } = beginning;
        let (machine, actions) = beginning.machine();
        let kept = process != Process::None;
        let mut world = Self {
            rules,
            process,
            kept,
            unseen: process == Process::Dead,
            looking: false,
            members: kept,
            strangers: kept,
            preparing: true,
            reading: false,
            relay_over: false,
            jobs: Vec::new(),
            timers: [false; Timer::ALL.len()],
            clearing: None,
            said_ready: false,
            asked: false,
            kills: 0,
            daemon_dead: rules.strategy != Strategy::Daemon,
            clearing_known: false,
            executed: group_started,
            group_started,
            start_reported: false,
            exec_failed: false,
            // The relay tells it of a kept process, to those who do not know, before it is ready.
            spawn_told: kept,
            exit_told: false,
            delivered: false,
            silent: false,
            relay_lost: false,
            end_announced: false,
            shutdown: stop_wanted,
            daemon_death: false,
            terminated: false,
            daemon_terminated: false,
            held,
            restart: kept && restart_wanted,
            late: false,
            not_replaced: false,
            yields: false,
            stands_by: false,
            hung: false,
            left: None,
            became: false,
        };
        for action in actions {
            world.act(action, Luck::PLAIN, &mut VecDeque::new(), &mut Went::default());
        }
        (machine, world)
    }

    fn daemon(&self) -> bool {
        self.rules.strategy == Strategy::Daemon
    }

    pub(super) fn is_armed(&self, timer: Timer) -> bool {
        self.timers[timer as usize]
    }

    /// All that can happen now.
    pub(super) fn possible(&self) -> Vec<Occurrence> {
        let mut all = Vec::new();
        let relay_lives = !self.relay_over;
        if relay_lives && self.preparing {
            all.push(Occurrence::MonitorsReady);
        }
        if relay_lives {
            all.push(Occurrence::HookFails);
        }
        if self.relay_owes() {
            all.push(Occurrence::RelayAnswers);
        }
        if self.process == Process::Alive && self.rules.says_ready && !self.said_ready {
            all.push(Occurrence::SaysReady);
        }
        if self.process == Process::Alive {
            let success = self.rules.restart == Restart::OnFailure;
            all.push(Occurrence::ProcessDies { stable: true, success });
            all.push(Occurrence::ProcessDies { stable: false, success: false });
        }
        if self.unseen && self.looking {
            all.push(Occurrence::EndIsSeen);
        }
        if self.clearing.is_some() && self.process != Process::Alive {
            all.push(Occurrence::AllCleared);
        }
        all.extend(Timer::ALL.into_iter().filter(|timer| self.is_armed(*timer)).map(Occurrence::Elapses));
        all.extend([Occurrence::Restart, Occurrence::Shutdown, Occurrence::Term]);
        if self.daemon() {
            all.push(Occurrence::Interrupt);
        }
        if !self.daemon_dead {
            all.extend([Occurrence::DaemonDies, Occurrence::DaemonGetsTerm]);
            all.extend(self.stands_by.then_some(Occurrence::Dismiss));
            all.extend(
                (self.rules.reloads && self.group_started && !self.yields).then_some(Occurrence::Yield),
            );
        }
        all
    }

    /// The relay has something to answer.
    pub(super) fn relay_owes(&self) -> bool {
        let answers = |job: &Job| matches!(job, Job::Hold | Job::Exited | Job::Finish);
        !self.relay_over && !self.preparing && self.jobs.iter().any(answers)
    }

    /// It was told that this process is there.
    pub(super) fn is_reported(&self) -> bool {
        self.start_reported
    }

    /// The daemon lives.
    pub(super) fn has_daemon(&self) -> bool {
        !self.daemon_dead
    }

    /// This pump is no more.
    pub(super) fn is_over(&self) -> bool {
        self.left.is_some() || self.became
    }

    /// Lets something happen, and says of what the machine hears.
    pub(super) fn occur(&mut self, occurrence: Occurrence) -> Option<Event> {
        Some(match occurrence {
            Occurrence::MonitorsReady => {
                self.preparing = false;
                Event::MonitorsReady
            }
            Occurrence::SaysReady => {
                self.said_ready = true;
                Event::Ready
            }
            Occurrence::HookFails => {
                self.relay_over = true;
                self.reading = false;
                self.jobs.clear();
                Event::HookFailed
            }
            Occurrence::RelayAnswers => self.relay_answers(),
            Occurrence::ProcessDies { stable, success } => {
                self.process = Process::Dead;
                if !self.looking {
                    self.unseen = true;
                    return None;
                }
                let ran = Duration::from_secs(if stable { 60 } else { 0 });
                Event::ProcessDied { ran, success, jitter: 100 }
            }
            Occurrence::EndIsSeen => {
                self.unseen = false;
                Event::ProcessDied { ran: Duration::ZERO, success: false, jitter: 100 }
            }
            Occurrence::AllCleared => self.all_cleared(),
            Occurrence::Elapses(timer) => {
                self.timers[timer as usize] = false;
                // The pump says it as its relay would; the relay may hang, or be just late.
                if timer == Timer::Setup { Event::HookFailed } else { Event::Elapsed(timer) }
            }
            Occurrence::Restart => Event::RestartAsked,
            Occurrence::Shutdown => Event::ShutdownAsked,
            Occurrence::DaemonDies => {
                self.daemon_dead = true;
                Event::DaemonDied
            }
            Occurrence::Yield => Event::YieldAsked,
            Occurrence::Dismiss => Event::Dismissed,
            Occurrence::Term => Event::Terminated,
            Occurrence::Interrupt => Event::Interrupted,
            Occurrence::DaemonGetsTerm => Event::DaemonTerminated,
        })
    }

    fn relay_answers(&mut self) -> Event {
        loop {
            match self.jobs.remove(0) {
                Job::Read | Job::Spawned => self.reading = true,
                Job::Hold => {
                    self.reading = false;
                    return Event::RelayHeld;
                }
                Job::Exited => {
                    self.reading = false;
                    return Event::Delivered;
                }
                Job::Finish => {
                    self.reading = false;
                    self.relay_over = true;
                    return Event::Finished;
                }
            }
        }
    }

    fn all_cleared(&mut self) -> Event {
        let everyone = self.clearing.take().unwrap_or(false);
        self.members = false;
        self.strangers &= !everyone;
        Event::Cleared { everyone }
    }

    /// Gives the machine what happened, one after the other, and carries out what it wants, as the pump's main
    /// thread does.
    pub(super) fn run(&mut self, machine: &mut Lifecycle, batch: &[Occurrence], luck: Luck) -> Went {
        let mut went = Went::default();
        let mut queue: VecDeque<Event> =
            batch.iter().filter_map(|occurrence| self.occur(*occurrence)).collect();
        while let Some(event) = queue.pop_front() {
            self.hear(event);
            let actions = machine.step(event);
            let mut before = None;
            for action in actions {
                if self.is_over() {
                    went.broken.push(Promise::NothingAfterLeave);
                }
                let handed_over = action == Action::Leave(Outcome::HandedOver);
                if handed_over != (before == Some(Action::StartDaemon)) {
                    went.broken.push(Promise::HandedOverAfterStartDaemon);
                }
                self.act(action, luck, &mut queue, &mut went);
                before = Some(action);
            }
            self.looking = !matches!(machine.phase(), Phase::Preparing | Phase::Yielding | Phase::StandingBy);
            self.agrees_on_what_is_wanted(machine, &mut went);
            if self.became {
                break;
            }
            if self.left.is_some() {
                if machine.phase() != Phase::Over || !machine.step(event).is_empty() {
                    went.broken.push(Promise::NothingAfterLeave);
                }
                break;
            }
        }
        went
    }

    /// What the machine knows from this event on.
    fn hear(&mut self, event: Event) {
        match event {
            Event::ShutdownAsked => self.shutdown = true,
            Event::DaemonDied => self.daemon_death = true,
            Event::NotReplaced => self.not_replaced = true,
            Event::YieldAsked => self.yields = true,
            Event::RestartAsked => {
                self.held = false;
                self.restart = true;
            }
            Event::Elapsed(Timer::Ready) => self.late = true,
            Event::Delivered => self.delivered = true,
            Event::HookFailed => self.relay_lost = true,
            Event::Elapsed(Timer::Deliver) => (self.relay_lost, self.hung) = (true, true),
            Event::SpawnFailed => self.exec_failed = self.executed,
            Event::ProcessDied { .. } => {
                let goes_with_daemon = if self.rules.keeps { self.not_replaced } else { self.daemon_death };
                self.silent = goes_with_daemon && !self.shutdown && self.group_started;
            }
            Event::Terminated => self.terminated = true,
            Event::DaemonTerminated => self.daemon_terminated = true,
            Event::MonitorsReady
            | Event::RelayHeld
            | Event::Spawned
            | Event::Ready
            | Event::Cleared { .. }
            | Event::Elapsed(_)
            | Event::KillAsked
            | Event::Finished
            | Event::Dismissed
            | Event::Interrupted => {}
        }
        // Both got SIGTERM: that is asking for the end of the group.
        self.shutdown |= self.daemon() && self.terminated && self.daemon_terminated;
    }

    fn act(&mut self, action: Action, luck: Luck, queue: &mut VecDeque<Event>, went: &mut Went) {
        went.spawned |= action == Action::Spawn;
        went.cleared |= matches!(action, Action::Clear { .. });
        went.became |= action == Action::BecomeDaemon;
        let may_end = self.may_end_the_process();
        let mut require = |fact: bool, promise: Promise| {
            if !fact {
                went.broken.push(promise);
            }
        };
        match action {
            Action::Hold => self.give(Job::Hold),
            Action::Read => self.give(Job::Read),
            Action::Spawn => {
                require(self.process == Process::None && !self.members, Promise::OneProcess);
                let reads =
                    self.reading || self.jobs.iter().any(|job| matches!(job, Job::Read | Job::Spawned));
                require(!reads, Promise::SpawnWhileRelayHeld);
                require(!self.shutdown, Promise::NoSpawnAfterShutdown);
                require(!self.terminated, Promise::NoSpawnAfterTerm);
                require(!self.held, Promise::HeldUntilAsked);
                self.spawn(luck, queue);
            }
            Action::TellSpawned { respawn } => {
                let told_right =
                    respawn == self.executed && !self.spawn_told && self.process == Process::Alive;
                require(told_right, Promise::SpawnToldFirst);
                self.executed = true;
                self.spawn_told = true;
                self.give(Job::Spawned);
            }
            Action::ReportStarted => {
                require(self.process != Process::None && !self.start_reported, Promise::StartReportedOnce);
                // Who has asked for another process, or for none, is not to take the old one for it.
                require(!self.kept || !(self.restart || self.shutdown), Promise::StartReportedOnce);
                self.start_reported = true;
                self.group_started = true;
            }
            Action::TellExited => {
                let of_process = self.process == Process::Dead && self.spawn_told && !self.exit_told;
                require(of_process || self.exec_failed, Promise::ExitToldOnce);
                require(!self.silent, Promise::ExitToldOnce);
                self.exec_failed = false;
                self.exit_told = true;
                self.delivered = false;
                self.give(Job::Exited);
            }
            Action::Signal => {
                require(self.process != Process::None, Promise::SignalsTheLiving);
                require(may_end, Promise::KeptUntilAsked);
                self.asked = true;
            }
            Action::Kill => {
                require(self.process != Process::None || self.clearing_known, Promise::SignalsTheLiving);
                require(may_end, Promise::KeptUntilAsked);
                self.asked = true;
                self.kills = (self.kills + 1).min(2);
            }
            Action::Clear { everyone } => {
                require(self.process != Process::Alive, Promise::ClearsTheDead);
                require(may_end, Promise::KeptUntilAsked);
                self.clearing = Some(everyone);
                self.clearing_known = true;
                if luck.everyone_gone || (luck.group_gone && !everyone) {
                    queue.push_back(self.all_cleared());
                }
            }
            Action::Reap => {
                require(self.process != Process::Alive && !self.members, Promise::ReapsTheDead);
                let excused =
                    self.relay_lost && !self.has_heir() || self.silent || self.process == Process::None;
                require(excused || self.exit_told, Promise::ExitToldOnce);
                require(excused || self.delivered, Promise::ExitDeliveredBeforeReap);
                self.process = Process::None;
                self.clearing_known = false;
                self.silent = false;
            }
            Action::Arm(timer, _) => self.timers[timer as usize] = true,
            Action::Disarm(timer) => self.timers[timer as usize] = false,
            Action::State(state) => self.held |= state == State::Stopped,
            Action::AnnounceEnd | Action::AnnounceFailure => self.end_announced = true,
            Action::Finish => {
                // Once the monitors have been told to end there is no way back.
                self.relay_lost |= self.yields;
                self.give(Job::Finish);
            }
            Action::BecomeDaemon => {
                let may = self.rules.keeps && self.group_started && self.daemon_death;
                require(may && !self.shutdown && !self.not_replaced, Promise::BecomesDaemonOnce);
                if luck.becomes {
                    self.became = true;
                } else {
                    queue.push_front(Event::NotReplaced);
                }
            }
            Action::ReportYielded => {
                require(self.relay_over && self.yields, Promise::YieldsAtRest);
                self.stands_by = true;
            }
            Action::AnnounceTerm | Action::StartDaemon | Action::ReportReady => {}
            Action::Leave(outcome) => {
                self.left = Some(outcome);
                self.leave(outcome, &mut require);
            }
        }
    }

    fn give(&mut self, job: Job) {
        if !self.relay_over {
            self.jobs.push(job);
        }
    }

    fn spawn(&mut self, luck: Luck, queue: &mut VecDeque<Event>) {
        self.spawn_told = false;
        self.start_reported = false;
        self.exit_told = false;
        self.said_ready = false;
        self.asked = false;
        self.kills = 0;
        (self.kept, self.restart, self.late) = (false, false, false);
        if luck.executes {
            self.process = Process::Alive;
            self.members = true;
            self.strangers = true;
            queue.push_front(Event::Spawned);
        } else {
            queue.push_front(Event::SpawnFailed);
        }
    }

    fn leave(&self, outcome: Outcome, require: &mut impl FnMut(bool, Promise)) {
        let nothing_left = self.process == Process::None && !self.members && !self.strangers;
        require(outcome != Outcome::GaveUp || self.rules.gives_up, Promise::GivesUpIfToldTo);
        let to_daemon = matches!(outcome, Outcome::Crashed | Outcome::Killed | Outcome::Yielded);
        let half_done = match self.process {
            Process::None => false,
            Process::Alive => self.asked,
            Process::Dead => self.exit_told && !self.hung,
        };
        let may_yield = self.yields && self.rules.keeps && !half_done;
        require(outcome != Outcome::Yielded || may_yield, Promise::YieldsAtRest);
        require(to_daemon || nothing_left, Promise::NothingLeftAtTheEnd);
        require(!to_daemon || (self.daemon() && !self.daemon_death), Promise::LeavesProcessToDaemonOnly);
        let unfinished = match self.process {
            // One that could not be executed has an end as well.
            Process::None => self.exit_told && !self.delivered,
            Process::Alive => true,
            Process::Dead => !(self.exit_told && self.delivered),
        };
        let has_heir = self.rules.keeps && self.group_started && unfinished;
        let gives_up_ending = outcome == Outcome::Crashed && self.shutdown;
        require(!gives_up_ending || has_heir, Promise::LeavesSomethingToFinish);
        let replaces = self.daemon_death && !self.shutdown && outcome != Outcome::GaveUp;
        let handed_over = outcome == Outcome::HandedOver;
        if self.group_started {
            require(replaces == handed_over, Promise::DaemonIsReplaced);
        } else {
            require(!handed_over, Promise::NobodyReplacedBeforeTheStart);
        }
        let ended = matches!(outcome, Outcome::Ended | Outcome::GaveUp) && self.daemon();
        require(!ended || self.end_announced, Promise::EndIsAnnounced);
    }

    /// The machine hands on to the next pump whether the process is held.
    pub(super) fn agrees_on_held(&self, machine: &Lifecycle) -> bool {
        let replaced = matches!(
            self.left,
            Some(Outcome::Crashed | Outcome::Killed | Outcome::HandedOver | Outcome::Yielded)
        );
        if !(replaced || self.became) {
            return true;
        }
        // The end of the process is being told: what follows from it is decided, if not known to anybody.
        let asked = self.shutdown || self.restart || self.late || self.not_replaced || self.daemon_death;
        match self.rules.restart {
            Restart::Never if self.exit_told && !asked => machine.is_held(),
            Restart::Never | Restart::OnFailure if self.exit_told => machine.is_held() || !self.held,
            Restart::Always | Restart::Never | Restart::OnFailure => machine.is_held() == self.held,
        }
    }

    /// The next pump can go on where a hook of this one fails.
    pub(super) fn has_heir(&self) -> bool {
        self.rules.keeps && self.group_started && !self.daemon_death && !self.hung
    }

    /// With `keep`: somebody wants the end of the process, or it is dead.
    fn may_end_the_process(&self) -> bool {
        let dead = self.process == Process::None || self.process == Process::Dead && !self.unseen;
        let asked = self.shutdown || self.restart || self.late;
        !self.rules.keeps || !self.group_started || dead || asked || self.not_replaced
    }

    /// The machine hands on to the next pump, which may have to come at any moment, what is wanted.
    fn agrees_on_what_is_wanted(&self, machine: &Lifecycle, went: &mut Went) {
        if self
            .left
            .is_some_and(|outcome| !matches!(outcome, Outcome::Crashed | Outcome::Killed | Outcome::Yielded))
        {
            return;
        }
        if machine.is_ending() || self.not_replaced {
            return;
        }
        if self.shutdown && !machine.wants_end() {
            went.broken.push(Promise::StopIsHandedOn);
        }
        let comes = match self.process {
            Process::None => !machine.is_held(),
            Process::Alive | Process::Dead => !self.rules.keeps || machine.wants_restart(),
        };
        if self.restart && !comes {
            went.broken.push(Promise::RestartIsHandedOn);
        }
    }
}
