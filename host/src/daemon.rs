//! The daemon: keeps the pump alive and holds what must outlive it.
//!
//! No plugin, one thread. It is a subreaper: when the pump dies, the process becomes its child, so that its end
//! is known and its number cannot pass to another process before it is ended.

mod aside;
mod blame;
mod faults;
mod left;
mod life;
mod pumps;
mod reload;
mod tail;

use crate::control::{ClientId, Command, Server};
use crate::crash;
use crate::ending::Ending;
use crate::frames::{Frame, Link};
use crate::launch::number;
use crate::role::{Begun, Group, RoleError, attempt};
use crate::state::{Member, State};
use crate::sys::exit_status::FAILED;
use crate::sys::file_watch::FileWatch;
use crate::sys::poll::poll;
use crate::sys::signals::Signals;
use crate::sys::{clock, family, fd, memory};
use aside::Aside;
use faults::Faults;
use life::{Action, Event, Life, Outcome, Phase, Timer};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use reload::{Asker, Found, Proposal};
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use tail::Tail;

/// Runs the daemon until it leaves. Its first pump may be a copy of it that does `copy` to live.
///
/// # Errors
/// It could not even begin.
pub(crate) fn run(begun: Begun, copy: fn() -> u8) -> Result<u8, RoleError> {
    Ok(begin(begun, copy)?.live())
}

/// Kept apart and off the stack, so that what a start needs of it is not in use for the daemon's whole life.
#[inline(never)]
fn begin(begun: Begun, copy: fn() -> u8) -> Result<Box<Daemon>, RoleError> {
    Ok(Box::new(Daemon::begin(*begun.join()?, copy)?))
}

/// The pump that lives.
struct Pump {
    pid: i32,
    link: Link,
    since: Instant,
    /// It says that its monitors are ready.
    is_ready: bool,
}

struct Daemon {
    group: Group,
    life: Life,
    signals: Signals,
    server: Server,
    /// To the parent, until it has its answer.
    parent: Option<Link>,
    /// Closes when the pump that executed this daemon has ended.
    predecessor: Option<OwnedFd>,
    pump: Option<Pump>,
    /// A pump that has yielded, until another one is there.
    standby: Option<Pump>,
    /// Stderr of the pumps: the writing end is for them.
    stderr: (OwnedFd, OwnedFd),
    tail: Tail,
    timers: [Option<Instant>; Timer::ALL.len()],
    ending: Ending,
    sweeping: bool,
    /// This daemon has started a pump before.
    spawned: bool,
    /// What a copy of this process does to be the first pump.
    copy: Option<fn() -> u8>,
    /// The process that the dead pump left.
    process: i32,
    /// With `keep`: its pidfd, which knows how it ended whoever reaps it.
    watch: Option<OwnedFd>,
    events: VecDeque<Event>,
    restarting: Vec<ClientId>,
    /// Pumps in a row that have not got ready while somebody waited for it.
    missed: u32,
    /// Clients that asked for the end; they are answered when it is under way. One that is not, because this
    /// daemon left before it came to that, asks the next one.
    stopping: Vec<ClientId>,
    /// What monitors have done to pumps.
    faults: Faults,
    /// Monitors that are set aside.
    aside: Aside,
    /// Tells of new files where theirs are.
    aside_watch: Option<FileWatch>,
    failure: Option<Frame>,
    /// The last that a pump said, or how it ended.
    last_words: String,
    /// What a reload wants.
    proposal: Option<Proposal>,
    /// What this daemon is to be executed from as soon as it can, and every pump is.
    renewal: Option<OwnedFd>,
    /// Why the pump gave up.
    reason: Option<String>,
    status: Option<u8>,
}

