//! One pump after another: how the next is started and told why, and what is noted of the last.

use super::blame::{self, Culprit};
use super::{Daemon, Event, Pump, jitter};
use crate::crash::{self, Crash};
use crate::delivery::{Hook, Verdict};
use crate::frames::Link;
use crate::launch::number;
use crate::loader;
use crate::role::{Extra, Role};
use crate::state::{Member, ReloadState};
use crate::sys::exit_status::FAILED;
use crate::sys::{family, fd, socket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How many pumps in a row have to fail to get ready before a restart that waits for one is refused.
const MOST_MISSED: u32 = 2;

impl Daemon {
    pub(super) fn spawn_pump(&mut self) {
        if let Err(error) = self.try_spawn_pump() {
            log::error!("unable to start a pump: {error}");
            self.last_words = format!("unable to start a pump: {error}");
            self.miss_restarts(None);
            self.events.push_back(Event::PumpNotStarted { jitter: jitter() });
        }
    }

    fn try_spawn_pump(&mut self) -> std::io::Result<()> {
        self.take_back_changed();
        // Later ones are executed: what this one has done since need not be theirs.
        let copy = self.copy.take();
        let (message, cut_bytes) = self.tail.message();
        self.tell_why(cut_bytes);
        // A pump that does not get far enough to do it itself is not to be blamed for what was before.
        self.group.page.delivery().begin();
        let watch = self.watch.as_ref().map(|watch| (watch.as_fd(), number::PROCESS));
        let (ours, theirs) = socket::pair()?;
        let message = fd::sealed(&message)?;
        let mut descriptors = vec![
            (theirs.as_fd(), number::LINK),
            (self.stderr.0.as_fd(), number::CRASH),
            (message.as_fd(), number::MESSAGE),
        ];
        // The pump answers the parent itself: this daemon may die before it could.
        descriptors.extend(self.parent.as_ref().map(|parent| (parent.as_fd(), number::PARENT)));
        descriptors.extend(watch);
        let own;
        let mut setup = None;
        let standby = self.standby.as_ref().and_then(|standby| family::watch(standby.pid));
        descriptors.extend(standby.as_ref().map(|standby| (standby.as_fd(), number::PREDECESSOR)));
        if let Some(trial) = self.trial() {
            own = fd::open_to_execute(&self.executable())?;
            descriptors.push((self.group.launch_file(), number::BEFORE.0));
            descriptors.push((own.as_fd(), number::BEFORE.1));
            setup = Some(trial.setup());
        } else if self.renewal.is_some() {
            setup = Some((self.group.launch_file(), self.executable()));
        }
        // Later ones are executed: what this one has done since need not be theirs.
        let extra = Extra { descriptors, stderr: Some(self.stderr.1.as_fd()), detached: false, setup, copy };
        let pid = self.group.start(Role::Pump, extra)?;
        log::info!("pump {pid} is started");
        self.dismiss();
        self.tail.clear();
        self.pump = Some(Pump { pid, link: Link::new(ours)?, since: Instant::now(), is_ready: false });
        Ok(())
    }

    /// Why there is a new pump, for its monitors.
    fn tell_why(&mut self, cut_bytes: u64) {
        use immortal_monitor_api::abi;
        let page = self.group.page;
        let reloads = self.trial().is_some() || page.reload().1 == ReloadState::Restoring;
        let is_first = !std::mem::replace(&mut self.spawned, true);
        // The first pump of a daemon is told why the daemon was started, which is on the page already.
        if reloads || !is_first {
            page.set_why(if reloads { abi::WHY_RELOAD } else { abi::WHY_PUMP_RESTART }, cut_bytes);
            page.count_restart(Member::Pump);
        }
    }

    /// Looks whether the pump has ended.
    pub(super) fn take_pump(&mut self) {
        let Some(pump) = &self.pump else { return };
        let (pid, ran, was_ready) = (pump.pid, pump.since.elapsed(), pump.is_ready);
        let Some(exit) = family::reap(pid) else { return };
        log::info!("pump {pid} ended: {exit:?}");
        // What it said and wrote before it died comes first.
        self.take_pump_frames();
        self.take_stderr();
        if self.standby.take().is_some() {
            // It had yielded, and was not needed any more.
            return;
        }
        self.pump = None;
        self.take_process();
        self.group.page.set_member(Member::Pump, 0);
        self.last_words = self.words_of(exit);
        self.end_restoring();
        if self.life.is_yielding() && exit.code == Some(0) {
            // It has left in order: there is no crash to tell of.
            self.tail.clear();
        } else {
            let line = self.tail.last_line().unwrap_or_else(|| "it left no text".into());
            self.group.page.set_reason(&format!("the pump died: {line}"));
        }
        let blamed = blame::blame(self.group.page.delivery(), exit);
        self.note_pumps_death(pid, exit, ran, blamed);
        // One that was killed from outside has shown nothing.
        if was_ready {
            self.faults.got_ready();
        } else if blamed.is_some() || exit.code == Some(i32::from(FAILED)) {
            self.miss_restarts(blamed);
        }
        // One that is new by a reload is taken back at once.
        if let Some(culprit) = blamed
            && self.group.launch.policy.keeps()
            && self.trial().is_none()
        {
            self.take_fault(culprit, was_ready);
        }
        self.hear_of_the_end();
        let unfinished = self.is_unfinished();
        self.events.push_back(Event::PumpDied { ran, jitter: jitter(), unfinished });
    }

    /// A pump has not got ready, which somebody may wait for: the next one may, but whoever has waited for two in vain
    /// hears why. The group goes on trying.
    fn miss_restarts(&mut self, blamed: Option<Culprit>) {
        if self.restarting.is_empty() {
            return;
        }
        self.missed += 1;
        if self.missed < MOST_MISSED {
            return;
        }
        self.missed = 0;
        self.group.page.set_restart_wanted(false);
        let label = |index| crash::label_of(self.monitors(), index);
        let words = match blamed.filter(|_| !self.last_words.starts_with("monitor ")) {
            Some(Culprit { monitor, hook: None }) => {
                format!("monitor {}: {}", label(monitor), self.last_words)
            }
            other => crash::with_hook(&self.last_words, other.and_then(Culprit::in_hook), label),
        };
        let words = loader::one_line(&words);
        let why = format!("no pump gets ready: {}", loader::without_location(&words));
        for client in std::mem::take(&mut self.restarting) {
            self.server.answer(client, Err(why.clone()));
        }
    }

    /// Keeps how the pump died, unless it ended in order or never had a process.
    fn note_pumps_death(&mut self, pid: i32, exit: family::Exit, ran: Duration, blamed: Option<Culprit>) {
        let (page, launch) = (self.group.page, &self.group.launch);
        let monitors = self.monitors();
        let delivery = page.delivery();
        let has_left = delivery.verdict() == Verdict::Other && exit.code == Some(0);
        if !page.group_started() || has_left || self.reason.is_some() {
            return;
        }
        let label = |index: usize| crash::label_of(monitors, index);
        if let Some(Culprit { monitor, hook }) = blamed {
            let place = hook.map_or("a thread of its own", Hook::name);
            log::warn!("pump {pid} died of monitor {} in {place}", label(monitor));
        }
        let mut moment = delivery.moment();
        moment.in_hook = blamed.and_then(Culprit::in_hook).or(moment.in_hook);
        let crash = Crash::new(Role::Pump, pid, moment)
            .after(self.group.crash.as_ref(), ran >= launch.policy.stable)
            .ended(exit)
            .in_hook(moment, label)
            .by_hook(blamed.is_some_and(|culprit| culprit.hook.is_some()))
            .said(self.tail.newest());
        self.group.note_crash(crash);
    }
}
