//! A reload, as far as the daemon carries it out: what is proposed, tried, kept or taken back.
//!
//! The new executable is tried as a pump first. Only when that one is ready this daemon executes itself from it, in
//! place and with the pump alive; should that end badly, the pump notices and becomes the daemon.

use super::aside::Aside;
use super::blame::{self, Culprit};
use super::faults::Faults;
use super::{Daemon, Event, Pump};
use crate::control::ClientId;
use crate::delivery::{Got, MOST_MONITORS};
use crate::facts;
use crate::frames::{Frame, Link};
use crate::launch::{Launch, number};
use crate::loader::Checked;
use crate::places::GroupFiles;
use crate::reload::{self, Report, Setup, heirs};
use crate::role::{Group, RoleError, attempt, own_executable};
use crate::state::ReloadState;
use crate::sys::exit_status::FAILED;
use crate::sys::family::Exit;
use crate::sys::fd;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

/// Who wants it, and so hears whether it is under way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asker {
    /// A client of this daemon.
    Client(ClientId),
    /// A client of the pump.
    Pump,
    /// This daemon: a monitor that is set aside has a new file.
    Nobody,
}

/// A set-up that may take the place of the group's own.
pub(super) struct Proposal {
    id: u64,
    asker: Asker,
    launch: Launch,
    file: OwnedFd,
    /// If it is another one than this daemon's own.
    executable: Option<OwnedFd>,
    /// While it is tried: what there was of the old set-up.
    replaced: Option<Replaced>,
}

/// What is known of monitors that are replaced, in case that they come back.
struct Replaced {
    got: Vec<Got>,
    mask: u64,
}

impl Proposal {
    /// Launch data and executable of a pump that tries it.
    pub(super) fn setup(&self) -> (BorrowedFd<'_>, PathBuf) {
        (self.file.as_fd(), self.executable.as_ref().map_or_else(own_executable, fd::path_of))
    }
}

/// The pump that a daemon finds when it begins, for it was executed in place.
pub(super) struct Found {
    pub(super) pump: Pump,
    pub(super) stderr: (OwnedFd, OwnedFd),
}

impl Found {
    pub(super) fn take(group: &mut Group) -> Result<Option<Self>, RoleError> {
        let link = group.take(number::PUMP);
        let stderr = group.take(number::PUMP_STDERR.0).zip(group.take(number::PUMP_STDERR.1));
        let (Some(link), Some(stderr)) = (link, stderr) else { return Ok(None) };
        let link = attempt("keep the link to the pump", Link::new(link))?;
        let pid = group.page.pids().pump;
        let pump = Pump { pid, link, since: Instant::now(), is_ready: true };
        Ok(Some(Self { pump, stderr }))
    }
}

impl Daemon {
    /// Looks at a request; whoever made it hears of it when it is decided.
    pub(super) fn take_reload(&mut self, asker: Asker, id: u64, setup: Setup) {
        if self.group.page.reload().0 == id {
            // It was asked before, and the answer did not arrive.
            return self.answer_reload(asker, id, None);
        }
        match self.judge(asker, id, setup) {
            Ok(proposal) => {
                self.proposal = Some(proposal);
                self.events.push_back(Event::ReloadAsked);
            }
            Err(why) => self.answer_reload(asker, id, Some(why)),
        }
    }

    fn judge(&self, asker: Asker, id: u64, setup: Setup) -> Result<Proposal, String> {
        if !self.group.launch.policy.keeps() {
            return Err("its process would not survive that: it was started without --on-crash keep".into());
        }
        if self.proposal.is_some() {
            return Err("another reload is under way".into());
        }
        if setup.monitors.len() >= MOST_MONITORS {
            return Err(format!("a group that keeps its process has fewer than {MOST_MONITORS} monitors"));
        }
        let executable = setup.executable.open()?;
        let launch = Launch { monitors: setup.monitors, ..self.group.launch.clone() };
        let file =
            fd::sealed(&launch.encode()).map_err(|error| format!("unable to hand it over: {error}"))?;
        Ok(Proposal { id, asker, launch, file, executable, replaced: None })
    }

