//! What is around a daemon's machine: its pump, the pump before, what they leave, timers.

use crate::daemon::life::{Action, Event, Life, Outcome, Timer};
use crate::launch::{OnCrash, Policy};
use crate::state::State;
use std::collections::VecDeque;
use std::time::Duration;

/// What the machine promises; one test each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Promise {
    OnePump,
    SpawnAfterSweep,
    NoSpawnBeforeTheStart,
    NoSpawnAfterShutdown,
    SignalsTheLiving,
    NothingAfterLeave,
    NothingLeftAtTheEnd,
    KilledWithAnHeir,
    OutcomeFits,
    KeptUntilAsked,
    SomeMayFinish,
    FewMayFinish,
    ReloadIsTriedOnce,
    ReloadIsSettled,
}

/// What happens in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Occurrence {
    PredecessorEnds,
    PumpStarts,
    PumpEndsGroup,
    PumpGivesUp,
    PumpGetsTerm,
    /// `unfinished`: it leaves a process, or something that it had written.
    PumpDies {
        stable: bool,
        unfinished: bool,
    },
    PumpFloods,
    /// The monitors of the pump are ready.
    PumpIsReady,
    /// The pump makes way for another one, and stays until that is there.
    PumpYields,
    Reload,
    AllSwept,
    Elapses(Timer),
    Restart,
    Shutdown,
    Term,
    Interrupt,
}

/// How what the machine asks for turns out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Luck {
    /// A pump can be started.
    pub(super) starts: bool,
    /// What is to be swept is gone already.
    pub(super) gone: bool,
}

/// How a daemon's life begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Beginning {
    /// The process ran before.
    pub(super) group_started: bool,
    /// A pump executed this daemon, and has not ended yet.
    pub(super) succeeding: bool,
    /// The group gives up after two respawns of the pump in a row.
    pub(super) gives_up: bool,
    /// The process outlives its pump and its daemon.
    pub(super) keeps: bool,
    /// The monitors may be replaced.
    pub(super) reloads: bool,
}

impl Beginning {
    /// All that differ in more than a detail.
    pub(super) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for (gives_up, reloads) in [(false, false), (true, false), (false, true)] {
            // A pump that has become the daemon is succeeded by nobody.
            for (group_started, succeeding, keeps) in
                [(false, false, false), (true, true, false), (false, false, true), (true, false, true)]
            {
                all.push(Self { group_started, succeeding, gives_up, keeps, reloads });
            }
            // It could not become the daemon.
            all.push(Self { group_started: true, succeeding: true, gives_up, keeps: true, reloads });
        }
        all
    }

    /// The machine.
    pub(super) fn machine(self) -> (Life, Vec<Action>) {
        let max_restarts = self.gives_up.then_some(2);
        let on_crash = if self.keeps { OnCrash::Keep } else { OnCrash::Respawn };
        let policy = Policy { max_restarts, on_crash, ..Policy::default() };
        Life::new(policy, self.group_started, self.succeeding)
    }
}

/// How far a reload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reload {
    None,
    /// It was accepted.
    Accepted,
    /// The new set-up is tried: there is a pump with it, or there was.
    Tried,
}

/// The world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    keeps: bool,
    reloads: bool,
    pub(super) reload: Reload,
    /// The pump was asked to make way.
    yielding: bool,
    predecessor: bool,
    pump: bool,
    /// Process and descendants of a pump may live.
    rest: bool,
    sweeping: bool,
    timers: [bool; Timer::ALL.len()],
    /// The pump was asked to end, or killed.
    pub(super) asked: bool,
    /// SIGKILLs since the last pump; two are as good as many.
    pub(super) kills: u8,
    // What the machine knows.
    pump_known: bool,
    sweeping_known: bool,
    pub(super) group_started: bool,
    pub(super) shutdown: bool,
    /// The pump has given up.
    failed: bool,
    /// The group gives up after two respawns of the pump in a row.
    gives_up: bool,
    pub(super) terminated: bool,
    pump_terminated: bool,
    spawned: bool,
    /// Pumps spawned since the end was asked for.
    finishers: u8,
    pausing: bool,
    /// The last pump has left something to be finished.
    unfinished: bool,
    pub(super) left: Option<Outcome>,
}

impl World {
    /// The machine and the world at the beginning.
    pub(super) fn begin(beginning: Beginning) -> (Life, Self) {
        let Beginning { group_started, succeeding, gives_up, keeps, reloads } = beginning;
        let (machine, actions) = beginning.machine();
        let mut world = Self {
            keeps,
            reloads,
            reload: Reload::None,
            yielding: false,
            predecessor: succeeding,
            pump: false,
            rest: false,
            sweeping: false,
            timers: [false; Timer::ALL.len()],
            asked: false,
            kills: 0,
            pump_known: false,
            sweeping_known: false,
            group_started,
            shutdown: false,
            failed: false,
            gives_up,
            terminated: false,
            pump_terminated: false,
            spawned: false,
            finishers: 0,
            pausing: false,
            unfinished: false,
            left: None,
        };
        for action in actions {
            world.act(action, Luck { starts: true, gone: false }, &mut VecDeque::new(), &mut Vec::new());
        }
        (machine, world)
    }

