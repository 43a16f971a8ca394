//! Ends processes politely: the stop signal first, SIGKILL when the time is up.
//!
//! A signal reaches the process group only while its leader is not reaped, so its number cannot have passed to
//! strangers. What left the group, with a session of its own or forked twice, comes back to this process when
//! its parent dies (subreaper), and is found among the descendants.

use crate::sys::family;

/// What is being ended.
#[derive(Debug)]
pub(crate) struct Ending {
    stop_signal: i32,
    /// Nothing, the process group, or everyone.
    scope: Option<Scope>,
    /// Descendants outside the group that have got the stop signal.
    signalled: Vec<i32>,
    /// A process that was kept and is not this one's descendant: it and what it has forked are found from its pid. With
    /// its start time, by which it is told from another one with its pid; 0: that is not known.
    stranger: Option<(i32, u64)>,
    /// What descended from it, with start times: found again when it is gone.
    remembered: Vec<(i32, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scope {
    everyone: bool,
}

impl Ending {
    pub(crate) fn new(stop_signal: i32) -> Self {
        Self { stop_signal, scope: None, signalled: Vec::new(), stranger: None, remembered: Vec::new() }
    }

    /// The process, of this start time, is not a child of this one.
    pub(crate) fn take_stranger(&mut self, process: i32, started: u64) {
        self.stranger = Some((process, started));
    }

    /// Whether this number is that of the process still, or of what is left of its group. A number is not given to
    /// another process as long as there is a process or a group of it.
    fn is_ours(&self, process: i32) -> bool {
        let Some((_, started)) = self.stranger.filter(|(stranger, _)| *stranger == process) else {
            return true;
        };
        family::stat(process).is_none_or(|stat| started == 0 || stat.started == started)
    }

    /// It is dealt with.
    pub(crate) fn leave_stranger(&mut self) {
        self.stranger = None;
        self.remembered.clear();
    }

    /// All who are to go in the end: who descends from this process, and from the stranger.
    fn everyone(&mut self) -> Vec<i32> {
        let Some((stranger, _)) = self.stranger else { return family::descendants() };
        let mut roots = family::children();
        let forgotten = |(pid, started): &(i32, u64)| family::runs(*pid, *started);
        self.remembered.retain(forgotten);
        roots.extend(self.remembered.iter().map(|(pid, _)| *pid));
        roots.extend(self.is_ours(stranger).then_some(stranger));
        let all = family::descendants_of(roots);
        for pid in &all {
            if let Some(stat) = family::stat(*pid).filter(|stat| !stat.ended)
                && *pid != stranger
                && !self.remembered.iter().any(|(known, _)| known == pid)
            {
                self.remembered.push((*pid, stat.started));
            }
        }
        all
    }

    /// Whether something is being ended whose end has to be looked for now and then: not everybody's end is told.
    pub(crate) fn is_pending(&self) -> bool {
        self.scope.is_some()
    }

    /// Sends the stop signal to the process group.
    pub(crate) fn signal(&mut self, process: Option<i32>) {
        if self.stranger.is_some() {
            self.everyone();
        }
        if let Some(pid) = process.filter(|pid| self.is_ours(*pid)) {
            family::signal_group(pid, self.stop_signal);
            family::signal_group(pid, libc::SIGCONT);
        }
    }

    /// Sends SIGKILL to the process group and to every descendant.
    pub(crate) fn kill(&mut self, process: Option<i32>) {
        if let Some(pid) = process.filter(|pid| self.is_ours(*pid)) {
            family::signal_group(pid, libc::SIGKILL);
        }
        for pid in self.everyone() {
            family::signal(pid, libc::SIGKILL);
        }
    }

    /// Begins to end what is left of a dead process: of its group, or everyone.
    pub(crate) fn clear(&mut self, process: Option<i32>, everyone: bool) {
        self.begin(process, everyone, false);
    }

    /// The same for a process that has ended, and looks at once whether nothing is left. `alone`: it has just been seen
    /// to be the only child of this process.
    pub(crate) fn clear_ended(&mut self, process: Option<i32>, everyone: bool, alone: bool) -> bool {
        self.begin(process, everyone, alone) && self.is_over_but_group(process)
    }

    /// Returns whether nothing is left of the process group.
    fn begin(&mut self, process: Option<i32>, everyone: bool, alone: bool) -> bool {
        self.scope = Some(Scope { everyone });
        self.signalled.clear();
        let is_empty = alone || self.group_is_empty(process);
        if !is_empty {
            self.signal(process);
        }
        is_empty
    }

    /// Whether everyone is to go, not only the process group.
    pub(crate) fn is_for_everyone(&self) -> bool {
        self.scope.is_some_and(|scope| scope.everyone)
    }

    /// Looks whether nothing is left; true once.
    pub(crate) fn is_over(&mut self, process: Option<i32>) -> bool {
        self.scope.is_some() && self.group_is_empty(process) && self.is_over_but_group(process)
    }

    fn is_over_but_group(&mut self, process: Option<i32>) -> bool {
        let Some(Scope { everyone }) = self.scope else { return false };
        if everyone && !self.strangers_are_gone(process) {
            return false;
        }
        self.scope = None;
        true
    }

    fn group_is_empty(&self, process: Option<i32>) -> bool {
        let Some(leader) = process else { return true };
        if self.stranger.is_some_and(|(stranger, _)| stranger == leader) {
            return !self.is_ours(leader) || family::members(leader).iter().all(|pid| *pid == leader);
        }
        if family::children() == [leader] {
            return true;
        }
        let in_group = |pid: &i32| {
            *pid != leader && family::stat(*pid).is_some_and(|stat| stat.group == leader && !stat.ended)
        };
        !family::descendants().iter().any(in_group)
    }

    /// Each gets the stop signal once, when the process group is gone.
    fn strangers_are_gone(&mut self, process: Option<i32>) -> bool {
        let mut gone = true;
        for pid in self.everyone() {
            if Some(pid) == process || family::stat(pid).is_none_or(|stat| stat.ended) {
                continue;
            }
            gone = false;
            if !self.signalled.contains(&pid) {
                self.signalled.push(pid);
                family::signal(pid, self.stop_signal);
                family::signal(pid, libc::SIGCONT);
            }
        }
        gone
    }
}

#[cfg(all(test, linux_path))]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};

    #[test]
    fn another_process_that_has_got_the_number_of_a_kept_one_is_left_alone() {
        let spawn = || std::process::Command::new("/bin/sleep").arg("100").process_group(0).spawn().unwrap();
        // Not a child of this thread, as one that was kept is not.
        let mut child = std::thread::spawn(spawn).join().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = family::stat(pid).unwrap().started;
        let stranger = |started, signal| {
            let mut ending = Ending::new(signal);
            ending.take_stranger(pid, started);
            ending
        };
        let mut other = stranger(started + 1, libc::SIGUSR1);
        assert!(!other.everyone().contains(&pid));
        assert!(family::watch_started(pid, started + 1).is_none());
        other.clear(Some(pid), true);
        other.signal(Some(pid));
        other.kill(Some(pid));
        assert!(other.is_over(Some(pid)), "nobody is left of the one that was kept");
        let mut it = stranger(started, libc::SIGTERM);
        assert!(it.everyone().contains(&pid));
        it.signal(Some(pid));
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    }
}
