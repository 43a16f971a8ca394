//! Daemon, pump and process together: both machines joined by their links, with signals to either role at any
//! moment.

use crate::daemon::life::{self, Life};
use crate::launch::{Policy, Restart, Strategy};
use crate::lifecycle::{self, Inherited, Lifecycle};
use std::collections::VecDeque;
use std::time::Duration;

/// What the user does to a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blow {
    Kill,
    Term,
    Interrupt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Daemon,
    Pump,
}

#[derive(Debug)]
pub(super) struct Daemon {
    life: Life,
    queue: VecDeque<life::Event>,
    timers: Vec<life::Timer>,
    sweeping: bool,
    /// The pump that executed this daemon has not ended.
    predecessor: bool,
}

#[derive(Debug)]
pub(super) struct Pump {
    machine: Lifecycle,
    queue: VecDeque<lifecycle::Event>,
    timers: Vec<lifecycle::Timer>,
    clearing: Option<bool>,
    /// A daemon hears what this pump says.
    linked: bool,
}

/// What is going on, and what is known of it across all roles.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) daemon: Option<Daemon>,
    pub(super) pump: Option<Pump>,
    /// A process, and whether it has been asked to end.
    process: Option<bool>,
    /// A dead process that waits for its parent.
    unreaped: bool,
    ignores_signal: bool,
    // The state page.
    executed: bool,
    unstable: u32,
    held: bool,
    seed: u32,
    history: Vec<String>,
}

const SHORT: Duration = Duration::from_millis(5);

impl Group {
    pub(super) fn begin(ignores_signal: bool, seed: u32) -> Self {
        let mut group = Self {
            daemon: None,
            pump: None,
            process: None,
            unreaped: false,
            ignores_signal,
            executed: false,
            unstable: 0,
            held: false,
            seed,
            history: Vec::new(),
        };
        group.start_daemon(false);
        group
    }

    fn policy() -> Policy {
        Policy { restart: Restart::Always, ..Policy::default() }
    }

    fn start_daemon(&mut self, predecessor: bool) {
        let (life, actions) = Life::new(Self::policy(), self.executed, predecessor);
        let (queue, timers) = (VecDeque::new(), Vec::new());
        self.daemon = Some(Daemon { life, queue, timers, sweeping: false, predecessor });
        self.daemon_acts(actions);
    }

    fn start_pump(&mut self) {
        assert!(self.pump.is_none() && self.process.is_none(), "a second pump: {self:#?}");
        let (machine, actions) = Lifecycle::new(
            Self::policy(),
            Strategy::Daemon,
            Inherited {
                executed: self.executed,
                held: self.held,
                unstable: self.unstable,
                ..Inherited::default()
            },
        );
        // Its relay prepares, and the libraries are fine.
        let queue = VecDeque::from([lifecycle::Event::MonitorsReady]);
        self.pump = Some(Pump { machine, queue, timers: Vec::new(), clearing: None, linked: true });
        self.pump_acts(actions);
    }

    fn daemon_acts(&mut self, actions: Vec<life::Action>) {
        use life::Action;
        for action in actions {
            let Some(daemon) = &mut self.daemon else { return };
            match action {
                Action::SpawnPump => self.start_pump(),
                Action::KillPump => self.pump_dies(),
                Action::StopPump => self.tell_pump(lifecycle::Event::ShutdownAsked),
                Action::AnnounceTerm => self.tell_pump(lifecycle::Event::DaemonTerminated),
                Action::Sweep => {
                    daemon.sweeping = true;
                    self.ask_process();
                }
                Action::Kill => self.kill_process(),
                Action::Arm(timer, _) => {
                    daemon.timers.retain(|armed| *armed != timer);
                    daemon.timers.push(timer);
                }
                Action::Disarm(timer) => daemon.timers.retain(|armed| *armed != timer),
                Action::YieldPump => self.tell_pump(lifecycle::Event::YieldAsked),
                Action::State(_)
                | Action::AcceptReload
                | Action::RefuseReload
                | Action::Replace
                | Action::Settle
                | Action::Restore
                | Action::AbandonReload => {}
                Action::Leave(_) => self.daemon_dies(),
            }
        }
    }