    /// All that can happen now.
    pub(super) fn possible(&self) -> Vec<Occurrence> {
        let mut all =
            vec![Occurrence::Restart, Occurrence::Shutdown, Occurrence::Term, Occurrence::Interrupt];
        if self.predecessor {
            all.push(Occurrence::PredecessorEnds);
        }
        if self.pump {
            all.extend([Occurrence::PumpStarts, Occurrence::PumpEndsGroup, Occurrence::PumpGivesUp]);
            for stable in [true, false] {
                all.push(Occurrence::PumpDies { stable, unfinished: false });
                all.extend(self.keeps.then_some(Occurrence::PumpDies { stable, unfinished: true }));
            }
            all.extend([Occurrence::PumpGetsTerm, Occurrence::PumpFloods]);
            all.extend(self.reloads.then_some(Occurrence::PumpIsReady));
            all.extend(self.yielding.then_some(Occurrence::PumpYields));
        }
        if self.sweeping {
            all.push(Occurrence::AllSwept);
        }
        all.extend(self.reloads.then_some(Occurrence::Reload));
        all.extend(Timer::ALL.into_iter().filter(|timer| self.is_armed(*timer)).map(Occurrence::Elapses));
        all
    }

    /// A pump that executed this daemon has not ended.
    fn predecessor_known(&self) -> bool {
        !self.spawned
    }

    /// A pump lives.
    pub(super) fn has_pump(&self) -> bool {
        self.pump
    }

    pub(super) fn is_armed(&self, timer: Timer) -> bool {
        self.timers[timer as usize]
    }

    /// Lets something happen, and says of what the machine hears.
    pub(super) fn occur(&mut self, occurrence: Occurrence) -> Event {
        match occurrence {
            Occurrence::PredecessorEnds => {
                self.predecessor = false;
                Event::PredecessorGone
            }
            Occurrence::PumpStarts => Event::Started,
            Occurrence::PumpEndsGroup => Event::PumpEnds,
            Occurrence::PumpGivesUp => Event::PumpGivesUp,
            Occurrence::PumpGetsTerm => Event::PumpTerminated,
            Occurrence::PumpDies { stable, unfinished } => {
                (self.pump, self.yielding) = (false, false);
                let ran = Duration::from_secs(if stable { 60 } else { 0 });
                Event::PumpDied { ran, jitter: 100, unfinished }
            }
            Occurrence::PumpFloods => Event::Flooded,
            Occurrence::PumpIsReady => Event::PumpReady,
            Occurrence::PumpYields => {
                (self.pump, self.yielding) = (false, false);
                Event::PumpYielded { unfinished: true }
            }
            Occurrence::Reload => Event::ReloadAsked,
            Occurrence::AllSwept => {
                self.sweeping = false;
                self.rest = false;
                Event::Swept
            }
            Occurrence::Elapses(timer) => {
                self.timers[timer as usize] = false;
                Event::Elapsed(timer)
            }
            Occurrence::Restart => Event::RestartAsked,
            Occurrence::Shutdown => Event::ShutdownAsked,
            Occurrence::Term => Event::Terminated,
            Occurrence::Interrupt => Event::Interrupted,
        }
    }

