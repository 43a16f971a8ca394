//! How a pump carries out what its lifecycle wants.

use super::mail::Command;
use super::{Pump, Started};
use crate::control::Server;
use crate::crash::{self, Crash};
use crate::delivery::{Moment, Verdict};
use crate::frames::Frame;
use crate::launch::{Strategy, number};
use crate::lifecycle::{Action, Event, FINISH_TIMEOUT, Outcome, Timer};
use crate::notify;
use crate::privileges;
use crate::role::{Extra, Role};
use crate::spool::SPOOL_BYTES;
use crate::state::{Member, ReloadState, State};
use crate::sys::birth::Birth;
use crate::sys::exit_status::FAILED;
use crate::sys::family::{self, Exit};
use crate::sys::{clock, fd, limits, spawn};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a daemon may take to end whose link is closed already. One that lives kills a pump whose link is closed.
const DAEMONS_END: Duration = Duration::from_secs(10);

impl Pump {
    #[inline(never)]
    pub(super) fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            log::debug!("{action:?}");
            self.act(action);
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        let page = self.group.page;
        let pid = self.process.map(|process| process.pid);
        match action {
            Action::Hold => self.mail.command(Command::Hold),
            Action::Read => self.mail.command(Command::Read),
            Action::Spawn => self.spawn(),
            Action::TellSpawned { respawn } => self.tell_spawned(respawn),
            Action::ReportStarted => self.report_started(),
            Action::ReportReady => {
                if self.group.before.take().is_some() {
                    // From now on a daemon that this pump becomes is one of the new set-up.
                    page.set_reload_state(ReloadState::Ready);
                }
                self.tell(&Frame::Ready);
            }
            Action::TellExited => self.tell_exited(),
            Action::Signal => self.ending.signal(pid),
            Action::Kill => {
                page.set_killed();
                self.ending.kill(pid);
            }
            Action::Clear { everyone } => {
                let alone = self.dead_is_alone();
                if !alone {
                    self.take_children();
                }
                if self.ending.clear_ended(pid, everyone, alone) {
                    self.events.push_back(Event::Cleared { everyone });
                }
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
                    // What kept it from running is over.
                    self.not_running = None;
                }
                page.set_state(state, next);
            }
            Action::AnnounceEnd => self.tell(&Frame::Ending),
            Action::ReportYielded => {
                // Whoever has asked for something and has no answer asks the daemon, or the next pump.
                self.server = Server::default();
                self.tell(&Frame::Yielded);
            }
            Action::AnnounceFailure => {
                let reason = self.give_up_reason();
                self.tell(&Frame::GivingUp { reason });
            }
            Action::AnnounceTerm => self.tell(&Frame::Terminated),
            Action::Finish => self.mail.command(Command::Finish { within: FINISH_TIMEOUT }),
            Action::StartDaemon => self.start_daemon(),
            Action::BecomeDaemon => self.become_daemon(),
            Action::Leave(outcome) => self.leave(outcome),
        }
    }

    pub(super) fn give_up_reason(&self) -> String {
        let most = self.group.launch.policy.max_restarts.unwrap_or(0);
        let status = self.last_status;
        let mut reason = format!(
            "gave up after {most} respawns in a row without a stable run; the last exit status was {status}"
        );
        if let Some((_, why, _)) = &self.not_running {
            reason.push_str(&format!(": {why}"));
        }
        reason
    }

    pub(super) fn next_attempt_ns(&self) -> u64 {
        let wait =
            self.timers[Timer::Backoff as usize].map(|at| at.saturating_duration_since(Instant::now()));
        clock::wall_ns()
            .saturating_add(wait.map_or(0, |wait| u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }

    pub(super) fn tell(&mut self, frame: &Frame) {
        if let Some(link) = &mut self.link {
            link.send(frame);
        }
    }

    pub(super) fn spawn(&mut self) {
        let page = self.group.page;
        let program = &self.group.launch.program;
        #[cfg_attr(
            target_os = "linux",
            expect(clippy::useless_conversion, reason = "a mode is u16 on macOS")
        )]
        let inherited_umask = self.umask.bits().into();
        let [stdout, stderr] = match self.writing_ends() {
            Ok(ends) => ends,
            Err(error) => return self.spawn_failed(FAILED, &format!("unable to open its streams: {error}")),
        };
        let keeps = self.group.launch.policy.keeps();
        let again = self.executed;
        // Before it runs: this pump may be killed before the next line.
        page.process_started(again);
        let environment = self.prepared.environment.c_strings().expect("it was looked through at the start");
        let birth = Birth::expect();
        let child = spawn::Child {
            candidates: &self.prepared.candidates,
            arguments: &self.prepared.arguments,
            environment: &environment,
            descriptors: vec![(self.stdin.as_fd(), 0), (stdout.as_fd(), 1), (stderr.as_fd(), 2)],
            directory: Some(&self.prepared.directory),
            identity: program.identity.as_ref(),
            limits: &self.limits,
            umask: Some(program.umask.unwrap_or(inherited_umask)),
            nice: program.nice,
            session: true,
            detached: false,
            default_signals: true,
            parent_death_signal: (!keeps).then_some(self.group.launch.policy.stop_signal),
            pid_slot: Some(page.slot(Member::Process)),
            birth: Some(&birth),
        };
        // Before: a run is never said to be shorter than it was.
        let at = Instant::now();
        match spawn::spawn(&child) {
            Ok(pid) => {
                self.process = Some(Started { pid, at });
                page.set_member_started(Member::Process, pid, self.births.started(pid, &birth));
                // Where it has this processor it is in the middle of its exec, and the rest can wait.
                std::thread::yield_now();
                self.watch = family::watch(pid);
                self.adopted = false;
                self.executed = true;
                self.events.push_front(Event::Spawned);
            }
            Err(error) => {
                if again {
                    page.process_not_started();
                }
                let mut text = error.to_string();
                if error.step == spawn::Step::Limits {
                    let asked: Vec<String> = program.limits.iter().map(privileges::show).collect();
                    text = format!("{text} ({})", asked.join(", "));
                }
                self.spawn_failed(error.status(), &text);
            }
        }
    }

    /// What the program gets as stdout and stderr. One that is kept holds a reading end as well, so that it waits
    /// rather than dies while no role is there to read.
    fn writing_ends(&self) -> std::io::Result<[OwnedFd; 2]> {
        let [(_, stdout), (_, stderr)] = &self.group.streams;
        if self.group.launch.policy.keeps() {
            return Ok([fd::both_ways(stdout)?, fd::both_ways(stderr)?]);
        }
        Ok([stdout.try_clone()?, stderr.try_clone()?])
    }

    fn spawn_failed(&mut self, status: u8, error: &str) {
        self.group.page.set_member(Member::Process, 0);
        log::error!("the program: {error}");
        self.note_exit(Exit { code: Some(i32::from(status)), signal: None, core: false });
        let file = String::from_utf8_lossy(&self.group.launch.program.file).into_owned();
        let text = format!("{file}: {error}");
        self.refuse_restarts(&text);
        self.could_not_run(status, &text);
        self.events.push_front(Event::SpawnFailed);
    }

    /// Those who wait for the new process hear why there is none; the group goes on trying.
    pub(super) fn refuse_restarts(&mut self, why: &str) {
        for client in std::mem::take(&mut self.restarting) {
            self.server.answer(client, Err(why.to_owned()));
        }
    }

    pub(super) fn tell_spawned(&mut self, respawn: bool) {
        let page = self.group.page;
        let Some(started) = self.process else { return };
        self.mail.command(Command::Spawned {
            process_pid: started.pid,
            respawn,
            count: u32::try_from(page.restarts()).unwrap_or(u32::MAX),
            mono_ns: clock::monotonic_ns(),
            wall_ns: clock::wall_ns(),
            kept: false,
        });
    }

    pub(super) fn report_started(&mut self) {
        let Some(started) = self.process else { return };
        self.group.page.set_group_started();
        // Once: a respawn is not to wake a daemon that has nothing to do about it.
        if !std::mem::replace(&mut self.reported, true) {
            self.report_first(started.pid);
        }
        for client in std::mem::take(&mut self.restarting) {
            self.server.answer(client, Ok(()));
        }
    }

    /// Answers those who wait for this pump to be there.
    fn report_first(&mut self, process_pid: i32) {
        let pump_pid = nix::unistd::getpid().as_raw();
        let frame = Frame::Started { process_pid, pump_pid, daemon_pid: self.group.page.pids().daemon };
        // The daemon first: it takes a parent that is gone before that for one that gave up.
        self.tell(&frame);
        if let Some(mut parent) = self.parent.take() {
            parent.send(&frame);
        }
        if self.group.launch.strategy == Strategy::Unattached {
            // The parent has its answer: it is free to go.
            self.link = None;
        }
    }

    pub(super) fn tell_exited(&mut self) {
        let page = self.group.page;
        let exit = self.dead.unwrap_or(Exit { code: Some(i32::from(self.last_status)), ..Exit::default() });
        self.mail.command(Command::Exited {
            process_pid: self.process.map_or(0, |process| process.pid),
            exit,
            ran: self.process.map_or(Duration::ZERO, |process| process.at.elapsed()),
            count: u32::try_from(page.restarts()).unwrap_or(u32::MAX),
            mono_ns: clock::monotonic_ns(),
            wall_ns: clock::wall_ns(),
            kept: self.adopted,
        });
    }

    pub(super) fn reap(&mut self) {
        self.dead = None;
        self.watch = None;
        self.unexplained = None;
        self.group.page.note_end(0, Exit::default());
        self.group.page.set_member(Member::Process, 0);
        // Not a moment before: with the old process still there, the next pump would take it over.
        self.group.page.set_restart_wanted(false);
        let Some(process) = self.process.take() else { return };
        if std::mem::replace(&mut self.adopted, false) {
            self.ending.leave_stranger();
            self.tell(&Frame::Reap { process_pid: process.pid });
        } else {
            family::reap(process.pid);
            self.reap_strangers();
        }
    }

    /// Nobody knows how a daemon died, for nobody is its parent.
    pub(super) fn note_daemons_death(&mut self) {
        let page = self.group.page;
        if !page.group_started() || self.lifecycle.is_ending() {
            return;
        }
        let moment = Moment { in_hook: None, ..page.delivery().moment() };
        let stable = self.began.elapsed() >= self.group.launch.policy.stable;
        let crash = Crash::new(Role::Daemon, page.pids().daemon, moment);
        let crash = crash.after(self.group.crash.as_ref(), stable).by_hook(false);
        self.group.note_crash(crash);
    }

    /// How this pump itself dies, if nobody is there to note it.
    fn note_own_death(&mut self) {
        let mut moment = self.group.page.delivery().moment();
        if let Verdict::Late(hook) = self.verdict {
            moment.in_hook = Some(hook);
        }
        let exit = Exit { code: Some(i32::from(FAILED)), ..Exit::default() };
        let crash = Crash::new(Role::Pump, nix::unistd::getpid().as_raw(), moment)
            .ended(exit)
            .in_hook(moment, |index| crash::label_of(&self.group.launch.monitors, index))
            .by_hook(matches!(self.verdict, Verdict::Hook | Verdict::Late(_)))
            .said(&self.group.last_stderr());
        self.group.note_crash(crash);
    }

    /// Executes the daemon in this process: it stays the process's parent, and the new pump is its child.
    pub(super) fn become_daemon(&mut self) {
        use immortal_monitor_api::abi;
        let page = self.group.page;
        let pid = nix::unistd::getpid().as_raw();
        let daemon = page.pids().daemon;
        if !family::is_left_by(daemon, DAEMONS_END) {
            // Somebody else's code has closed the link. With another daemon there would be two.
            return self.break_down(&std::io::Error::other(
                "the link to the daemon is broken, and the daemon lives",
            ));
        }
        let (why, cut_bytes) = page.why();
        page.set_why(abi::WHY_DAEMON_RESTART, 0);
        page.count_restart(Member::Daemon);
        page.count_restart(Member::Pump);
        page.delivery().set_verdict(Verdict::Other);
        // Until the next pump has taken the process over.
        page.set_state(State::Starting, 0);
        page.set_member(Member::Daemon, pid);
        page.set_member(Member::Pump, 0);
        nix::sys::stat::umask(self.umask);
        if let Some(soft) = self.file_size
            && let Err(error) = limits::set_file_size(soft)
        {
            log::debug!("restoring the limit of file sizes: {error}");
        }
        let watch = self.watch.as_ref().and_then(|watch| watch.try_clone().ok());
        let error = self.group.become_daemon(watch);
        log::error!("unable to become the daemon: {error}");
        if let (Some(_), Err(error)) = (self.file_size, limits::allow_files_of(SPOOL_BYTES as u64)) {
            log::debug!("raising the limit of file sizes again: {error}");
        }
        page.set_why(why, cut_bytes);
        page.set_member(Member::Daemon, daemon);
        page.set_member(Member::Pump, pid);
        // First of all: a hook that has failed meanwhile would leave the process to a daemon that is gone.
        self.events.push_front(Event::NotReplaced);
    }

    pub(super) fn start_daemon(&mut self) {
        use immortal_monitor_api::abi;
        let page = self.group.page;
        page.set_why(abi::WHY_DAEMON_RESTART, 0);
        page.count_restart(Member::Daemon);
        page.count_restart(Member::Pump);
        let result = fd::pipe().and_then(|(reader, writer)| {
            // The writing end closes when this process is gone, and only then may the streams be read again.
            std::mem::forget(writer);
            let descriptors = vec![(reader.as_fd(), number::PREDECESSOR)];
            self.group.start(Role::Daemon, Extra { descriptors, detached: true, ..Extra::default() })
        });
        if let Err(error) = result {
            let text = format!("the daemon died, and a new one could not be started: {error}");
            log::error!("{text}");
            page.set_reason(&text);
        }
    }

    pub(super) fn leave(&mut self, outcome: Outcome) {
        let page = self.group.page;
        log::info!("the pump leaves: {outcome:?}");
        match outcome {
            Outcome::Crashed => page.delivery().set_verdict(self.verdict),
            // The page is another pump's already.
            Outcome::Yielded => {}
            Outcome::StartFailed
            | Outcome::Ended
            | Outcome::Failed
            | Outcome::GaveUp
            | Outcome::Killed
            | Outcome::HandedOver => page.delivery().set_verdict(Verdict::Other),
        }
        let (status, text, hint) =
            self.failure.clone().or_else(|| self.not_running.clone()).unwrap_or_else(|| {
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
                if !development {
                    self.note_own_death();
                }
                FAILED
            }
            Outcome::GaveUp => {
                page.set_reason(&self.give_up_reason());
                page.set_state(State::Failed, 0);
                self.tell(&Frame::Over { status: self.last_status });
                FAILED
            }
            Outcome::Crashed | Outcome::Killed => FAILED,
            Outcome::HandedOver | Outcome::Yielded => 0,
        });
        let replaced =
            matches!(outcome, Outcome::Crashed | Outcome::Killed | Outcome::HandedOver | Outcome::Yielded);
        // Without an answer they ask the next pump.
        for client in std::mem::take(&mut self.restarting).into_iter().filter(|_| !replaced) {
            self.server.answer(client, Err("the group is ending".into()));
        }
        // A daemon that lives removes them when everyone is gone.
        let alone = self.group.launch.strategy != Strategy::Daemon || self.link.is_none();
        let files_go = match outcome {
            Outcome::StartFailed | Outcome::Ended => alone,
            Outcome::Failed | Outcome::GaveUp => development,
            Outcome::Crashed | Outcome::Killed | Outcome::HandedOver | Outcome::Yielded => false,
        };
        if files_go {
            self.group.remove_files();
        }
    }
}
