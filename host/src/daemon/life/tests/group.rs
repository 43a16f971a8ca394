//! Daemon, pump and process together: both machines joined by their links and by the state page, with blows to either
//! role at any moment.

use crate::daemon::life::{self, Life};
use crate::launch::{OnCrash, Policy, Restart, Strategy};
use crate::lifecycle::{self, Inherited, Lifecycle};
use std::collections::{BTreeMap, VecDeque};
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

/// What a group was started with, and what the world around it is like.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rules {
    /// The process outlives its pump and its daemon.
    pub(super) keeps: bool,
    /// The process needs SIGKILL.
    pub(super) ignores_signal: bool,
    /// How many hooks of a hundred fail once the group is there.
    pub(super) failing_hooks: u32,
    /// How many of a hundred pumps cannot become the daemon.
    pub(super) failing_execs: u32,
    /// The group gives up after two respawns in a row.
    pub(super) gives_up: bool,
    /// How many of a hundred reloads bring monitors that fail at once.
    pub(super) broken_reloads: u32,
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

/// What the relay is asked for, and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Prepare,
    Hold,
    /// Tell of the end of this process; `kept`: an earlier pump may have done so.
    Exited {
        process: u32,
        kept: bool,
    },
    Finish,
}

#[derive(Debug)]
pub(super) struct Pump {
    machine: Lifecycle,
    queue: VecDeque<lifecycle::Event>,
    jobs: VecDeque<Job>,
    timers: Vec<lifecycle::Timer>,
    clearing: Option<bool>,
    /// A daemon hears what this pump says.
    linked: bool,
    /// It knows that the process is dead.
    sees_end: bool,
    /// An earlier pump started the process.
    kept: bool,
}

/// A process that runs.
#[derive(Debug, Clone, Copy)]
struct Process {
    number: u32,
    asked: bool,
}

/// What the roles leave to each other on the state page.
#[derive(Debug, Default)]
struct Page {
    group_started: bool,
    unstable: u32,
    held: bool,
    process: Option<u32>,
    stop_wanted: bool,
    restart_wanted: bool,
}

/// What is going on, and what is known of it across all roles.
#[derive(Debug)]
pub(super) struct Group {
    rules: Rules,
    pub(super) daemon: Option<Daemon>,
    pub(super) pump: Option<Pump>,
    /// A pump that has made way, until another one is there.
    standby: Option<Pump>,
    /// The next pump is to try new monitors, or the pump that lives does.
    trial: bool,
    process: Option<Process>,
    /// A dead process that waits for its parent.
    unreaped: Option<u32>,
    page: Page,
    /// How many actions this role still carries out before it is killed.
    fuse: Option<(Role, u32)>,
    /// Somebody wants the end of the process, or of the group.
    may_end: bool,
    /// How many processes and pumps there were.
    processes: u32,
    pub(super) pumps: u32,
    /// How many times the monitors were told of the end of a process.
    told: BTreeMap<u32, u32>,
    /// Processes of whose end they need not be told: it went with its roles, or nobody was left who could.
    excused: Vec<u32>,
    seed: u32,
    history: Vec<String>,
}

const SHORT: Duration = Duration::from_millis(5);

impl Group {
    pub(super) fn begin(rules: Rules, seed: u32) -> Self {
        let mut group = Self {
            rules,
            daemon: None,
            pump: None,
            standby: None,
            trial: false,
            process: None,
            unreaped: None,
            page: Page::default(),
            fuse: None,
            may_end: !rules.keeps,
            processes: 0,
            pumps: 0,
            told: BTreeMap::new(),
            excused: Vec::new(),
            seed,
            history: Vec::new(),
        };
        group.start_daemon(false);
        group
    }

    fn policy(&self) -> Policy {
        let on_crash = if self.rules.keeps { OnCrash::Keep } else { OnCrash::Respawn };
        let max_restarts = self.rules.gives_up.then_some(2);
        Policy { restart: Restart::Always, on_crash, max_restarts, ..Policy::default() }
    }

