//! The pump: spawns the process, keeps it alive, and has its relay give everything to the monitors.
//!
//! This file is the main thread: it waits, turns what happened into events of the lifecycle, and carries its
//! actions out. It never waits for the relay without a deadline, so a hook that hangs cannot stop `stop`.

mod actions;
mod beginning;
mod crash_file;
mod deadline;
mod fallback;
mod intake;
mod mail;
mod offer;
mod relay;

use crate::control::{ClientId, Command, Server};
use crate::crash;
use crate::delivery::Verdict;
use crate::ending::Ending;
use crate::frames::{Frame, Link};
use crate::launch::{Limit, Strategy};
use crate::lifecycle::{Event, Lifecycle, Phase, Timer};
use crate::notify::NotifySocket;
use crate::program::Prepared;
use crate::role::{Begun, Group, RoleError, attempt};
use crate::state::Member;
use crate::sys::birth::Births;
use crate::sys::exit_status::FAILED;
use crate::sys::family::{self, Exit};
use crate::sys::poll::poll;
use crate::sys::signals::Signals;
use crate::sys::{clock, memory};
use deadline::Deadline;
use mail::{Mail, Notice};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the daemon may take to say how a kept process has ended, where this pump may not see that itself.
const EXPLANATION: Duration = Duration::from_secs(1);

/// Within what time the relay's answer to the end of the process usually comes: to sleep until then, and to be woken,
/// takes about as long.
const SOON: Duration = Duration::from_micros(100);

/// Runs the pump until it leaves. It leaves the process too: exit handlers of loaded libraries are not trusted.
///
/// # Errors
/// It could not even begin.
pub(crate) fn run(begun: Begun) -> Result<std::convert::Infallible, RoleError> {
    // It is there before there is anything for it to do: one that waits for its descriptors has the time.
    let relay = attempt("start the relay", relay::start_thread())?;
    let mut pump = begin(begun, &relay)?;
    let status = pump.live();
    // Open to the very end: the daemon kills a pump whose link is closed, and this one is to have its own exit status.
    std::mem::forget(pump.link.take());
    drop(pump);
    family::leave(status)
}

/// Kept apart and off the stack, so that what a start needs of it is not in use for the pump's whole life.
#[inline(never)]
fn begin(begun: Begun, relay: &relay::Thread) -> Result<Box<Pump>, RoleError> {
    Ok(Box::new(Pump::begin(*begun.join()?, relay)?))
}

/// A process that was started.
#[derive(Debug, Clone, Copy)]
struct Started {
    pid: i32,
    at: Instant,
}

struct Pump {
    group: Group,
    began: Instant,
    lifecycle: Lifecycle,
    prepared: Prepared,
    stdin: OwnedFd,
    /// Development: the parent shows the output.
    relays: bool,
    mail: Arc<Mail>,
    signals: Signals,
    server: Server,
    link: Option<Link>,
    /// Strategy daemon: to the parent, until it has its answer.
    parent: Option<Link>,
    /// `--ready notify`: where the process says that it is ready.
    notify_socket: Option<NotifySocket>,
    timers: [Option<Instant>; Timer::ALL.len()],
    /// `--hook-timeout`, until a hook has failed.
    deadline: Option<Deadline>,
    /// The process, from its start until it is reaped.
    process: Option<Started>,
    births: Births,
    /// Gets readable when the process ends, and knows how it ended, whoever reaps it: until it is reaped.
    watch: Option<OwnedFd>,
    /// The process is not this pump's child: an earlier pump started it, and it was kept.
    adopted: bool,
    /// Since when it is known that the process has ended, if it is not known how.
    unexplained: Option<Instant>,
    /// Limits of the process: those it was started with, and what the caller had of those that this role has raised.
    limits: Vec<Limit>,
    /// Mask of this role, and of the process if it was started without one, whatever a monitor makes of it.
    umask: nix::sys::stat::Mode,
    /// Limit of file sizes of this role, where it was raised for the spool.
    file_size: Option<u64>,
    /// How the process ended, from its death until it is reaped.
    dead: Option<Exit>,
    ending: Ending,
    events: VecDeque<Event>,
    /// The process was executed before, by this pump or one before it.
    executed: bool,
    /// Whoever started this pump knows that the process runs.
    reported: bool,
    /// Clients that wait for the new process.
    restarting: Vec<ClientId>,
    /// Clients that asked for the end; they are answered when it is under way. One that is not, because this pump
    /// left before it came to that, asks the next one.
    stopping: Vec<ClientId>,
    /// Clients that wait for the daemon's answer to their request for a reload.
    reloading: Vec<(u64, ClientId)>,
    /// Who is to blame, should this pump leave.
    verdict: Verdict,
    /// Exit status, text and hint of why this pump ends.
    failure: Option<(u8, String, Option<String>)>,
    /// The same of the last attempt to get the process running, until one succeeds.
    not_running: Option<(u8, String, Option<String>)>,
    last_status: u8,
    status: Option<u8>,
}

