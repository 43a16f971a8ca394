//! The pump: spawns the process, keeps it alive, and has its relay give everything to the monitors.
//!
//! This file is the main thread: it waits, turns what happened into events of the lifecycle, and carries its
//! actions out. It never waits for the relay without a deadline, so a hook that hangs cannot stop `stop`.

mod crash_file;
mod mail;
mod offer;
mod relay;
mod sink;

use crate::control::{ClientId, Command as Wish, Server};
use crate::ending::Ending;
use crate::frames::{Frame, Link};
use crate::launch::{Strategy, number};
use crate::lifecycle::{Action, Event, FINISH_TIMEOUT, Lifecycle, Outcome, Timer};
use crate::notify::{self, Ear};
use crate::program::{self, Prepared};
use crate::role::{self, Extra, Group, Role, RoleError, attempt};
use crate::state::{Member, State};
use crate::sys::family::{self, Exit};
use crate::sys::poll::poll;
use crate::sys::signals::Signals;
use crate::sys::{clock, fd, spawn};
use mail::{Command, Mail, Notice};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Exit status of a pump that could not go on.
const FAILED: u8 = 125;

/// Runs the pump until it leaves. It leaves the process too: exit handlers of loaded libraries are not trusted.
///
/// # Errors
/// It could not even begin.
pub(crate) fn run() -> Result<std::convert::Infallible, RoleError> {
    let mut pump = Pump::begin(role::begin()?)?;
    let status = pump.live();
    drop(pump);
    family::leave(status)
}

/// A process that was started.
#[derive(Debug, Clone, Copy)]
struct Started {
    pid: i32,
    at: Instant,
}

struct Pump {
    group: Group,
    lifecycle: Lifecycle,
    prepared: Prepared,
    stdin: OwnedFd,
    mail: Arc<Mail>,
    signals: Signals,
    server: Server,
    link: Option<Link>,
    /// Strategy daemon: to the parent, until it has its answer.
    parent: Option<Link>,
    /// `--ready notify`: where the process says that it is ready.
    ear: Option<Ear>,
    timers: [Option<Instant>; Timer::ALL.len()],
    /// The process, from its start until it is reaped.
    process: Option<Started>,
    /// How the process ended, from its death until it is reaped.
    dead: Option<Exit>,
    ending: Ending,
    events: VecDeque<Event>,
    /// The process was executed before, by this pump or one before it.
    executed: bool,
    /// Clients that wait for the new process.
    restarting: Vec<ClientId>,
    /// Clients that asked for the end; they are answered when it is under way. One that is not, because this pump
    /// left before it came to that, asks the next one.
    stopping: Vec<ClientId>,
    /// Exit status and text of a start that failed.
    failure: Option<(u8, String, Option<String>)>,
    last_status: u8,
    status: Option<u8>,
}