    /// Proposes the same set-up once more: of its monitors, those that were set aside and have a new file come back.
    pub(super) fn propose_again(&mut self) {
        let launch = self.group.launch.clone();
        match fd::sealed(&launch.encode()) {
            Ok(file) => {
                let asker = Asker::Nobody;
                self.proposal =
                    Some(Proposal { id: 0, asker, launch, file, executable: None, replaced: None });
                self.events.push_back(Event::ReloadAsked);
            }
            Err(error) => log::warn!("a monitor that was set aside cannot be tried again: {error}"),
        }
    }

    fn answer_reload(&mut self, asker: Asker, id: u64, refusal: Option<String>) {
        match asker {
            Asker::Client(client) => self.server.answer(client, refusal.map_or(Ok(()), Err)),
            Asker::Pump => self.tell_pump(&Frame::ReloadAnswer { id, refusal }),
            Asker::Nobody => log::debug!("trying a new file: {refusal:?}"),
        }
    }

    pub(super) fn accept_reload(&mut self) {
        let Some(Proposal { id, asker, .. }) = self.proposal else { return };
        self.group.page.begin_reload(id);
        self.answer_reload(asker, id, None);
    }

    pub(super) fn refuse_reload(&mut self) {
        let Some(Proposal { id, asker, .. }) = self.proposal.take() else { return };
        let why =
            if self.life.is_ending() { "the group is ending" } else { "the group is only just starting" };
        self.answer_reload(asker, id, Some(why.into()));
    }

    /// The pump has yielded, and its end is of no interest any more.
    pub(super) fn stand_by(&mut self) {
        self.standby = self.pump.take();
        self.take_stderr();
        self.tail.clear();
        self.take_process();
        self.events.push_back(Event::PumpYielded { unfinished: self.is_unfinished() });
    }

    /// A pump that has yielded may leave.
    pub(super) fn dismiss(&mut self) {
        if let Some(mut standby) = self.standby.take() {
            standby.link.send(&Frame::Dismissed);
        }
    }

    /// The next pump gets the new set-up. Whatever was set aside is tried again.
    pub(super) fn replace(&mut self) {
        let changed = self.changed_aside();
        let Some(proposal) = &mut self.proposal else { return };
        let page = self.group.page;
        let got = reload::hand_over(page, &self.group.launch.monitors, &proposal.launch.monitors);
        let (mask, aside) = (page.aside(), std::mem::take(&mut self.aside));
        page.set_aside(0);
        if matches!(proposal.asker, Asker::Nobody) {
            self.aside = aside.iter().filter(|(index, _)| !changed.contains(index)).cloned().collect();
            page.set_aside(changed.iter().fold(mask, |mask, index| mask & !(1 << index)));
        }
        proposal.replaced = Some(Replaced { got, mask });
        self.watch_aside();
    }

    /// The new set-up, while it is tried.
    pub(super) fn trial(&self) -> Option<&Proposal> {
        self.proposal.as_ref().filter(|proposal| proposal.replaced.is_some())
    }

    /// The monitors of the pump that lives, or was the last to live.
    pub(super) fn monitors(&self) -> &[Checked] {
        &self.trial().map_or(&self.group.launch, |proposal| &proposal.launch).monitors
    }

    /// The new set-up is taken back: the pump that tried it has died.
    pub(super) fn restore(&mut self) {
        let Some(proposal) = self.proposal.take() else { return };
        let Some(Replaced { mut got, mask }) = proposal.replaced else { return };
        let page = self.group.page;
        let delivery = page.delivery();
        let (new, old) = (&proposal.launch.monitors, &self.group.launch.monitors);
        let now = delivery.got(new.len());
        let heirs = heirs(old, new);
        for (got, heir) in got.iter_mut().zip(&heirs) {
            *got = heir.map_or(*got, |heir| now[heir]);
        }
        delivery.hand_over(&got, &(0..got.len()).map(Some).collect::<Vec<_>>(), 0);
        delivery.hand_over_aside(&heirs);
        // They are as they are now: a file that has just failed is not tried once more.
        self.aside = Aside::new();
        page.set_aside(mask);
        self.remember_aside();
        self.report_reload(proposal.id, &self.last_words);
        page.set_reload_state(ReloadState::Restoring);
        log::warn!("the new monitors did not get ready, the old ones are restored: {}", self.last_words);
    }