impl Pump {
    /// Lives until it is time to leave; returns the exit status.
    fn live(&mut self) -> u8 {
        loop {
            while let Some(event) = self.events.pop_front() {
                log::debug!("{event:?} while {:?}", self.lifecycle.phase());
                let actions = self.lifecycle.step(event);
                self.group.page.set_unstable(self.lifecycle.unstable());
                self.group.page.set_held(self.lifecycle.is_held());
                if self.lifecycle.wants_restart() {
                    self.group.page.set_restart_wanted(true);
                }
                if self.lifecycle.wants_end() {
                    self.group.page.set_stop_wanted();
                }
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
    #[inline(never)]
    fn wait(&mut self) {
        let timeout = self.timeout();
        let mut fds = vec![
            PollFd::new(self.mail.main.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.link.as_ref().map(|link| PollFd::new(link.as_fd(), PollFlags::POLLIN)));
        let watch = self.watch.as_ref().filter(|_| self.awaits_end() && self.unexplained.is_none());
        fds.extend(watch.map(|watch| PollFd::new(watch.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.server.poll_fds(true));
        fds.extend(self.notify_socket.as_ref().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        if self.lifecycle.phase() == Phase::Delivering {
            self.await_relay();
        } else if timeout.is_none() {
            memory::trim_stack();
        }
        if let Err(error) = poll(&mut fds, timeout) {
            drop(fds);
            return self.break_down(&error);
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| fd.any() == Some(true));
        let readiness =
            fds.last().filter(|_| self.notify_socket.is_some()).is_some_and(|fd| fd.any() == Some(true));
        let (mail, signal, link) = (ready(0), ready(1), self.link.is_some() && ready(2));
        let behind_link = 2 + usize::from(self.link.is_some());
        let ended = watch.is_some() && ready(behind_link);
        let behind_watch = behind_link + usize::from(watch.is_some());
        let clients = fds[behind_watch..].iter().any(|fd| fd.any() == Some(true));
        drop(fds);
        if mail {
            self.mail.main.clear();
            self.watch_hooks();
        }
        self.take_notices();
        if signal {
            self.take_signals();
        }
        // The signal may have told it already.
        let ended = ended && self.dead.is_none();
        if ended || self.ending.is_pending() || self.is_blind() {
            self.take_children();
        }
        if link {
            self.take_frames();
        }
        if clients {
            self.take_commands();
        }
        if readiness {
            self.take_readiness();
        }
        self.take_timers();
        self.look_at_hooks();
        self.look_at_ending();
    }

    /// Waits a moment for the relay's answer without sleeping.
    fn await_relay(&self) {
        let until = Instant::now() + SOON;
        while !self.mail.has_notice() && Instant::now() < until {
            std::thread::yield_now();
        }
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
        let look = self.deadline.as_ref().and_then(Deadline::next);
        let next = self.timers.iter().copied().chain([look]).flatten().min();
        let polling = (self.ending.is_pending() || self.is_blind()).then_some(Duration::from_millis(20));
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
                Notice::Unrelayed if self.group.launch.strategy == Strategy::Development => {
                    self.tell(&Frame::Unrelayed);
                }
                Notice::Unrelayed => {}
                Notice::Finished => self.events.push_back(Event::Finished),
                Notice::Restart => self.events.push_back(Event::RestartAsked),
                Notice::Shutdown => self.events.push_back(Event::ShutdownAsked),
                Notice::Failed { text, hint, verdict } => self.hook_failed(text, hint, verdict),
            }
        }
    }

    /// The text goes to stderr whole: it is what the next monitors are told.
    fn hook_failed(&mut self, text: String, hint: Option<String>, verdict: Verdict) {
        use std::io::Write;
        if let Err(error) = writeln!(std::io::stderr(), "{text}") {
            log::debug!("writing to stderr: {error}");
        }
        self.failure.get_or_insert((FAILED, text, hint));
        if self.verdict == Verdict::Other {
            self.verdict = verdict;
        }
        self.deadline = None;
        self.events.push_back(Event::HookFailed);
    }

    /// The relay goes on after a rest: its hooks are to be looked at again.
    fn watch_hooks(&mut self) {
        if let Some(deadline) = &mut self.deadline
            && deadline.next().is_none()
            && self.mail.is_watched()
        {
            deadline.arm(Instant::now());
        }
    }

    /// Ends this pump if a hook takes too long.
    fn look_at_hooks(&mut self) {
        let Some(deadline) = &mut self.deadline else { return };
        let now = Instant::now();
        if deadline.next().is_none_or(|at| at > now) {
            return;
        }
        if self.mail.leave_resting() {
            return deadline.disarm();
        }
        let delivery = self.group.page.delivery();
        // In this order: a hook that returned in between is not counted for the next one.
        let in_hook = delivery.in_hook();
        if !deadline.look(now, delivery.calls(), in_hook) {
            return;
        }
        let Some(late) = in_hook else { return };
        let label = crash::label_of(&self.group.launch.monitors, late.monitor);
        let (hook, within) = (late.hook.name(), deadline.within());
        let text = format!("monitor {label}: {hook} did not return within {within:?} (--hook-timeout)");
        self.hook_failed(text, None, Verdict::Late(late));
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
            && self.awaits_end()
            && let Some(exit) = self.end_of_process(started.pid)
        {
            self.process_died(started, exit);
            // Who else is there is looked at when its output is delivered, which can begin now.
            return;
        }
        if self.dead.is_some() {
            for child in family::children() {
                if self.process.is_none_or(|process| process.pid != child) && family::peek(child).is_some() {
                    family::reap(child);
                }
            }
        } else {
            self.reap_strangers();
        }
    }

    /// Reaps adopted strangers, unless the process has ended: then they are seen to with it.
    fn reap_strangers(&self) {
        while let Some((child, _)) = family::peek_any() {
            if self.process.is_some_and(|process| process.pid == child) || family::reap(child).is_none() {
                break;
            }
        }
    }

    /// Whether the process is dead and no child of this pump lives: then nobody descends from it, for what a dead one
    /// had forked comes to the pump.
    fn dead_is_alone(&self) -> bool {
        self.process.is_some() && self.dead.is_some() && !self.adopted && !family::has_living_children()
    }

    /// Whether a process is there whose end is news. A kept one may be dead already: that is looked at when the monitors
    /// are ready; and that of a pump that yields is for the next one.
    fn awaits_end(&self) -> bool {
        let is_ours =
            !matches!(self.lifecycle.phase(), Phase::Preparing | Phase::Yielding | Phase::StandingBy);
        self.process.is_some() && self.dead.is_none() && is_ours
    }

    /// Whether nobody tells of the end of the process: it is no child of this pump, and was gone before it could be
    /// watched, or the system has no pidfds. Or it has ended, and how is not known yet.
    fn is_blind(&self) -> bool {
        self.adopted && (self.watch.is_none() || self.unexplained.is_some()) && self.awaits_end()
    }

    fn end_of_process(&mut self, pid: i32) -> Option<Exit> {
        if !self.adopted {
            return family::end_of(pid);
        }
        let page = self.group.page;
        let end = family::end_of_stranger(pid, page.started(Member::Process), self.watch.as_ref())?;
        if let Some(exit) = end.or_else(|| page.noted_end(pid)) {
            return Some(exit);
        }
        // The daemon, or init, is its parent and has not got to it yet. Or nobody knows.
        let since = *self.unexplained.get_or_insert_with(Instant::now);
        (since.elapsed() > EXPLANATION).then(Exit::default)
    }

    fn process_died(&mut self, started: Started, exit: Exit) {
        let ran = started.at.elapsed();
        self.note_exit(exit);
        self.dead = Some(exit);
        log::info!("process {} ended: {exit:?}", started.pid);
        if self.timers[Timer::Ready as usize].is_some() {
            let text = "the program: it ended before it said READY=1";
            let by_itself = self.lifecycle.phase() == Phase::Running;
            if by_itself {
                self.refuse_restarts(text);
            }
            if by_itself || !self.group.page.group_started() {
                self.could_not_run(FAILED, text);
            }
        }
        let jitter = u16::try_from(clock::monotonic_ns() / 1000 % 201).unwrap_or(0);
        self.events.push_back(Event::ProcessDied { ran, success: exit.code == Some(0), jitter });
    }

    /// Keeps why the process does not run. A start fails of the first reason, whatever goes wrong after it.
    fn could_not_run(&mut self, status: u8, text: &str) {
        let why = (status, text.to_owned(), None);
        if !self.group.page.group_started() {
            self.failure.get_or_insert_with(|| why.clone());
        }
        self.not_running = Some(why);
        if !self.lifecycle.is_ending() {
            self.group.page.set_reason(text);
        }
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
                Frame::Yield => self.events.push_back(Event::YieldAsked),
                Frame::Dismissed => self.events.push_back(Event::Dismissed),
                Frame::ReloadAnswer { id, refusal } => {
                    let answer = refusal.map_or(Ok(()), Err);
                    for (_, client) in self.reloading.extract_if(.., |(asked, _)| *asked == id) {
                        self.server.answer(client, answer.clone());
                    }
                }
                Frame::Started { .. }
                | Frame::Failed { .. }
                | Frame::Ending
                | Frame::GivingUp { .. }
                | Frame::Reap { .. }
                | Frame::Reload { .. }
                | Frame::Ready
                | Frame::Yielded
                | Frame::Unrelayed
                | Frame::Over { .. } => {}
            }
        }
        if gone {
            self.link = None;
            if self.lifecycle.phase() == Phase::StandingBy && self.has_successor() {
                // The daemon died before it could say so; the other pump becomes the daemon.
                return self.events.push_back(Event::Dismissed);
            }
            if self.group.launch.strategy == Strategy::Daemon {
                self.note_daemons_death();
            }
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

    /// Whether another pump was started in this one's place: its number is on the page before it begins.
    fn has_successor(&self) -> bool {
        let pump = self.group.page.pids().pump;
        pump != 0 && pump != nix::unistd::getpid().as_raw()
    }

    /// The process and what descends from it may say that it is ready. A helper that is gone already cannot be
    /// looked up any more; its user must be one that may stop the group anyway.
    fn take_readiness(&mut self) {
        let (Some(notify_socket), Some(process)) = (&self.notify_socket, self.process) else { return };
        let of_program = self.group.launch.program.identity.as_ref().map(|identity| identity.uid);
        let own = nix::unistd::geteuid().as_raw();
        let is_ours = |pid, uid| {
            pid == process.pid
                || family::descendants().contains(&pid)
                || (!family::runs(pid, 0) && (uid == 0 || uid == own || Some(uid) == of_program))
        };
        if notify_socket.receive_ready(is_ours) {
            self.events.push_back(Event::Ready);
        }
    }

    fn take_commands(&mut self) {
        for (client, command) in self.server.take(true) {
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
                    self.server.answer_arguments(client, self.arguments());
                }
                Command::Reload(request) => match request.open() {
                    Ok(setup) if self.group.launch.strategy == Strategy::Daemon => {
                        self.reloading.push((request.id, client));
                        self.tell(&Frame::Reload { id: request.id, setup });
                    }
                    Ok(_) => self.server.answer(client, Err("it has no daemon".into())),
                    Err(why) => self.server.answer(client, Err(why)),
                },
                Command::Restart if self.lifecycle.is_ending() => {
                    self.server.answer(client, Err("the group is ending".into()));
                }
                Command::Restart => {
                    self.restarting.push(client);
                    self.events.push_back(Event::RestartAsked);
                }
            }
        }
    }

    /// Those of the `start` that makes this group.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = self.group.launch.arguments();
        if self.group.launch.strategy == Strategy::Development && !self.relays {
            arguments.insert(1, "--no-relay".into());
        }
        arguments
    }

    /// Sends a signal to the process alone, whose number is taken as long as it is not reaped.
    fn signal_process(&self, signal: i32) -> Result<(), String> {
        match self.process {
            Some(process) if self.dead.is_none() && self.is_there(process.pid) => {
                let sent = family::try_signal(process.pid, signal);
                sent.map_err(|error| format!("signal {signal} cannot be sent: {error}"))
            }
            Some(_) | None => Err("no process runs at the moment".into()),
        }
    }

    /// Whether this pid is still the process's: a kept one may be dead, and not even a child of the daemon.
    fn is_there(&self, pid: i32) -> bool {
        !self.adopted || family::runs(pid, self.group.page.started(Member::Process))
    }

    fn take_timers(&mut self) {
        let now = Instant::now();
        for timer in Timer::ALL {
            if self.timers[timer as usize].is_some_and(|at| at <= now) {
                self.timers[timer as usize] = None;
                // Ready at the last moment is ready.
                if timer == Timer::Setup && self.events.contains(&Event::MonitorsReady) {
                    continue;
                }
                if timer == Timer::Setup && !self.lifecycle.is_ending() {
                    let timeout = self.group.launch.policy.setup_timeout;
                    let (who, verdict) = self.unready();
                    let text = format!("{who} not ready within {timeout:?} (--setup-timeout)");
                    self.hook_failed(text, None, verdict);
                } else {
                    if timer == Timer::Ready {
                        let timeout = self.group.launch.policy.ready_within.unwrap_or_default();
                        let text = format!(
                            "the program: it did not say READY=1 within {timeout:?} (--ready-timeout)"
                        );
                        log::error!("{text}");
                        self.refuse_restarts(&text);
                        self.could_not_run(FAILED, &text);
                    }
                    self.events.push_back(Event::Elapsed(timer));
                }
            }
        }
    }

    /// Which monitors are not ready, and who is to blame for that.
    fn unready(&self) -> (String, Verdict) {
        let label = |index: usize| crash::label_of(&self.group.launch.monitors, index);
        let was = |index: usize| format!("monitor {}: it was", label(index));
        match (self.group.page.delivery().in_hook(), &self.mail.unready()[..]) {
            (Some(late), _) => (was(late.monitor), Verdict::Late(late)),
            (_, [index]) => (was(*index), Verdict::Monitor(*index)),
            (_, []) => ("the monitors were".to_owned(), Verdict::Other),
            (_, several) => {
                let labels: Vec<_> = several.iter().map(|index| label(*index)).collect();
                (format!("monitors {}: they were", labels.join(", ")), Verdict::Other)
            }
        }
    }

    fn look_at_ending(&mut self) {
        let everyone = self.ending.is_for_everyone();
        if self.ending.is_over(self.process.map(|process| process.pid)) {
            self.events.push_back(Event::Cleared { everyone });
        }
    }
}