    fn pump_acts(&mut self, actions: Vec<lifecycle::Action>) {
        use lifecycle::{Action, Event};
        for action in actions {
            let Some(pump) = &mut self.pump else { return };
            match action {
                Action::Hold => pump.queue.push_back(Event::RelayHeld),
                Action::Spawn => {
                    assert!(self.process.is_none() && !self.unreaped, "a second process: {self:#?}");
                    self.process = Some(false);
                    pump.queue.push_front(Event::Spawned);
                }
                Action::ReportStarted => {
                    self.executed = true;
                    self.tell_daemon(life::Event::Started);
                }
                Action::ReportReady => self.tell_daemon(life::Event::PumpReady),
                Action::ReportYielded => self.tell_daemon(life::Event::PumpYielded { unfinished: false }),
                Action::AnnounceFailure => self.tell_daemon(life::Event::PumpGivesUp),
                Action::TellExited => pump.queue.push_back(Event::Delivered),
                Action::Signal => self.ask_process(),
                Action::Kill => self.kill_process(),
                Action::Clear { everyone } => pump.clearing = Some(everyone),
                Action::Reap => self.unreaped = false,
                Action::Arm(timer, _) => {
                    pump.timers.retain(|armed| *armed != timer);
                    pump.timers.push(timer);
                }
                Action::Disarm(timer) => pump.timers.retain(|armed| *armed != timer),
                Action::AnnounceEnd => self.tell_daemon(life::Event::PumpEnds),
                Action::AnnounceTerm => self.tell_daemon(life::Event::PumpTerminated),
                Action::Finish => pump.queue.push_back(Event::Finished),
                Action::StartDaemon => self.start_daemon(true),
                Action::Leave(_) => self.pump_dies(),
                Action::TellSpawned { .. } | Action::Read | Action::State(_) | Action::BecomeDaemon => {}
            }
        }
    }

    fn tell_pump(&mut self, event: lifecycle::Event) {
        if let Some(pump) = self.pump.as_mut().filter(|pump| pump.linked) {
            pump.queue.push_back(event);
        }
    }

    fn tell_daemon(&mut self, event: life::Event) {
        if self.pump.as_ref().is_some_and(|pump| pump.linked)
            && let Some(daemon) = &mut self.daemon
        {
            daemon.queue.push_back(event);
        }
    }

    fn ask_process(&mut self) {
        self.process = self.process.map(|_| !self.ignores_signal);
    }

    fn kill_process(&mut self) {
        self.process = self.process.map(|_| true);
    }

    fn pump_dies(&mut self) {
        let Some(pump) = self.pump.take() else { return };
        // Its parent-death signal.
        self.ask_process();
        if let Some(daemon) = &mut self.daemon {
            if pump.linked {
                daemon.queue.push_back(life::Event::PumpDied { ran: SHORT, jitter: 0, unfinished: false });
            } else if std::mem::take(&mut daemon.predecessor) {
                daemon.queue.push_back(life::Event::PredecessorGone);
            }
        }
        // Without a daemon that adopts it, a dead process is reaped by init.
        self.unreaped &= self.daemon.is_some();
    }

    fn daemon_dies(&mut self) {
        if self.daemon.take().is_some()
            && let Some(pump) = self.pump.as_mut().filter(|pump| pump.linked)
        {
            pump.linked = false;
            pump.queue.push_back(lifecycle::Event::DaemonDied);
        }
        if self.pump.is_none() {
            self.unreaped = false;
        }
    }

    fn process_dies(&mut self) {
        self.process = None;
        self.unreaped = self.pump.is_some() || self.daemon.is_some();
        if let Some(pump) = &mut self.pump {
            pump.queue.push_back(lifecycle::Event::ProcessDied { ran: SHORT, success: false, jitter: 0 });
        }
    }

    pub(super) fn blow(&mut self, role: Role, blow: Blow) {
        self.history.push(format!("{blow:?} {role:?}"));
        match (role, blow) {
            (Role::Daemon, Blow::Kill) => self.daemon_dies(),
            (Role::Pump, Blow::Kill) => self.pump_dies(),
            (Role::Daemon, Blow::Term) => self.daemon_gets(life::Event::Terminated),
            (Role::Daemon, Blow::Interrupt) => self.daemon_gets(life::Event::Interrupted),
            (Role::Pump, Blow::Term) => self.pump_gets(lifecycle::Event::Terminated),
            (Role::Pump, Blow::Interrupt) => self.pump_gets(lifecycle::Event::Interrupted),
        }
    }