impl Pump {
    fn begin(mut group: Group) -> Result<Self, RoleError> {
        attempt("become a subreaper", family::become_subreaper())?;
        group.page.set_member(Member::Pump, nix::unistd::getpid().as_raw());
        let strategy = group.launch.strategy;
        let signals = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
        let signals = attempt("watch signals", Signals::watch(&signals))?;
        // What a monitor does to its own mask does not reach the process.
        let umask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
        nix::sys::stat::umask(umask);
        #[cfg_attr(
            target_os = "linux",
            expect(clippy::useless_conversion, reason = "a mode is u16 on macOS")
        )]
        let mask = umask.bits().into();
        group.launch.program.umask.get_or_insert(mask);
        let mut environment = program::environment(&group.launch.program, &group.environment);
        let ear = match group.launch.policy.ready_within {
            Some(_) => Some(attempt("listen for readiness", Ear::open(&group.directory()))?),
            None => None,
        };
        if let Some(ear) = &ear {
            environment.retain(|(key, _)| key != b"NOTIFY_SOCKET");
            environment.push((b"NOTIFY_SOCKET".to_vec(), ear.address().as_encoded_bytes().to_vec()));
        }
        let prepared = program::prepare(&group.launch.program, &environment)
            .map_err(|error| RoleError::System("lay out the program", std::io::Error::other(error)))?;
        let listener = match &group.listener {
            Some(listener) => Some(attempt("keep the control socket", listener.try_clone())?),
            None => None,
        };
        let link = match group.take(number::LINK) {
            Some(fd) => Some(attempt("keep the link", Link::new(fd))?),
            None => None,
        };
        let parent = match group.take(number::PARENT) {
            Some(fd) => Some(attempt("keep the link to the parent", Link::new(fd))?),
            None => None,
        };
        let stdin = match group.take(number::STDIN) {
            Some(stdin) => stdin,
            None => attempt("open /dev/null", fd::null())?,
        };
        let mail = attempt("make the letter boxes", Mail::new(group.launch.monitors.len(), group.page))?;
        let mail = Arc::new(mail);
        let start = relay_start(&mut group, &mail, &environment)?;
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || relay::run(start));
        attempt("start the relay", thread)?;
        let page = group.page;
        let (lifecycle, actions) = Lifecycle::new(
            group.launch.policy.clone(),
            strategy,
            page.executed(),
            page.held(),
            page.unstable(),
        );
        let ending = Ending::new(group.launch.policy.stop_signal);
        let mut pump = Self {
            group,
            lifecycle,
            prepared,
            stdin,
            mail,
            signals,
            server: Server::new(listener),
            link,
            parent,
            ear,
            timers: [None; Timer::ALL.len()],
            process: None,
            dead: None,
            ending,
            events: VecDeque::new(),
            executed: page.executed(),
            restarting: Vec::new(),
            stopping: Vec::new(),
            failure: None,
            last_status: FAILED,
            status: None,
        };
        pump.carry_out(actions);
        Ok(pump)
    }

    /// Lives until it is time to leave; returns the exit status.
    fn live(&mut self) -> u8 {
        loop {
            while let Some(event) = self.events.pop_front() {
                log::debug!("{event:?} while {:?}", self.lifecycle.phase());
                let actions = self.lifecycle.step(event);
                self.group.page.set_unstable(self.lifecycle.unstable());
                self.group.page.set_held(self.lifecycle.is_held());
                self.carry_out(actions);
                if let Some(status) = self.status {
                    return status;
                }
            }
            for client in std::mem::take(&mut self.stopping) {
                self.server.answer(client, Ok(()));
            }
            self.wait();
            if let Some(status) = self.status {
                return status;
            }
        }
    }

    /// Waits for something to happen and turns it into events.
    fn wait(&mut self) {
        let timeout = self.timeout();
        let mut fds = vec![
            PollFd::new(self.mail.main.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.link.as_ref().map(|link| PollFd::new(link.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.server.poll_fds(true));
        fds.extend(self.ear.as_ref().map(|ear| PollFd::new(ear.as_fd(), PollFlags::POLLIN)));
        if let Err(error) = poll(&mut fds, timeout) {
            drop(fds);
            return self.break_down(&error);
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| fd.any() == Some(true));
        let ear = fds.last().filter(|_| self.ear.is_some()).is_some_and(|fd| fd.any() == Some(true));
        let (mail, signal, link) = (ready(0), ready(1), self.link.is_some() && ready(2));
        let clients = fds[2 + usize::from(self.link.is_some())..].iter().any(|fd| fd.any() == Some(true));
        drop(fds);
        if mail {
            self.mail.main.clear();
        }
        self.take_notices();
        if signal {
            self.take_signals();
        }
        if link {
            self.take_frames();
        }
        if clients {
            self.take_wishes();
        }
        if ear {
            self.take_readiness();
        }
        self.take_timers();
        self.look_at_ending();
    }

    /// Nothing can be waited for any more: this pump ends like one that crashed.
    fn break_down(&mut self, error: &std::io::Error) {
        use std::io::Write;
        if let Err(error) = writeln!(std::io::stderr(), "the pump cannot go on: {error}") {
            log::debug!("writing to stderr: {error}");
        }
        self.status = Some(FAILED);
    }

    fn timeout(&self) -> PollTimeout {
        let next = self.timers.iter().flatten().min();
        let polling = self.ending.polls().then_some(Duration::from_millis(20));
        let wait = next.map(|at| at.saturating_duration_since(Instant::now()));
        let wait = wait.into_iter().chain(polling).min();
        // Rounded up: waking up a moment early would only mean to wait again.
        wait.map_or(PollTimeout::NONE, |wait| {
            PollTimeout::try_from(wait.saturating_add(Duration::from_micros(999))).unwrap_or(PollTimeout::MAX)
        })
    }

    fn take_notices(&mut self) {
        while let Some(notice) = self.mail.next_notice() {
            match notice {
                Notice::Ready => self.events.push_back(Event::MonitorsReady),
                Notice::Held => self.events.push_back(Event::RelayHeld),
                Notice::Delivered => self.events.push_back(Event::Delivered),
                Notice::Finished => self.events.push_back(Event::Finished),
                Notice::Restart => self.events.push_back(Event::RestartAsked),
                Notice::Shutdown => self.events.push_back(Event::ShutdownAsked),
                Notice::Failed { text, hint } => self.hook_failed(text, hint),
            }
        }
    }

    /// The text goes to stderr whole: it is what the next monitors are told.
    fn hook_failed(&mut self, text: String, hint: Option<String>) {
        use std::io::Write;
        if let Err(error) = writeln!(std::io::stderr(), "{text}") {
            log::debug!("writing to stderr: {error}");
        }
        self.failure.get_or_insert((FAILED, text, hint));
        self.events.push_back(Event::HookFailed);
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.next() {
            if signal == Signal::SIGTERM {
                self.events.push_back(Event::Terminated);
            } else if matches!(signal, Signal::SIGINT | Signal::SIGHUP) {
                self.events.push_back(Event::Interrupted);
            } else {
                self.take_children();
            }
            if matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP) {
                self.failure.get_or_insert((FAILED, format!("the pump got {signal}"), None));
            }
        }
    }

    /// Looks which children have ended. The process is only peeked at: its number stays taken until nothing is
    /// left of its group. Adopted strangers are reaped.
    fn take_children(&mut self) {
        if let Some(started) = self.process
            && self.dead.is_none()
            && let Some(exit) = family::end_of(started.pid)
        {
            self.process_died(started, exit);
        }
        if self.dead.is_some() {
            for child in family::children() {
                if self.process.is_none_or(|process| process.pid != child) && family::peek(child).is_some() {
                    family::reap(child);
                }
            }
        } else {
            while let Some((child, _)) = family::peek_any() {
                if self.process.is_some_and(|process| process.pid == child) || family::reap(child).is_none() {
                    break;
                }
            }
        }
    }

    fn process_died(&mut self, started: Started, exit: Exit) {
        let ran = started.at.elapsed();
        self.note_exit(exit);
        self.dead = Some(exit);
        log::info!("process {} ended: {exit:?}", started.pid);
        if self.ear.is_some() && !self.group.page.executed() {
            let text = "the program ended before it said READY=1".to_owned();
            self.failure.get_or_insert((FAILED, text, None));
        }
        let jitter = u16::try_from(clock::monotonic_ns() / 1000 % 201).unwrap_or(0);
        self.events.push_back(Event::ProcessDied { ran, success: exit.code == Some(0), jitter });
    }

    fn note_exit(&mut self, exit: Exit) {
        self.group.page.process_ended(exit);
        let status = exit.code.or_else(|| exit.signal.map(|signal| 128 + signal)).unwrap_or(0);
        self.last_status = u8::try_from(status).unwrap_or(u8::MAX);
    }

    fn take_frames(&mut self) {
        let Some(link) = &mut self.link else { return };
        let (frames, gone) = link.receive();
        for frame in frames {
            match frame {
                Frame::Stop => self.events.push_back(Event::ShutdownAsked),
                Frame::Kill => self.events.push_back(Event::KillAsked),
                Frame::Terminated => self.events.push_back(Event::DaemonTerminated),
                Frame::Started { .. }
                | Frame::Failed { .. }
                | Frame::Ending
                | Frame::GivingUp { .. }
                | Frame::Over { .. } => {}
            }
        }
        if gone {
            self.link = None;
            self.events.push_back(match self.group.launch.strategy {
                Strategy::Daemon => {
                    if self.parent.is_some() {
                        self.failure.get_or_insert((FAILED, "the daemon died".into(), None));
                    }
                    Event::DaemonDied
                }
                Strategy::Development | Strategy::Unattached => Event::ShutdownAsked,
            });
        }
    }

    /// The process and what descends from it may say that it is ready. A helper that is gone already cannot be
    /// looked up any more; its user must be one that may stop the group anyway.
    fn take_readiness(&mut self) {
        let (Some(ear), Some(process)) = (&self.ear, self.process) else { return };
        let of_program = self.group.launch.program.identity.as_ref().map(|identity| identity.uid);
        let own = nix::unistd::geteuid().as_raw();
        let is_ours = |pid, uid| {
            pid == process.pid
                || family::descendants().contains(&pid)
                || (!family::runs(pid, 0) && (uid == 0 || uid == own || Some(uid) == of_program))
        };
        if ear.hears_ready(is_ours) {
            self.events.push_back(Event::Ready);
        }
    }

    fn take_wishes(&mut self) {
        for (client, wish) in self.server.take(true) {
            match wish {
                Wish::Stop => {
                    self.stopping.push(client);
                    self.events.push_back(Event::ShutdownAsked);
                }
                Wish::Signal(signal) => {
                    let result = self.signal_process(signal);
                    self.server.answer(client, result);
                }
                Wish::Arguments => {
                    self.server.answer_arguments(client, self.group.launch.arguments());
                }
                Wish::Restart if self.lifecycle.is_ending() => {
                    self.server.answer(client, Err("the group is ending".into()));
                }
                Wish::Restart => {
                    self.restarting.push(client);
                    self.events.push_back(Event::RestartAsked);
                }
            }
        }
    }

    /// Sends a signal to the process alone, whose number is taken as long as it is not reaped.
    fn signal_process(&self, signal: i32) -> Result<(), String> {
        match self.process {
            Some(process) if self.dead.is_none() => {
                family::signal(process.pid, signal);
                Ok(())
            }
            Some(_) | None => Err("no process runs at the moment".into()),
        }
    }

    fn take_timers(&mut self) {
        let now = Instant::now();
        for timer in Timer::ALL {
            if self.timers[timer as usize].is_some_and(|at| at <= now) {
                self.timers[timer as usize] = None;
                if timer == Timer::Setup {
                    let timeout = self.group.launch.policy.setup_timeout;
                    self.hook_failed(
                        format!("a monitor was not ready within {timeout:?} (--setup-timeout)"),
                        None,
                    );
                } else {
                    if timer == Timer::Ready {
                        let timeout = self.group.launch.policy.ready_within.unwrap_or_default();
                        let text =
                            format!("the program did not say READY=1 within {timeout:?} (--ready-timeout)");
                        log::error!("{text}");
                        self.refuse_restarts(&text);
                        self.failure.get_or_insert((FAILED, text, None));
                    }
                    self.events.push_back(Event::Elapsed(timer));
                }
            }
        }
    }

    fn look_at_ending(&mut self) {
        let everyone = self.ending.is_for_everyone();
        if self.ending.is_over(self.process.map(|process| process.pid)) {
            self.events.push_back(Event::Cleared { everyone });
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            log::debug!("{action:?}");
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        let page = self.group.page;
        let pid = self.process.map(|process| process.pid);
        match action {
            Action::Hold => self.mail.command(Command::Hold),
            Action::Read => self.mail.command(Command::Read),
            Action::Spawn => self.spawn(),
            Action::TellSpawned { respawn } => self.tell_spawned(respawn),
            Action::ReportStarted => self.report_started(),
            Action::TellExited => self.tell_exited(),
            Action::Signal => self.ending.signal(pid),
            Action::Kill => {
                page.set_killed();
                self.ending.kill(pid);
            }
            Action::Clear { everyone } => {
                self.take_children();
                self.ending.clear(pid, everyone);
                self.look_at_ending();
            }
            Action::Reap => self.reap(),
            Action::Arm(timer, span) => self.timers[timer as usize] = Instant::now().checked_add(span),
            Action::Disarm(timer) => self.timers[timer as usize] = None,
            Action::State(state) => {
                let next = if state == State::Backoff { self.next_attempt_ns() } else { 0 };
                if state == State::Stopping && self.lifecycle.is_ending() {
                    notify::tell_manager("STOPPING=1");
                }
                if state == State::Running {
                    page.set_reason("");
                    // What went wrong before is over.
                    self.failure = None;
                }
                page.set_state(state, next);
            }
            Action::AnnounceEnd => self.tell(&Frame::Ending),
            Action::AnnounceFailure => {
                let reason = self.give_up_reason();
                self.tell(&Frame::GivingUp { reason });
            }
            Action::AnnounceTerm => self.tell(&Frame::Terminated),
            Action::Finish => self.mail.command(Command::Finish { within: FINISH_TIMEOUT }),
            Action::StartDaemon => self.start_daemon(),
            Action::Leave(outcome) => self.leave(outcome),
        }
    }

    fn give_up_reason(&self) -> String {
        let most = self.group.launch.policy.max_restarts.unwrap_or(0);
        format!(
            "gave up after {most} respawns in a row without a stable run; the last exit status was {}",
            self.last_status
        )
    }

    fn next_attempt_ns(&self) -> u64 {
        let wait =
            self.timers[Timer::Backoff as usize].map(|at| at.saturating_duration_since(Instant::now()));
        clock::wall_ns()
            .saturating_add(wait.map_or(0, |wait| u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }

    fn tell(&mut self, frame: &Frame) {
        if let Some(link) = &mut self.link {
            link.send(frame);
        }
    }

    fn spawn(&mut self) {
        let page = self.group.page;
        let program = &self.group.launch.program;
        let [stdout, stderr] = &self.group.streams;
        let child = spawn::Child {
            candidates: &self.prepared.candidates,
            arguments: &self.prepared.arguments,
            environment: &self.prepared.environment,
            descriptors: vec![(self.stdin.as_fd(), 0), (stdout.1.as_fd(), 1), (stderr.1.as_fd(), 2)],
            directory: Some(&self.prepared.directory),
            identity: program.identity.as_ref(),
            limits: &program.limits,
            umask: program.umask,
            nice: program.nice,
            session: true,
            detached: false,
            default_signals: true,
            parent_death_signal: Some(self.group.launch.policy.stop_signal),
            pid_slot: Some(page.slot(Member::Process)),
        };
        match spawn::spawn(&child) {
            Ok(pid) => {
                self.process = Some(Started { pid, at: Instant::now() });
                page.process_started(std::mem::replace(&mut self.executed, true));
                page.set_member(Member::Process, pid);
                self.events.push_front(Event::Spawned);
            }
            Err(error) => {
                page.set_member(Member::Process, 0);
                let status = error.status();
                log::error!("unable to execute the program: {error}");
                self.note_exit(Exit { code: Some(i32::from(status)), signal: None, core: false });
                let file = String::from_utf8_lossy(&self.group.launch.program.file).into_owned();
                let text = format!("{file}: {error}");
                self.refuse_restarts(&text);
                self.failure.get_or_insert((status, text, None));
                self.events.push_front(Event::SpawnFailed);
            }
        }
    }

    /// Those who wait for the new process hear why there is none; the group goes on trying.
    fn refuse_restarts(&mut self, why: &str) {
        for client in std::mem::take(&mut self.restarting) {
            self.server.answer(client, Err(why.to_owned()));
        }
    }

    fn tell_spawned(&mut self, respawn: bool) {
        let page = self.group.page;
        let Some(started) = self.process else { return };
        self.mail.command(Command::Spawned {
            process_pid: started.pid,
            respawn,
            count: u32::try_from(page.restarts()).unwrap_or(u32::MAX),
            mono_ns: clock::monotonic_ns(),
            wall_ns: clock::wall_ns(),
        });
    }

    fn report_started(&mut self) {
        let Some(started) = self.process else { return };
        self.group.page.set_there();
        let pids = self.group.page.pids();
        let frame = Frame::Started {
            process_pid: started.pid,
            pump_pid: nix::unistd::getpid().as_raw(),
            daemon_pid: pids.daemon,
        };
        // The daemon first: it takes a parent that is gone before that for one that gave up.
        self.tell(&frame);
        if let Some(mut parent) = self.parent.take() {
            parent.send(&frame);
        }
        if self.group.launch.strategy == Strategy::Unattached {
            // The parent has its answer: it is free to go.
            self.link = None;
        }
        for client in std::mem::take(&mut self.restarting) {
            self.server.answer(client, Ok(()));
        }
    }

    fn tell_exited(&mut self) {
        let page = self.group.page;
        let exit = self.dead.unwrap_or(Exit { code: Some(i32::from(self.last_status)), ..Exit::default() });
        self.mail.command(Command::Exited {
            process_pid: self.process.map_or(0, |process| process.pid),
            exit,
            ran: self.process.map_or(Duration::ZERO, |process| process.at.elapsed()),
            count: u32::try_from(page.restarts()).unwrap_or(u32::MAX),
            mono_ns: clock::monotonic_ns(),
            wall_ns: clock::wall_ns(),
        });
    }

    fn reap(&mut self) {
        if let Some(process) = self.process.take() {
            family::reap(process.pid);
        }
        self.dead = None;
        self.group.page.set_member(Member::Process, 0);
    }

    fn start_daemon(&mut self) {
        use immortal_monitor_api::abi;
        let page = self.group.page;
        page.set_why(abi::WHY_DAEMON_RESTART, 0);
        page.count_restart(Member::Daemon);
        page.count_restart(Member::Pump);
        let result = fd::pipe().and_then(|(reader, writer)| {
            // The writing end closes when this process is gone, and only then may the streams be read again.
            std::mem::forget(writer);
            let descriptors = vec![(reader.as_fd(), number::PREDECESSOR)];
            self.group.start(Role::Daemon, Extra { descriptors, stderr: None, detached: true })
        });
        if let Err(error) = result {
            log::error!("unable to start a new daemon: {error}");
        }
    }

    fn leave(&mut self, outcome: Outcome) {
        let page = self.group.page;
        log::info!("the pump leaves: {outcome:?}");
        let (status, text, hint) = self.failure.take().unwrap_or_else(|| {
            let name = &self.group.launch.name;
            (FAILED, format!("group {name}: it was stopped before the program ran"), None)
        });
        let development = self.group.launch.strategy == Strategy::Development;
        self.status = Some(match outcome {
            Outcome::StartFailed => {
                let frame = Frame::Failed { status, text, hint };
                match (&mut self.link, &mut self.parent) {
                    // The daemon passes it on when everyone is gone.
                    (Some(link), _) | (None, Some(link)) => link.send(&frame),
                    (None, None) => {}
                }
                status
            }
            Outcome::Ended => {
                self.tell(&Frame::Over { status: self.last_status });
                0
            }
            Outcome::Failed => {
                page.set_reason(&text);
                page.set_state(State::Failed, 0);
                self.tell(&Frame::Over { status: FAILED });
                FAILED
            }
            Outcome::GaveUp => {
                page.set_reason(&self.give_up_reason());
                page.set_state(State::Failed, 0);
                self.tell(&Frame::Over { status: self.last_status });
                FAILED
            }
            Outcome::Crashed | Outcome::Killed => FAILED,
            Outcome::HandedOver => 0,
        });
        let replaced = matches!(outcome, Outcome::Crashed | Outcome::Killed | Outcome::HandedOver);
        // Without an answer they ask the next pump.
        for client in std::mem::take(&mut self.restarting).into_iter().filter(|_| !replaced) {
            self.server.answer(client, Err("the group is ending".into()));
        }
        // A daemon that lives removes them when everyone is gone.
        let alone = self.group.launch.strategy != Strategy::Daemon || self.link.is_none();
        let files_go = match outcome {
            Outcome::StartFailed | Outcome::Ended => alone,
            Outcome::Failed | Outcome::GaveUp => development,
            Outcome::Crashed | Outcome::Killed | Outcome::HandedOver => false,
        };
        if files_go {
            self.group.remove_files();
        }
    }
}

/// Everything that the relay starts with.
fn relay_start(
    group: &mut Group,
    mail: &Arc<Mail>,
    environment: &[(Vec<u8>, Vec<u8>)],
) -> Result<relay::Start, RoleError> {
    let page = group.page;
    let (why, cut_bytes) = page.why();
    let message = match group.take(number::MESSAGE) {
        Some(fd) => attempt("read the message", fd::read_from_start(&fd))?,
        None => Vec::new(),
    };
    let reader = |index: usize| {
        let stream = group.streams[index].0.try_clone()?;
        fd::set_nonblocking(&stream)?;
        std::io::Result::Ok(stream)
    };
    let streams = [attempt("keep a stream", reader(0))?, attempt("keep a stream", reader(1))?];
    let sinks =
        [number::RELAY_STDOUT, number::RELAY_STDERR].map(|number| sink::Sink::new(group.take(number)));
    // In strategy daemon the descriptor is only held, so that a write to stderr never breaks.
    let held = group.take(number::CRASH);
    let launch = &group.launch;
    let crash = match launch.strategy {
        Strategy::Unattached => held.map(|fd| crash_file::CrashFile::new(fd, launch.policy.buffer_limit)),
        Strategy::Daemon | Strategy::Development => {
            std::mem::forget(held);
            None
        }
    };
    let environment = environment.iter().map(|(key, value)| [key.as_slice(), b"=", value].concat()).collect();
    Ok(relay::Start {
        mail: Arc::clone(mail),
        page,
        settings: Arc::new(launch.settings(environment)),
        monitors: launch.monitors.clone(),
        executable: role::own_executable(),
        streams,
        sinks,
        why,
        message,
        cut_bytes,
        recent: group.open_recent(),
        crash,
    })
}