impl Daemon {
    fn begin(mut group: Group, copy: fn() -> u8) -> Result<Self, RoleError> {
        attempt("become a subreaper", family::become_subreaper())?;
        group.page.set_own(Member::Daemon);
        group.page.complete(Member::Daemon);
        let signals = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
        let signals = attempt("watch signals", Signals::watch(&signals))?;
        let listener = match &group.listener {
            Some(listener) => Some(attempt("keep the control socket", listener.try_clone())?),
            None => None,
        };
        let parent = match group.take(number::LINK) {
            Some(fd) => Some(attempt("keep the link", Link::new(fd))?),
            None => None,
        };
        let predecessor = group.take(number::PREDECESSOR);
        if group.page.group_started() {
            // Another one was the daemon before.
            crate::notify::tell_manager(&format!("MAINPID={}", nix::unistd::getpid()));
        }
        crate::reload::hand_back(&mut group);
        let policy = group.launch.policy.clone();
        let (life, actions, stderr, pump) = match Found::take(&mut group)? {
            Some(Found { pump, stderr }) => (Life::renewed(policy.clone()), Vec::new(), stderr, Some(pump)),
            None => {
                let group_started = group.page.group_started();
                let (life, actions) = Life::new(policy.clone(), group_started, predecessor.is_some());
                (life, actions, attempt("make a pipe", fd::pipe())?, None)
            }
        };
        attempt("make a pipe", fd::set_nonblocking(&stderr.0))?;
        let (process, watch) = match group.launch.policy.keeps() {
            true => (group.page.pids().process, group.process.take()),
            false => (0, None),
        };
        let faults = Faults::new(policy.monitor_crashes, policy.monitor_window);
        let mut daemon = Self {
            life,
            signals,
            server: Server::new(listener),
            parent,
            predecessor,
            spawned: pump.is_some(),
            copy: pump.is_none().then_some(copy),
            pump,
            standby: None,
            stderr,
            tail: Tail::new(policy.buffer_limit),
            timers: [None; Timer::ALL.len()],
            ending: Ending::new(policy.stop_signal),
            sweeping: false,
            process,
            watch,
            events: VecDeque::new(),
            restarting: Vec::new(),
            missed: 0,
            stopping: Vec::new(),
            faults,
            aside: Aside::new(),
            aside_watch: None,
            failure: None,
            last_words: String::new(),
            proposal: None,
            renewal: None,
            reason: None,
            status: None,
            group,
        };
        daemon.keep_process();
        daemon.find_reload();
        daemon.remember_aside();
        daemon.hear_of_the_end();
        daemon.carry_out(actions);
        // Of a pump that was there before this daemon the end may have been told already.
        daemon.take_children();
        Ok(daemon)
    }

    fn live(&mut self) -> u8 {
        loop {
            while let Some(event) = self.events.pop_front() {
                log::debug!("{event:?} while {:?}", self.life.phase());
                self.life.set_unstable(self.group.page.unstable());
                let actions = self.life.step(event);
                if self.life.is_stopping() {
                    self.group.page.set_stop_wanted();
                }
                if self.life.phase() != Phase::Up || !actions.is_empty() {
                    self.group.page.set_unstable(self.life.unstable());
                }
                self.carry_out(actions);
                if let Some(status) = self.status {
                    return status;
                }
            }
            for client in std::mem::take(&mut self.stopping) {
                self.server.answer(client, Ok(()));
            }
            self.renew();
            if let Some(status) = self.status {
                return status;
            }
            self.wait();
        }
    }

