//! Ends processes politely: the stop signal first, SIGKILL when the time is up.
//!
//! A signal reaches the process group only while its leader is not reaped, so its number cannot have passed to
//! strangers. What left the group, with a session of its own or forked twice, comes back to this process when
//! its parent dies (subreaper), and is found among the descendants. When the roles are gone, who holds a stream of the
//! group is known to belong to it.

use crate::sys::family;

/// What is being ended.
#[derive(Debug)]
pub(crate) struct Ending {
    stop_signal: i32,
    /// Nothing, the process group, or everyone.
    scope: Option<Scope>,
    /// Descendants outside the group that have got the stop signal.
    signalled: Vec<i32>,
    /// A process that is not this one's descendant, for it was kept or its roles are gone: it and what it has forked are
    /// found from its pid. With its start time, by which it is told from another one with its pid; 0: that is not known.
    stranger: Option<(i32, u64)>,
    /// What descended from it, with start times: found again when it is gone.
    remembered: Vec<(i32, u64)>,
    /// This process does not belong to the group.
    outside: Option<Outside>,
}

/// What a program that ends a group from outside goes by.
#[derive(Debug)]
struct Outside {
    /// Who is not to go, nor what descends from the first of them, which is this process; the others are whom it
    /// descends from.
    spared: Vec<i32>,
    /// The process group is that of the process still. Of a dead one the number alone does not say it.
    has_group: bool,
}

impl Outside {
    /// Who is left in the process group, but for those who are spared, and whether there are such.
    fn members(&self, leader: i32) -> (Vec<i32>, bool) {
        let members = if self.has_group { family::members(leader) } else { Vec::new() };
        let (spared, members): (Vec<_>, _) = members.into_iter().partition(|pid| self.spared.contains(pid));
        (members, !spared.is_empty())
    }