    pub(super) fn abandon_reload(&mut self) {
        let Some(proposal) = self.proposal.take() else { return };
        self.report_reload(proposal.id, "the group is ending");
        self.group.page.set_reload_state(ReloadState::Failed);
    }

    fn report_reload(&self, id: u64, why: &str) {
        let report = Report { id, why: why.to_owned() };
        if let Err(error) = report.write(&self.group.directory()) {
            log::warn!("unable to write why the reload failed: {error}");
        }
    }

    /// The new monitors are ready: their set-up is the group's.
    pub(super) fn settle_reload(&mut self) {
        let Some(proposal) = self.proposal.take() else { return };
        self.group.take_launch(proposal.launch, proposal.file);
        let policy = &self.group.launch.policy;
        self.faults = Faults::new(policy.monitor_crashes, policy.monitor_window);
        log::info!("the group is reloaded");
        self.renewal = proposal.executable;
        // A daemon that is renewed finishes it when it begins.
        if self.renewal.is_none() || self.pump.is_none() {
            self.finish_reload();
        }
    }

    fn finish_reload(&self) {
        let files = GroupFiles::at(self.group.directory());
        if let Err(error) = files.write_facts(&facts::of(&self.group.launch)) {
            log::warn!("`status` shows the monitors before the reload: {error}");
        }
        self.group.page.set_reload_state(ReloadState::Done);
    }

    /// What the group's pumps are executed from.
    pub(super) fn executable(&self) -> PathBuf {
        self.renewal.as_ref().map_or_else(own_executable, fd::path_of)
    }

    /// This daemon goes on as the new executable, once a pump from that is ready and nothing else is going on: what is
    /// on its way in this process's memory would be lost.
    pub(super) fn renew(&mut self) {
        let (Some(executable), Some(pump)) = (&self.renewal, &self.pump) else { return };
        let is_at_rest = self.timers.iter().all(Option::is_none) && self.events.is_empty();
        if !pump.is_ready || !pump.link.is_at_rest() || !is_at_rest || self.life.is_ending() {
            return;
        }
        let mut own = vec![
            (pump.link.as_fd(), number::PUMP),
            (self.stderr.0.as_fd(), number::PUMP_STDERR.0),
            (self.stderr.1.as_fd(), number::PUMP_STDERR.1),
        ];
        own.extend(self.watch.as_ref().map(|watch| (watch.as_fd(), number::PROCESS)));
        let error = self.group.renew_daemon(&fd::path_of(executable), own);
        // The pump, which runs that executable, becomes the daemon.
        log::error!("unable to execute the new daemon: {error}");
        self.status = Some(FAILED);
    }

    /// What a daemon that begins finds of a reload.
    pub(super) fn find_reload(&mut self) {
        let page = self.group.page;
        match page.reload().1 {
            // Either this daemon was executed in place, or the pump that was ready has become it.
            ReloadState::Ready => self.finish_reload(),
            ReloadState::UnderWay => {
                self.report_reload(page.reload().0, "the daemon died meanwhile");
                page.set_reload_state(ReloadState::Failed);
            }
            ReloadState::Restoring => page.set_reload_state(ReloadState::Failed),
            ReloadState::None | ReloadState::Done | ReloadState::Failed => {}
        }
    }

    /// The old set-up is back, or its pump has died as well: what there is to tell is told.
    pub(super) fn end_restoring(&self) {
        if self.group.page.reload().1 == ReloadState::Restoring {
            self.group.page.set_reload_state(ReloadState::Failed);
        }
    }

    /// What a pump that has ended left as its last words, or how it ended.
    pub(super) fn words_of(&self, exit: Exit) -> String {
        if let Some(line) = self.tail.last_line() {
            return line;
        }
        let how = format!("the pump {}", exit.words());
        match blame::blame(self.group.page.delivery(), exit) {
            Some(Culprit { monitor, hook: Some(hook) }) => {
                let label = self.monitors().get(monitor).map_or("?", |monitor| &monitor.label);
                format!("monitor {label}: {}: {how}", hook.name())
            }
            Some(Culprit { hook: None, .. }) | None => format!("{how} and left no text"),
        }
    }
}