    fn daemon_gets(&mut self, event: life::Event) {
        self.daemon.iter_mut().for_each(|daemon| daemon.queue.push_back(event));
    }

    fn pump_gets(&mut self, event: lifecycle::Event) {
        self.pump.iter_mut().for_each(|pump| pump.queue.push_back(event));
    }

    /// Does one of the things that can happen now; timers run out when nothing else can. False: all is at rest.
    pub(super) fn step(&mut self) -> bool {
        let cleared =
            self.pump.as_ref().is_some_and(|pump| pump.clearing.is_some()) && self.process.is_none();
        let swept = self.daemon.as_ref().is_some_and(|daemon| daemon.sweeping) && self.process.is_none();
        let possible = [
            self.pump.as_ref().is_some_and(|pump| !pump.queue.is_empty()),
            self.daemon.as_ref().is_some_and(|daemon| !daemon.queue.is_empty()),
            self.process == Some(true),
            cleared,
            swept,
        ];
        let moves: Vec<usize> = (0..possible.len()).filter(|at| possible[*at]).collect();
        if moves.is_empty() {
            return self.timer_elapses();
        }
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let chosen = moves[(self.seed >> 16) as usize % moves.len()];
        self.history.push(["pump", "daemon", "process dies", "cleared", "swept"][chosen].to_owned());
        match chosen {
            0 => self.pump_steps(),
            1 => self.daemon_steps(),
            2 => self.process_dies(),
            3 => self.pump.iter_mut().for_each(|pump| {
                if let Some(everyone) = pump.clearing.take() {
                    pump.queue.push_back(lifecycle::Event::Cleared { everyone });
                }
            }),
            _ => {
                self.unreaped = false;
                self.daemon.iter_mut().for_each(|daemon| {
                    daemon.sweeping = false;
                    daemon.queue.push_back(life::Event::Swept);
                });
            }
        }
        true
    }

    fn pump_steps(&mut self) {
        let Some(pump) = &mut self.pump else { return };
        let Some(event) = pump.queue.pop_front() else { return };
        let actions = pump.machine.step(event);
        (self.unstable, self.held) = (pump.machine.unstable(), pump.machine.is_held());
        self.history.push(format!("  {event:?} -> {:?}: {actions:?}", pump.machine.phase()));
        self.pump_acts(actions);
        // The process is spawned, or is not, within the same step.
        if self.pump.as_ref().is_some_and(|pump| pump.queue.front() == Some(&lifecycle::Event::Spawned)) {
            self.pump_steps();
        }
    }

    fn daemon_steps(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        let Some(event) = daemon.queue.pop_front() else { return };
        daemon.life.set_unstable(self.unstable);
        let actions = daemon.life.step(event);
        self.unstable = daemon.life.unstable();
        self.history.push(format!("  {event:?} -> {:?}: {actions:?}", daemon.life.phase()));
        self.daemon_acts(actions);
    }

    fn timer_elapses(&mut self) -> bool {
        // A monitor that is ready in time, a process that runs: those timers are disarmed. The rest is in order.
        if let Some(pump) = self.pump.as_mut().filter(|pump| !pump.timers.is_empty()) {
            let timer = pump.timers.remove(0);
            pump.queue.push_back(lifecycle::Event::Elapsed(timer));
            return true;
        }
        if let Some(daemon) = self.daemon.as_mut().filter(|daemon| !daemon.timers.is_empty()) {
            let timer = daemon.timers.remove(0);
            daemon.queue.push_back(life::Event::Elapsed(timer));
            return true;
        }
        false
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..500 {
            if !self.step() {
                return;
            }
        }
        panic!("it never comes to rest: {}", self.story());
    }

    pub(super) fn story(&self) -> String {
        self.history.join("\n")
    }

    pub(super) fn is_whole(&self) -> bool {
        let up = self.daemon.as_ref().is_some_and(|daemon| daemon.life.phase() == life::Phase::Up);
        let runs = self
            .pump
            .as_ref()
            .is_some_and(|pump| pump.linked && pump.machine.phase() == lifecycle::Phase::Running);
        up && runs && self.process.is_some() && !self.unreaped
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.daemon.is_none() && self.pump.is_none() && self.process.is_none()
    }
}