    #[inline(never)]
    fn wait(&mut self) {
        // Only while no pump is there to serve them.
        let accepting = self.pump.is_none();
        let timeout = self.timeout();
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stderr.0.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.parent.as_ref().map(|link| PollFd::new(link.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.pump.as_ref().map(|pump| PollFd::new(pump.link.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.predecessor.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.aside_watch.as_ref().map(|watch| PollFd::new(watch.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.server.poll_fds(accepting));
        if timeout.is_none() {
            memory::trim_heap();
            memory::trim_stack();
        }
        if let Err(error) = poll(&mut fds, timeout) {
            // This daemon ends like one that crashed, and the pump has a new one.
            log::error!("waiting for events: {error}");
            self.status = Some(FAILED);
            return;
        }
        drop(fds);
        self.take_stderr();
        self.take_parent();
        self.take_pump_frames();
        self.take_predecessor();
        self.take_new_files();
        self.take_signals();
        self.take_commands(accepting);
        self.take_timers();
        self.look_at_sweep();
    }

    fn timeout(&self) -> PollTimeout {
        let next = self.timers.iter().flatten().min();
        let wait = next.map(|at| at.saturating_duration_since(Instant::now()));
        let polls = self.sweeping && (self.ending.is_pending() || !family::is_child(self.process));
        let wait = wait.into_iter().chain(polls.then_some(Duration::from_millis(20))).min();
        wait.map_or(PollTimeout::NONE, |wait| {
            PollTimeout::try_from(wait.saturating_add(Duration::from_micros(999))).unwrap_or(PollTimeout::MAX)
        })
    }

    fn take_stderr(&mut self) {
        let waiting = fd::waiting(&self.stderr.0).unwrap_or(usize::MAX);
        if waiting == 0 {
            return;
        }
        // Not on the stack, which is as deep for ever as it was once.
        let mut chunk = vec![0; waiting.clamp(4096, 16 * 1024)];
        let mut flooded = false;
        // Bounded, so that a flood cannot keep the daemon from everything else.
        for _ in 0..64 {
            match nix::unistd::read(&self.stderr.0, &mut chunk) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(count) => flooded |= self.tail.add(&chunk[..count], Instant::now()),
                Err(Errno::EINTR) => {}
                Err(error) => {
                    log::error!("reading the pump's stderr: {error}");
                    break;
                }
            }
        }
        if flooded {
            self.events.push_back(Event::Flooded);
        }
    }

    fn take_parent(&mut self) {
        let Some(parent) = &mut self.parent else { return };
        let (frames, gone) = parent.receive();
        if gone {
            // A parent that has its answer from the pump is free to go. This daemon was told before it was.
            self.take_pump_frames();
            if self.parent.is_none() {
                return;
            }
        }
        if gone || frames.iter().any(|frame| matches!(frame, Frame::Stop | Frame::Kill)) {
            self.parent = None;
            self.events.push_back(Event::ShutdownAsked);
        }
    }

    fn take_pump_frames(&mut self) {
        let Some(pump) = &mut self.pump else { return };
        let (frames, gone) = pump.link.receive();
        if gone {
            // It is dying, or something in it has closed what it needs: it is of no use any more.
            family::signal(pump.pid, libc::SIGKILL);
        }
        for frame in frames {
            match frame {
                Frame::Started { .. } => self.started(&frame),
                Frame::Failed { .. } => self.failure = Some(frame),
                Frame::Ending => self.events.push_back(Event::PumpEnds),
                Frame::Terminated => self.events.push_back(Event::PumpTerminated),
                Frame::GivingUp { reason } => {
                    self.reason = Some(reason);
                    self.events.push_back(Event::PumpGivesUp);
                }
                Frame::Reap { process_pid } => self.reap(process_pid),
                Frame::Reload { id, setup } => self.take_reload(Asker::Pump, id, setup),
                Frame::Ready => {
                    self.pump.iter_mut().for_each(|pump| pump.is_ready = true);
                    self.end_restoring();
                    self.events.push_back(Event::PumpReady);
                }
                Frame::Yielded => self.stand_by(),
                Frame::Over { .. }
                | Frame::Stop
                | Frame::Kill
                | Frame::ReloadAnswer { .. }
                | Frame::Yield
                | Frame::Dismissed
                | Frame::Unrelayed => {}
            }
        }
    }

    /// A pump that is to end the group says so on the page first: it may die before this daemon, or the one before it,
    /// has heard it.
    fn hear_of_the_end(&mut self) {
        if self.group.page.stop_wanted() {
            self.events.push_back(Event::PumpEnds);
        }
    }

    /// Whether something is left that a next pump would have to finish.
    fn is_unfinished(&self) -> bool {
        self.process != 0 || self.group.page.delivery().fill() > 0
    }

    fn started(&mut self, frame: &Frame) {
        self.events.push_back(Event::Started);
        // The pump tells the parent as well, unless it has just been killed.
        if let Some(mut parent) = self.parent.take() {
            parent.send(frame);
        }
        self.missed = 0;
        for client in std::mem::take(&mut self.restarting) {
            self.server.answer(client, Ok(()));
        }
    }

    fn take_predecessor(&mut self) {
        let Some(fd) = &self.predecessor else { return };
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].any() == Some(true) {
            self.predecessor = None;
            self.events.push_back(Event::PredecessorGone);
        }
    }

    fn take_signals(&mut self) {
        let signals: Vec<Signal> = std::iter::from_fn(|| self.signals.next()).collect();
        // First, though it comes last: a daemon that is told to die leaves the group to a pump that lives.
        if signals.contains(&Signal::SIGCHLD) {
            self.take_children();
        }
        for signal in signals {
            if signal == Signal::SIGTERM {
                self.events.push_back(Event::Terminated);
            } else if matches!(signal, Signal::SIGINT | Signal::SIGHUP) {
                self.events.push_back(Event::Interrupted);
            }
        }
    }

    fn take_children(&mut self) {
        self.take_pump();
        self.note_end();
        if self.sweeping {
            for child in family::children() {
                if child != self.process && family::peek(child).is_some() {
                    family::reap(child);
                }
            }
        } else {
            // Adopted strangers only. A pump that dies is no zombie before its last thread has ended, and in that
            // moment the process may have died already and come to us: it is left for the sweep, which notes how.
            let pump = self.pump.as_ref().map(|pump| pump.pid);
            let process = self.group.page.pids().process;
            while let Some((child, _)) = family::peek_any() {
                if Some(child) == pump || child == process || family::reap(child).is_none() {
                    break;
                }
            }
        }
    }

    fn take_commands(&mut self, accepting: bool) {
        for (client, command) in self.server.take(accepting) {
            match command {
                Command::Stop => {
                    self.stopping.push(client);
                    self.events.push_back(Event::ShutdownAsked);
                }
                Command::Signal(signal) => {
                    let result = self.signal_process(signal);
                    self.server.answer(client, result);
                }
                Command::Arguments => {
                    self.server.answer_arguments(client, self.group.launch.arguments());
                }
                Command::Reload(request) => match request.open() {
                    Ok(setup) => self.take_reload(Asker::Client(client), request.id, setup),
                    Err(why) => self.server.answer(client, Err(why)),
                },
                Command::Restart if self.life.is_ending() => {
                    self.server.answer(client, Err("the group is ending".into()));
                }
                Command::Restart => {
                    // The next pump spawns the process even if it had ended for good, and ends one that was kept.
                    self.group.page.set_held(false);
                    if self.pump.is_none() {
                        self.group.page.set_restart_wanted(true);
                    }
                    self.restarting.push(client);
                    self.events.push_back(Event::RestartAsked);
                }
            }
        }
    }

    /// Sends a signal to a process that was kept; otherwise there is none while the pump is being replaced.
    fn signal_process(&self, signal: i32) -> Result<(), String> {
        if self.process == 0 || !self.group.launch.policy.keeps() || self.process_is_gone() {
            return Err("the pump is being replaced, no process runs at the moment".into());
        }
        let sent = family::try_signal(self.process, signal);
        sent.map_err(|error| format!("signal {signal} cannot be sent: {error}"))
    }

    fn take_timers(&mut self) {
        let now = Instant::now();
        for timer in Timer::ALL {
            if self.timers[timer as usize].is_some_and(|at| at <= now) {
                self.timers[timer as usize] = None;
                self.events.push_back(Event::Elapsed(timer));
            }
        }
    }

    #[inline(never)]
    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            log::debug!("{action:?}");
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::SpawnPump => self.spawn_pump(),
            Action::KillPump => {
                if let Some(pump) = &self.pump {
                    log::warn!("the pump floods its stderr or hangs: it is killed");
                    family::signal(pump.pid, libc::SIGKILL);
                }
            }
            Action::StopPump => self.tell_pump(&Frame::Stop),
            Action::AnnounceTerm => self.tell_pump(&Frame::Terminated),
            Action::Sweep => self.sweep(),
            Action::Kill => {
                self.group.page.set_killed();
                self.ending.kill((self.process != 0).then_some(self.process));
            }
            Action::Arm(timer, span) => self.timers[timer as usize] = Instant::now().checked_add(span),
            Action::Disarm(timer) => self.timers[timer as usize] = None,
            Action::State(state) => self.set_state(state),
            Action::AcceptReload => self.accept_reload(),
            Action::RefuseReload => self.refuse_reload(),
            Action::YieldPump => self.tell_pump(&Frame::Yield),
            Action::Replace => self.replace(),
            Action::Settle => self.settle_reload(),
            Action::Restore => self.restore(),
            Action::AbandonReload => self.abandon_reload(),
            Action::Leave(outcome) => self.leave(outcome),
        }
    }

    fn tell_pump(&mut self, frame: &Frame) {
        if let Some(pump) = &mut self.pump {
            pump.link.send(frame);
        }
    }

    fn set_state(&self, state: State) {
        let wait =
            self.timers[Timer::Backoff as usize].map(|at| at.saturating_duration_since(Instant::now()));
        let wait_ns = wait.map_or(0, |wait| u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        let next = if state == State::Backoff { clock::wall_ns().saturating_add(wait_ns) } else { 0 };
        self.group.page.set_state(state, next);
    }

    /// Why the group has failed, with the last that the pump said.
    fn give_up_reason(&mut self) -> String {
        let most = self.group.launch.policy.max_restarts.unwrap_or(0);
        let reason = self.reason.take().unwrap_or_else(|| {
            format!(
                "gave up after {most} respawns in a row: the pump keeps dying, its monitors are the suspect"
            )
        });
        match self.tail.last_line() {
            Some(line) => format!("{reason}; the pump's last words: {line}"),
            None => reason,
        }
    }

    /// Why there is no group, where the pump could not say it.
    fn start_failure(&self) -> Frame {
        let text = match self.tail.last_line() {
            Some(line) => {
                let label = |index| crash::label_of(self.monitors(), index);
                let in_hook = self.group.page.delivery().in_hook();
                format!("the pump died: {}", crash::with_hook(&line, in_hook, label))
            }
            None => self.last_words.clone(),
        };
        Frame::Failed { status: FAILED, text, hint: None }
    }

    fn leave(&mut self, outcome: Outcome) {
        log::info!("the daemon leaves: {outcome:?}");
        match outcome {
            Outcome::StartFailed => {
                let frame = self.failure.take().unwrap_or_else(|| self.start_failure());
                if let Some(parent) = &mut self.parent {
                    parent.send(&frame);
                }
                self.group.remove_files();
            }
            Outcome::Ended => self.group.remove_files(),
            Outcome::GaveUp => {
                let page = self.group.page;
                page.set_reason(&self.give_up_reason());
                page.set_state(State::Failed, 0);
            }
            Outcome::Killed => {}
        }
        self.status = Some(if outcome == Outcome::Ended { 0 } else { FAILED });
    }
}

/// 0 to 200 per mille, from the low digits of the clock.
fn jitter() -> u16 {
    u16::try_from(clock::monotonic_ns() / 1000 % 201).unwrap_or(0)
}
