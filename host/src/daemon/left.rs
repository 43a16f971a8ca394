//! What a pump leaves behind: the process, kept or to be swept away, and whoever it has forked.

use super::{Daemon, Event};
use crate::state::Member;
use crate::sys::family;

impl Daemon {
    /// The process of a pump that is gone, or does nothing more.
    pub(super) fn take_process(&mut self) {
        let process = self.group.page.pids().process;
        if process != self.process {
            self.process = process;
            self.watch = None;
            self.ending.leave_stranger();
        }
        if self.group.launch.policy.keeps() {
            self.keep_process();
        }
    }

    /// When the process started: one that is not a child of this daemon may be gone, and another one have its pid.
    pub(super) fn process_start(&self) -> u64 {
        self.group.page.started(Member::Process)
    }

    /// With `keep`: gets hold of the process that is left, alive or dead.
    pub(super) fn keep_process(&mut self) {
        if self.process == 0 {
            return;
        }
        if !family::is_child(self.process) {
            self.ending.take_stranger(self.process, self.process_start());
        }
        if self.watch.is_none() {
            self.watch = family::watch_started(self.process, self.process_start());
        }
        self.note_end();
    }

    /// Notes how a kept process has ended: the pump, which is not its parent, may not be able to see that.
    pub(super) fn note_end(&self) {
        if self.group.launch.policy.keeps()
            && self.process != 0
            && let Some(exit) = family::peek(self.process)
        {
            self.group.page.note_end(self.process, exit);
        }
    }

    /// The pump has dealt with the end of a kept process, which is a child of this daemon.
    pub(super) fn reap(&mut self, process: i32) {
        family::reap(process);
        if self.process == process {
            self.process = 0;
            self.watch = None;
            self.ending.leave_stranger();
            self.group.page.note_end(0, family::Exit::default());
        }
    }

    pub(super) fn sweep(&mut self) {
        self.sweeping = true;
        self.dismiss();
        let leader = family::is_child(self.process) || family::runs(self.process, self.process_start());
        if !leader {
            self.process = 0;
            self.ending.leave_stranger();
        }
        let process = (self.process != 0).then_some(self.process);
        self.ending.clear(process, true);
        self.ending.signal(process);
        self.look_at_sweep();
    }

    /// The process that the pump left: our child (subreaper), or a stranger where there is no subreaper.
    pub(super) fn process_is_gone(&self) -> bool {
        if family::is_child(self.process) {
            return family::peek(self.process).is_some();
        }
        !family::runs(self.process, self.process_start())
    }

    pub(super) fn look_at_sweep(&mut self) {
        if !self.sweeping || !self.process_is_gone() {
            return;
        }
        self.take_children();
        let process = (self.process != 0).then_some(self.process);
        if !self.ending.is_over(process) {
            return;
        }
        self.sweeping = false;
        let exit = family::reap(self.process);
        let stranger = || family::end_of_stranger(self.process, self.process_start(), self.watch.as_ref());
        let end = exit.map(Some).or_else(|| (self.process != 0).then(stranger).flatten());
        if let Some(exit) = end {
            self.group.page.process_ended(exit.unwrap_or_default());
        }
        self.ending.leave_stranger();
        self.watch = None;
        self.process = 0;
        self.group.page.set_member(Member::Process, 0);
        self.events.push_back(Event::Swept);
    }
}