    /// Sends them a signal: at once, if nobody has to be spared, so that none who is being forked is missed.
    fn signal(&self, leader: i32, signal: i32) {
        match self.members(leader) {
            (members, true) => members.into_iter().for_each(|pid| family::signal(pid, signal)),
            (_, false) if self.has_group => family::signal_group(leader, signal),
            (_, false) => {}
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scope {
    everyone: bool,
}

impl Ending {
    pub(crate) fn new(stop_signal: i32) -> Self {
        Self {
            stop_signal,
            scope: None,
            signalled: Vec::new(),
            stranger: None,
            remembered: Vec::new(),
            outside: None,
        }
    }

    /// Ends a process, of this start time, whose roles are gone, alive or dead, and those who hold one of its streams,
    /// from a program that has children of its own, and may have been started from within the process.
    pub(crate) fn of_orphan(stop_signal: i32, process: i32, started: u64, streams: [u64; 2]) -> Self {
        let holders = family::holders(streams);
        // As long as one of them is in the group, no other one can have got its number.
        let has_group =
            family::runs(process, started) || holders.iter().any(|(_, stat)| stat.group == process);
        let outside = Outside { spared: family::own_line(), has_group };
        let mut ending = Self { outside: Some(outside), ..Self::new(stop_signal) };
        ending.take_stranger(process, started);
        ending.remembered = holders.into_iter().map(|(pid, stat)| (pid, stat.started)).collect();
        ending
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

    /// All who are to go in the end: who descends from this process, unless that is outside, and from the stranger.
    fn everyone(&mut self) -> Vec<i32> {
        let Some((stranger, _)) = self.stranger else { return family::descendants() };
        let mut roots = if self.outside.is_some() { Vec::new() } else { family::children() };
        let forgotten = |(pid, started): &(i32, u64)| family::runs(*pid, *started);
        self.remembered.retain(forgotten);
        roots.extend(self.remembered.iter().map(|(pid, _)| *pid));
        roots.extend(self.is_ours(stranger).then_some(stranger));
        let mut all = family::descendants_of(roots);
        if let Some(Outside { spared, .. }) = &self.outside {
            // What was started from within the process and is asked to end it is not to end itself.
            let own = family::descendants_of(spared.iter().copied().take(1).collect());
            all.retain(|pid| *pid == stranger || !(spared.contains(pid) || own.contains(pid)));
        }
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

    /// Notes who descends from the process, for they are not found from it any more when it is gone.
    pub(crate) fn look(&mut self) {
        self.everyone();
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
        self.signal_group(process, self.stop_signal);
        self.signal_group(process, libc::SIGCONT);
    }

    fn signal_group(&self, process: Option<i32>, signal: i32) {
        let Some(leader) = process.filter(|pid| self.is_ours(*pid)) else { return };
        match &self.outside {
            None => family::signal_group(leader, signal),
            Some(outside) => outside.signal(leader, signal),
        }
    }

    /// Sends SIGKILL to the process group and to every descendant.
    pub(crate) fn kill(&mut self, process: Option<i32>) {
        self.signal_group(process, libc::SIGKILL);
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
            let members = || match &self.outside {
                None => family::members(leader),
                Some(outside) => outside.members(leader).0,
            };
            return !self.is_ours(leader) || members().iter().all(|pid| *pid == leader);
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
    use crate::sys::fd;
    use std::io::BufRead;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Stdio;

    #[test]
    fn who_was_started_from_within_a_process_may_end_it() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let its_pid = i32::try_from(child.id()).unwrap();
        let parent = family::stat(own).unwrap().parent;
        let mut ending =
            Ending::of_orphan(libc::SIGTERM, parent, family::stat(parent).unwrap().started, [0; 2]);
        let found = ending.everyone();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&parent), "{found:?}");
        assert!(![own, its_pid].iter().any(|pid| found.contains(pid)), "{found:?}");
        assert!(!ending.remembered.iter().any(|(pid, _)| [own, its_pid].contains(pid)));
    }

    #[test]
    fn the_group_of_a_dead_process_is_known_by_who_holds_its_stream() {
        let (reader, writer) = fd::pipe().unwrap();
        let stream = [0, fd::inode(&writer)];
        let script = |script: &str, holds: bool| {
            let stderr = holds.then(|| Stdio::from(writer.try_clone().unwrap()));
            let mut sh = std::process::Command::new("/bin/sh");
            sh.args(["-c", script]).stdin(Stdio::null()).stderr(stderr.unwrap_or_else(Stdio::null));
            sh.stdout(Stdio::piped()).process_group(0).spawn().unwrap()
        };
        // Two in the group, of which one may hold the stream, and one that has left it; the process ends.
        let lines = "sleep 100 >&- & echo $!; sleep 100 >&- 2>&- & echo $!; setsid sleep 100 >&- & echo $!";
        let lines = format!("{lines}; echo");
        for holds in [false, true] {
            let mut leader = script(&lines, holds);
            let pid = i32::try_from(leader.id()).unwrap();
            let said = std::io::BufReader::new(leader.stdout.take().unwrap()).lines();
            let left: Vec<i32> = said.map_while(|line| line.unwrap().parse().ok()).collect();
            assert_eq!(left.len(), 3);
            leader.wait().unwrap();
            let started: Vec<u64> = left.iter().map(|pid| family::stat(*pid).unwrap().started).collect();
            let alive = || left.iter().zip(&started).filter(|(pid, at)| family::runs(**pid, **at)).count();
            while family::stat(left[2]).is_none_or(|stat| stat.group == pid) {
                std::thread::yield_now();
            }
            let mut ending = Ending::of_orphan(libc::SIGTERM, pid, started[0], stream);
            ending.signal(Some(pid));
            ending.clear(Some(pid), true);
            while !ending.is_over(Some(pid)) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            assert_eq!(alive(), if holds { 0 } else { 3 });
            left.iter().filter(|_| !holds).for_each(|pid| family::signal(*pid, libc::SIGKILL));
        }
        drop(reader);
    }

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