    /// Gives the machine what happened, and carries out what it wants, as the daemon does.
    pub(super) fn run(&mut self, machine: &mut Life, batch: &[Occurrence], luck: Luck) -> Vec<Promise> {
        let mut broken = Vec::new();
        let mut queue: VecDeque<Event> = batch.iter().map(|occurrence| self.occur(*occurrence)).collect();
        while let Some(event) = queue.pop_front() {
            self.hear(event);
            for action in machine.step(event) {
                if self.left.is_some() {
                    broken.push(Promise::NothingAfterLeave);
                }
                self.act(action, luck, &mut queue, &mut broken);
            }
            if self.left.is_some() {
                if !machine.step(event).is_empty() {
                    broken.push(Promise::NothingAfterLeave);
                }
                break;
            }
        }
        broken
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Started => self.group_started = true,
            Event::PumpEnds | Event::ShutdownAsked => self.shutdown = true,
            Event::PumpGivesUp => {
                self.shutdown = true;
                self.failed = true;
            }
            Event::PumpTerminated => self.pump_terminated = true,
            Event::Terminated => self.terminated = true,
            Event::PumpDied { unfinished, .. } | Event::PumpYielded { unfinished } => {
                (self.pump_known, self.unfinished) = (false, unfinished);
            }
            Event::PumpNotStarted { .. } => (self.pump_known, self.unfinished) = (false, false),
            Event::Swept => self.sweeping_known = false,
            Event::PredecessorGone
            | Event::Flooded
            | Event::RestartAsked
            | Event::ReloadAsked
            | Event::PumpReady
            | Event::Interrupted
            | Event::Elapsed(_) => {}
        }
        // Both got SIGTERM, or this one did and there is no other: that is asking for the end of the group.
        let dies = matches!(event, Event::Terminated | Event::Interrupted | Event::Elapsed(Timer::Term));
        // A pump is started to pass the group on to, unless it may be a shutdown of the system.
        let passes_on = self.pausing && event == Event::Interrupted;
        let told = dies && !self.pump_known && !passes_on;
        self.shutdown |= told || (self.terminated && self.pump_terminated);
    }

    fn act(&mut self, action: Action, luck: Luck, queue: &mut VecDeque<Event>, broken: &mut Vec<Promise>) {
        let mut require = |fact: bool, promise: Promise| {
            if !fact {
                broken.push(promise);
            }
        };
        match action {
            Action::SpawnPump => {
                self.pausing = false;
                require(!self.pump && !self.predecessor, Promise::OnePump);
                require(!self.rest || self.keeps && self.group_started, Promise::SpawnAfterSweep);
                require(!self.sweeping, Promise::SpawnAfterSweep);
                require(self.group_started || !self.spawned, Promise::NoSpawnBeforeTheStart);
                let finishes = self.keeps && self.group_started && !self.failed;
                require(!self.shutdown || finishes, Promise::NoSpawnAfterShutdown);
                if self.shutdown {
                    // One that is to begin with it, and three that go on.
                    require(self.finishers < 4, Promise::FewMayFinish);
                    self.finishers += 1;
                }
                self.spawned = true;
                self.pump_terminated = false;
                // It finds what is wanted on the page.
                self.asked = self.shutdown;
                self.kills = 0;
                self.pump_known = true;
                self.pump = luck.starts;
                self.rest |= luck.starts;
                if !luck.starts {
                    queue.push_back(Event::PumpNotStarted { jitter: 100 });
                }
            }
            Action::KillPump | Action::StopPump => {
                require(self.pump_known, Promise::SignalsTheLiving);
                self.asked = true;
            }
            Action::AnnounceTerm => {}
            Action::AcceptReload => {
                let may = self.keeps && self.group_started && !self.shutdown && self.reload == Reload::None;
                require(may, Promise::ReloadIsTriedOnce);
                self.reload = Reload::Accepted;
            }
            Action::RefuseReload => {
                let why = !self.keeps || !self.group_started || self.shutdown || self.predecessor_known();
                require(why || self.reload != Reload::None, Promise::ReloadIsTriedOnce);
            }
            Action::YieldPump => {
                require(self.pump_known, Promise::SignalsTheLiving);
                self.yielding = self.pump;
            }
            Action::Replace => {
                require(self.reload == Reload::Accepted && !self.pump_known, Promise::ReloadIsTriedOnce);
                self.reload = Reload::Tried;
            }
            Action::Settle => {
                require(self.reload == Reload::Tried && self.pump_known, Promise::ReloadIsTriedOnce);
                self.reload = Reload::None;
            }
            Action::Restore => {
                require(self.reload == Reload::Tried && !self.pump_known, Promise::ReloadIsTriedOnce);
                self.reload = Reload::None;
            }
            Action::AbandonReload => {
                require(self.reload == Reload::Accepted && self.shutdown, Promise::ReloadIsTriedOnce);
                self.reload = Reload::None;
            }
            Action::Sweep => {
                let wanted = self.shutdown || self.failed || self.gives_up || !self.group_started;
                require(!self.keeps || wanted, Promise::KeptUntilAsked);
                let others = self.finishers < 3 && !self.failed && !self.gives_up;
                require(!(self.unfinished && others && self.group_started), Promise::SomeMayFinish);
                (self.sweeping_known, self.pausing) = (true, false);
                self.sweeping = !luck.gone;
                if luck.gone {
                    self.rest = false;
                    queue.push_back(Event::Swept);
                }
            }
            Action::Kill => {
                require(self.sweeping_known, Promise::SignalsTheLiving);
                self.kills = (self.kills + 1).min(2);
            }
            Action::Arm(timer, _) => self.timers[timer as usize] = true,
            Action::Disarm(timer) => self.timers[timer as usize] = false,
            Action::State(state) => self.pausing |= state == State::Backoff,
            Action::Leave(outcome) => {
                self.left = Some(outcome);
                // A daemon that dies leaves it to the next one.
                require(outcome == Outcome::Killed || self.reload == Reload::None, Promise::ReloadIsSettled);
                let nothing = !self.pump && !self.rest && !self.predecessor;
                require(outcome == Outcome::Killed || nothing, Promise::NothingLeftAtTheEnd);
                let heir = self.pump_known && !self.shutdown;
                require(outcome != Outcome::Killed || heir, Promise::KilledWithAnHeir);
                require((outcome == Outcome::StartFailed) <= !self.group_started, Promise::OutcomeFits);
                let asked = self.group_started && self.shutdown;
                require((outcome == Outcome::Ended) <= (asked && !self.failed), Promise::OutcomeFits);
                let gave_up = self.group_started && (self.failed || self.gives_up);
                require((outcome == Outcome::GaveUp) <= gave_up, Promise::OutcomeFits);
            }
        }
    }
}