    /// A number below this one.
    pub(super) fn chance(&mut self, below: u32) -> u32 {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.seed >> 16) % below
    }

    fn start_daemon(&mut self, predecessor: bool) {
        let (life, actions) = Life::new(self.policy(), self.page.group_started, predecessor);
        let mut queue = VecDeque::new();
        if self.page.stop_wanted {
            queue.push_back(life::Event::PumpEnds);
        }
        self.daemon = Some(Daemon { life, queue, timers: Vec::new(), sweeping: false, predecessor });
        self.daemon_acts(actions);
    }

    fn start_pump(&mut self) {
        assert!(self.pump.is_none(), "a second pump: {self:#?}");
        assert!(self.rules.keeps || self.process.is_none(), "a process is left: {self:#?}");
        self.pumps += 1;
        let kept = self.rules.keeps && self.page.group_started && self.page.process.is_some();
        let (machine, actions) = Lifecycle::new(
            self.policy(),
            Strategy::Daemon,
            Inherited {
                group_started: self.page.group_started,
                held: self.page.held,
                unstable: self.page.unstable,
                kept,
                stop_wanted: self.page.stop_wanted,
                restart_wanted: self.page.restart_wanted,
            },
        );
        self.pump = Some(Pump {
            machine,
            queue: VecDeque::new(),
            jobs: VecDeque::from([Job::Prepare]),
            timers: Vec::new(),
            clearing: None,
            linked: true,
            sees_end: false,
            kept,
        });
        self.pump_acts(actions);
    }

    /// The role is killed now, between two actions.
    fn burns_down(&mut self, role: Role) -> bool {
        match &mut self.fuse {
            Some((whose, 0)) if *whose == role => {
                self.fuse = None;
                self.blow(role, Blow::Kill);
                true
            }
            Some((whose, left)) if *whose == role => {
                *left -= 1;
                false
            }
            Some(_) | None => false,
        }
    }

    fn daemon_acts(&mut self, actions: Vec<life::Action>) {
        use life::Action;
        for action in actions {
            if self.burns_down(Role::Daemon) {
                return;
            }
            let Some(daemon) = &mut self.daemon else { return };
            match action {
                Action::SpawnPump => {
                    self.start_pump();
                    self.standby = None;
                }
                Action::KillPump => self.pump_dies(),
                Action::StopPump => self.tell_pump(lifecycle::Event::ShutdownAsked),
                Action::AnnounceTerm => self.tell_pump(lifecycle::Event::DaemonTerminated),
                Action::Sweep => {
                    daemon.sweeping = true;
                    self.standby = None;
                    // A group that gives up ends.
                    self.may_end |= daemon.life.is_ending() || !self.page.group_started;
                    self.ask_process();
                }
                Action::Kill => self.kill_process(),
                Action::Arm(timer, _) => {
                    daemon.timers.retain(|armed| *armed != timer);
                    daemon.timers.push(timer);
                }
                Action::Disarm(timer) => daemon.timers.retain(|armed| *armed != timer),
                Action::YieldPump => self.tell_pump(lifecycle::Event::YieldAsked),
                Action::Replace => self.trial = true,
                Action::Settle | Action::Restore => self.trial = false,
                Action::State(_) | Action::AcceptReload | Action::RefuseReload | Action::AbandonReload => {}
                Action::Leave(_) => self.daemon_dies(),
            }
        }
    }

    fn pump_acts(&mut self, actions: Vec<lifecycle::Action>) {
        use lifecycle::{Action, Event};
        for action in actions {
            if self.burns_down(Role::Pump) {
                return;
            }
            let Some(pump) = &mut self.pump else { return };
            match action {
                Action::Hold => pump.jobs.push_back(Job::Hold),
                Action::Spawn => {
                    assert!(self.process.is_none() && self.unreaped.is_none(), "a second process: {self:#?}");
                    pump.queue.push_front(Event::Spawned);
                    (pump.kept, pump.sees_end) = (false, false);
                    self.processes += 1;
                    self.process = Some(Process { number: self.processes, asked: false });
                    self.page.process = Some(self.processes);
                }
                Action::ReportStarted => {
                    self.page.group_started = true;
                    self.tell_daemon(life::Event::Started);
                }
                Action::ReportReady => self.tell_daemon(life::Event::PumpReady),
                Action::ReportYielded => {
                    let unfinished = self.page.process.is_some();
                    self.tell_daemon(life::Event::PumpYielded { unfinished });
                }
                Action::AnnounceFailure => self.tell_daemon(life::Event::PumpGivesUp),
                Action::TellExited => {
                    let process = self.page.process.expect("a process has ended");
                    pump.jobs.push_back(Job::Exited { process, kept: pump.kept });
                }
                Action::Signal => self.ask_process(),
                Action::Kill => self.kill_process(),
                Action::Clear { everyone } => pump.clearing = Some(everyone),
                Action::Reap => {
                    self.unreaped = None;
                    self.page.process = None;
                    // Only now: whoever dies before leaves it to be done.
                    self.page.restart_wanted = false;
                }
                Action::Arm(timer, _) => {
                    pump.timers.retain(|armed| *armed != timer);
                    pump.timers.push(timer);
                }
                Action::Disarm(timer) => pump.timers.retain(|armed| *armed != timer),
                Action::AnnounceEnd => self.tell_daemon(life::Event::PumpEnds),
                Action::AnnounceTerm => self.tell_daemon(life::Event::PumpTerminated),
                Action::Finish => pump.jobs.push_back(Job::Finish),
                Action::StartDaemon => self.start_daemon(true),
                Action::BecomeDaemon => self.become_daemon(),
                Action::Leave(_) => self.pump_dies(),
                Action::TellSpawned { .. } | Action::Read | Action::State(_) => {}
            }
        }
    }

    fn become_daemon(&mut self) {
        assert!(self.daemon.is_none(), "a second daemon: {self:#?}");
        if self.chance(100) < self.rules.failing_execs {
            self.history.push("  it cannot become the daemon".into());
            self.may_end = true;
            self.excused.extend(self.page.process);
            self.pump.iter_mut().for_each(|pump| pump.queue.push_front(lifecycle::Event::NotReplaced));
        } else {
            self.pump = None;
            // Of monitors that are not ready nobody knows any more.
            self.trial = false;
            self.start_daemon(false);
        }
    }

    /// The daemon hears that the pump has made way.
    fn stand_by(&mut self) {
        self.standby = self.pump.take();
        if let (None, Some(daemon)) = (&self.standby, &mut self.daemon) {
            // It is dead already, and its end is of no interest any more.
            daemon.queue.retain(|event| !matches!(event, life::Event::PumpDied { .. }));
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
        assert!(self.may_end || self.process.is_none(), "nobody asked for that: {}", self.story());
        if let Some(process) = &mut self.process {
            process.asked |= !self.rules.ignores_signal;
        }
    }

    fn kill_process(&mut self) {
        assert!(self.may_end || self.process.is_none(), "nobody asked for that: {}", self.story());
        self.process.iter_mut().for_each(|process| process.asked = true);
    }

    fn pump_dies(&mut self) {
        let Some(pump) = self.pump.take() else { return };
        if !self.rules.keeps {
            // Its parent-death signal.
            self.ask_process();
        }
        if let Some(daemon) = &mut self.daemon {
            if pump.linked {
                if self.page.stop_wanted {
                    daemon.queue.push_back(life::Event::PumpEnds);
                }
                let unfinished = self.rules.keeps && self.page.process.is_some();
                daemon.queue.push_back(life::Event::PumpDied { ran: SHORT, jitter: 0, unfinished });
            } else if std::mem::take(&mut daemon.predecessor) {
                daemon.queue.push_back(life::Event::PredecessorGone);
            }
        } else if !self.rules.keeps {
            // Without a daemon that adopts it, a dead process is reaped by init.
            self.unreaped = None;
        }
    }

    fn daemon_dies(&mut self) {
        // Without another pump in its place the one that has made way finds that it is needed.
        let standby = self.standby.take();
        self.pump = self.pump.take().or(standby);
        if self.daemon.take().is_some()
            && let Some(pump) = self.pump.as_mut().filter(|pump| pump.linked)
        {
            pump.linked = false;
            pump.queue.push_back(lifecycle::Event::DaemonDied);
        }
        if self.pump.is_none() && !self.rules.keeps {
            self.unreaped = None;
        }
    }

    /// The process ends, whoever wanted that.
    pub(super) fn process_dies(&mut self) {
        let Some(process) = self.process.take() else { return };
        self.history.push(format!("process {} dies", process.number));
        let noted = self.rules.keeps || self.pump.is_some() || self.daemon.is_some();
        self.unreaped = noted.then_some(process.number);
        if !self.rules.keeps {
            self.excused.push(process.number);
        }
    }

    pub(super) fn blow(&mut self, role: Role, blow: Blow) {
        self.history.push(format!("{blow:?} {role:?}"));
        // At a system shutdown everybody gets it, and a daemon without a pump takes it for that.
        self.may_end |= (role, blow) == (Role::Daemon, Blow::Term);
        match (role, blow) {
            (Role::Daemon, Blow::Kill) => self.daemon_dies(),
            (Role::Pump, Blow::Kill) => self.pump_dies(),
            (Role::Daemon, Blow::Term) => self.daemon_gets(life::Event::Terminated),
            (Role::Daemon, Blow::Interrupt) => self.daemon_gets(life::Event::Interrupted),
            (Role::Pump, Blow::Term) => self.pump_gets(lifecycle::Event::Terminated),
            (Role::Pump, Blow::Interrupt) => self.pump_gets(lifecycle::Event::Interrupted),
        }
    }

    /// The role is killed after so many actions more: between any two of them, that is.
    pub(super) fn blow_after(&mut self, role: Role, actions: u32) {
        self.fuse = Some((role, actions));
    }

    fn daemon_gets(&mut self, event: life::Event) {
        self.daemon.iter_mut().for_each(|daemon| daemon.queue.push_back(event));
    }

    fn pump_gets(&mut self, event: lifecycle::Event) {
        self.pump.iter_mut().for_each(|pump| pump.queue.push_back(event));
    }

    /// Whether it is the pump that answers.
    fn pump_serves(&self) -> bool {
        self.pump.as_ref().is_some_and(|pump| pump.machine.phase() != lifecycle::Phase::StandingBy)
    }

    /// The user asks whoever answers for the end of the group.
    pub(super) fn stop(&mut self) {
        self.history.push("stop".into());
        self.may_end = true;
        if self.pump_serves() {
            self.pump_gets(lifecycle::Event::ShutdownAsked);
        } else {
            self.daemon_gets(life::Event::ShutdownAsked);
        }
    }

    /// The user asks whoever answers for a restart of the process.
    pub(super) fn restart(&mut self) {
        self.history.push("restart".into());
        self.may_end = true;
        if self.pump_serves() {
            self.pump_gets(lifecycle::Event::RestartAsked);
        } else if self.daemon.is_some() {
            self.page.held = false;
            self.page.restart_wanted = self.rules.keeps && self.page.process.is_some();
            self.daemon_gets(life::Event::RestartAsked);
        }
    }

    /// The user asks for other monitors.
    pub(super) fn reload(&mut self) {
        self.history.push("reload".into());
        self.daemon_gets(life::Event::ReloadAsked);
    }

    /// Does one of the things that can happen now; timers run out when nothing else can. False: all is at rest.
    pub(super) fn step(&mut self) -> bool {
        let pump = self.pump.as_ref();
        let cleared = pump.is_some_and(|pump| pump.clearing.is_some()) && self.process.is_none();
        let swept = self.daemon.as_ref().is_some_and(|daemon| daemon.sweeping) && self.process.is_none();
        let looks = |pump: &Pump| {
            use lifecycle::Phase::{Preparing, StandingBy, Yielding};
            !pump.sees_end && !matches!(pump.machine.phase(), Preparing | Yielding | StandingBy)
        };
        let possible = [
            pump.is_some_and(|pump| !pump.queue.is_empty()),
            self.daemon.as_ref().is_some_and(|daemon| !daemon.queue.is_empty()),
            self.process.is_some_and(|process| process.asked),
            cleared,
            swept,
            pump.is_some_and(|pump| !pump.jobs.is_empty()),
            self.unreaped.is_some() && pump.is_some_and(looks),
        ];
        let moves: Vec<usize> = (0..possible.len()).filter(|at| possible[*at]).collect();
        if moves.is_empty() {
            return self.timer_elapses();
        }
        match moves[self.chance(u32::try_from(moves.len()).expect("there are few")) as usize] {
            0 => self.pump_steps(),
            1 => self.daemon_steps(),
            2 => self.process_dies(),
            3 => self.pump.iter_mut().for_each(|pump| {
                if let Some(everyone) = pump.clearing.take() {
                    pump.queue.push_back(lifecycle::Event::Cleared { everyone });
                }
            }),
            4 => self.is_swept(),
            5 => self.relay_works(),
            _ => self.pump.iter_mut().for_each(|pump| {
                pump.sees_end = true;
                let event = lifecycle::Event::ProcessDied { ran: SHORT, success: false, jitter: 0 };
                pump.queue.push_back(event);
            }),
        }
        true
    }

    fn is_swept(&mut self) {
        self.history.push("swept".into());
        self.unreaped = None;
        self.excused.extend(self.page.process.take());
        self.daemon.iter_mut().for_each(|daemon| {
            daemon.sweeping = false;
            daemon.queue.push_back(life::Event::Swept);
        });
    }

    fn relay_works(&mut self) {
        use lifecycle::Event;
        let percent = if self.trial { self.rules.broken_reloads } else { self.rules.failing_hooks };
        let fails = self.page.group_started && self.chance(100) < percent;
        let Some(pump) = &mut self.pump else { return };
        let Some(job) = pump.jobs.pop_front() else { return };
        self.history.push(format!("relay: {job:?}{}", if fails { " fails" } else { "" }));
        if fails {
            pump.jobs.clear();
            return pump.queue.push_back(Event::HookFailed);
        }
        pump.queue.push_back(match job {
            Job::Prepare => Event::MonitorsReady,
            Job::Hold => Event::RelayHeld,
            Job::Exited { process, kept } => {
                let told = self.told.entry(process).or_default();
                // What is told is on the page.
                if *told == 0 || !kept {
                    *told += 1;
                }
                Event::Delivered
            }
            Job::Finish => {
                pump.jobs.clear();
                Event::Finished
            }
        });
    }

    fn pump_steps(&mut self) {
        let Some(pump) = &mut self.pump else { return };
        let Some(event) = pump.queue.pop_front() else { return };
        let actions = pump.machine.step(event);
        (self.page.unstable, self.page.held) = (pump.machine.unstable(), pump.machine.is_held());
        self.page.restart_wanted |= pump.machine.wants_restart();
        self.page.stop_wanted |= pump.machine.wants_end();
        // Without a daemon nobody can take over what its monitors could not do.
        if event == lifecycle::Event::HookFailed && !pump.linked {
            self.excused.extend(self.page.process);
        }
        self.history.push(format!("  pump {event:?} -> {:?}: {actions:?}", pump.machine.phase()));
        self.pump_acts(actions);
        // The process is spawned, or is not, within the same step, and so is a pump that cannot be the daemon.
        let at_once = [lifecycle::Event::Spawned, lifecycle::Event::NotReplaced];
        let next = self.pump.as_ref().and_then(|pump| pump.queue.front());
        if next.is_some_and(|event| at_once.contains(event)) {
            self.pump_steps();
        }
    }

    fn daemon_steps(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        let Some(event) = daemon.queue.pop_front() else { return };
        if matches!(event, life::Event::PumpYielded { .. }) {
            self.stand_by();
        }
        let Some(daemon) = &mut self.daemon else { return };
        daemon.life.set_unstable(self.page.unstable);
        let actions = daemon.life.step(event);
        self.page.unstable = daemon.life.unstable();
        self.page.stop_wanted |= daemon.life.is_stopping();
        self.history.push(format!("  daemon {event:?} -> {:?}: {actions:?}", daemon.life.phase()));
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
        for _ in 0..1000 {
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
        up && runs && self.process.is_some() && self.unreaped.is_none()
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.daemon.is_none() && self.pump.is_none() && self.process.is_none()
    }

    /// No reload is under way, and the monitors that run are those of the group.
    pub(super) fn is_settled(&self) -> bool {
        let yields = self.daemon.as_ref().is_some_and(|daemon| daemon.life.is_yielding());
        !(yields || self.trial || self.standby.is_some())
    }

    /// Both roles are gone, and the process runs as if nothing had happened.
    pub(super) fn is_orphaned(&self) -> bool {
        let runs = self.process.is_some_and(|process| !process.asked);
        self.daemon.is_none() && self.pump.is_none() && runs
    }

    /// From now on so many hooks of a hundred fail.
    pub(super) fn fail_hooks(&mut self, percent: u32) {
        self.rules.failing_hooks = percent;
    }

    /// Both roles are gone, and so is the process, of which they did not know.
    pub(super) fn is_lost(&self) -> bool {
        self.is_nothing() && self.page.process.is_some()
    }

    /// Which process it is that runs; 0: none.
    pub(super) fn process_number(&self) -> u32 {
        self.process.map_or(0, |process| process.number)
    }

    /// The start has succeeded.
    pub(super) fn is_there(&self) -> bool {
        self.page.group_started
    }

    /// Whoever comes knows that the end of the group is wanted.
    pub(super) fn wants_end(&self) -> bool {
        self.page.stop_wanted
    }

    /// Whoever comes knows that a restart of the process is wanted.
    pub(super) fn wants_restart(&self) -> bool {
        self.page.restart_wanted
    }

    /// Of which processes that are gone the monitors were told not once, though they should have been.
    pub(super) fn told_wrong(&self) -> Vec<u32> {
        let present = [self.page.process, self.unreaped, self.process.map(|process| process.number)];
        (1..=self.processes)
            .filter(|number| match self.told.get(number) {
                Some(times) => *times != 1,
                None => !self.excused.contains(number) && !present.contains(&Some(*number)),
            })
            .collect()
    }
}
