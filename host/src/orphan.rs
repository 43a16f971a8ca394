//! Ends what a group has left whose roles are gone, from a program that does not belong to it.
//!
//! The stop signal first, once to each: to the process and its group, and when these are gone to who has left the group.
//! SIGKILL when the time is up. Whoever runs this may have been started from within the process: it is spared, with what
//! it has started, and those whom it descends from, except the process itself.

use crate::lifecycle::KILL_AGAIN;
use crate::state::Marks;
use crate::sys::family::{self, Stat};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A process whose roles are gone, alive or dead, and who belongs to it.
#[derive(Debug)]
pub(crate) struct Orphan {
    /// Its pid, 0 if there was none, and when it started, by which it is told from another one with that pid.
    process: (i32, u64),
    /// The process group of that number is still its own. Of a dead process the number alone does not say so.
    has_group: bool,
    /// Who belongs to it, with start times: found again when those are gone from whom they descend.
    known: Vec<(i32, u64)>,
    /// Who has got the stop signal.
    told: Vec<i32>,
    /// This process, and whom it descends from.
    own_line: Vec<i32>,
}

impl Orphan {
    pub(crate) fn new(process: i32, started: u64) -> Self {
        Self {
            process: (process, started),
            has_group: family::runs(process, started),
            known: Vec::new(),
            told: Vec::new(),
            own_line: family::own_line(),
        }
    }

    /// Ends it: returns when nobody is left whom this process may end.
    pub(crate) fn end(mut self, stop_signal: i32, timeout: Duration, marks: &Marks) {
        if self.lives() {
            self.tell_group(stop_signal);
        }
        let mut deadline = Instant::now() + timeout;
        // To look at everybody takes its time.
        if self.find(marks) {
            deadline = Instant::now() + timeout;
        }
        loop {
            let rest = self.everyone();
            let lives = self.lives();
            if !lives && self.group().is_empty() {
                self.has_group = false;
                rest.iter().for_each(|pid| self.tell(*pid, stop_signal));
            } else if !lives {
                self.tell_group(stop_signal);
            }
            if rest.is_empty() && !(lives && family::may_signal(self.process.0)) {
                // Somebody may have begun between two looks whom nobody leads to.
                self.find(marks);
                if self.everyone().is_empty() {
                    return;
                }
            }
            if Instant::now() >= deadline {
                deadline += KILL_AGAIN;
                self.signal_process(libc::SIGKILL);
                rest.iter().for_each(|pid| family::signal(*pid, libc::SIGKILL));
            }
            std::thread::sleep(Duration::from_millis(if lives { 5 } else { 20 }));
        }
    }

    fn lives(&self) -> bool {
        family::runs(self.process.0, self.process.1)
    }

    /// Looks for who bears the marks; returns whether nobody has been told of the end yet.
    fn find(&mut self, marks: &Marks) -> bool {
        let bearers = bearers(marks);
        let lives = self.lives();
        // As long as one of them is in the group, no other one can have got its number.
        self.has_group |= !lives && bearers.iter().any(|(_, stat)| stat.group == self.process.0);
        self.known.extend(bearers.into_iter().map(|(pid, stat)| (pid, stat.started)));
        self.told.is_empty()
    }

    /// This process, what descends from it, and whom it descends from.
    fn spared(&self) -> Vec<i32> {
        let mut spared = family::descendants_of(self.own_line.iter().copied().take(1).collect());
        spared.extend(&self.own_line);
        spared
    }

    /// Who is in the process group, besides the process, and can be ended.
    fn group(&self) -> Vec<i32> {
        if !self.has_group {
            return Vec::new();
        }
        let spared = self.spared();
        let members = family::members(self.process.0).into_iter();
        members
            .filter(|pid| *pid != self.process.0 && !spared.contains(pid) && family::may_signal(*pid))
            .collect()
    }

    /// Who is to go besides the process.
    fn everyone(&mut self) -> Vec<i32> {
        self.known.retain(|(pid, started)| family::runs(*pid, *started));
        let spared = self.spared();
        let mut roots: Vec<i32> = self.known.iter().map(|(pid, _)| *pid).collect();
        roots.extend(self.group());
        // What descends from one who is spared is not known to belong to the group.
        roots.retain(|pid| !spared.contains(pid));
        roots.extend(self.lives().then_some(self.process.0));
        let mut everyone = Vec::new();
        for pid in family::descendants_of(roots) {
            let stat = family::stat(pid).filter(|stat| !stat.ended);
            if let Some(stat) = stat
                && pid != self.process.0
                && !spared.contains(&pid)
                && family::may_signal(pid)
            {
                everyone.push(pid);
                if !self.known.iter().any(|(known, _)| *known == pid) {
                    self.known.push((pid, stat.started));
                }
            }
        }
        everyone
    }

    /// Sends the stop signal to the process, if it lives, and to its group.
    fn tell_group(&mut self, stop_signal: i32) {
        let group = self.group();
        if !self.told.contains(&self.process.0) {
            self.told.push(self.process.0);
            self.signal_process(stop_signal);
            self.signal_process(libc::SIGCONT);
        }
        group.into_iter().for_each(|pid| self.tell(pid, stop_signal));
    }

    /// To the process, if it lives; where nobody can be asked who is in its group, to all of it.
    fn signal_process(&self, signal: i32) {
        match self.lives() {
            true if cfg!(target_os = "linux") => family::signal(self.process.0, signal),
            true => family::signal_group(self.process.0, signal),
            false => {}
        }
    }

    fn tell(&mut self, pid: i32, stop_signal: i32) {
        if !self.told.contains(&pid) {
            self.told.push(pid);
            family::signal(pid, stop_signal);
            family::signal(pid, libc::SIGCONT);
        }
    }
}

/// Who bears the marks of a group, as far as this process may look; nobody where there is no `/proc`. Its children have
/// its stdout or stderr open for writing. A descriptor can be handed to anybody: so they are not older than the streams,
/// and of the user as whom the process ran, unless that is root, who can become anybody.
fn bearers(marks: &Marks) -> Vec<(i32, Stat)> {
    let names = marks.pipes.map(|inode| PathBuf::from(format!("pipe:[{inode}]")));
    let is_stream = |path: &Path| std::fs::read_link(path).is_ok_and(|name| names.contains(&name));
    let bears = |(pid, stat): &(i32, Stat)| {
        stat.started >= marks.since
            && (marks.uid == 0 || user_of(*pid) == Some(marks.uid))
            && descriptors(*pid).any(|path| is_stream(&path) && is_writable(&path))
    };
    if marks.since == 0 { Vec::new() } else { family::everybody().filter(bears).collect() }
}

fn user_of(pid: i32) -> Option<u32> {
    std::fs::metadata(format!("/proc/{pid}")).ok().map(|data| data.uid())
}

fn descriptors(pid: i32) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The kernel shows in the permissions of the link what its descriptor is open for.
fn is_writable(descriptor: &Path) -> bool {
    std::fs::symlink_metadata(descriptor).is_ok_and(|link| link.mode() & 0o200 != 0)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::sys::fd;
    use std::io::BufRead;
    use std::os::fd::OwnedFd;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    /// Who a dead process has left: one in its group, one there who has nothing to do with its stream, and one in a
    /// session of its own.
    struct Left {
        leader: i32,
        started: u64,
        all: Vec<(i32, u64)>,
    }

    impl Left {
        fn with(stream: OwnedFd) -> Self {
            let script =
                "sleep 100 >&- & echo $!; sleep 100 >&- 2>&- & echo $!; setsid sleep 100 >&- & echo $!";
            let mut sh = Command::new("/bin/sh");
            sh.args(["-c", script]).stdin(Stdio::null()).stderr(stream).stdout(Stdio::piped());
            let mut leader = sh.process_group(0).spawn().unwrap();
            let pid = i32::try_from(leader.id()).unwrap();
            let started = family::stat(pid).unwrap().started;
            let said = std::io::BufReader::new(leader.stdout.take().unwrap()).lines();
            let pids: Vec<i32> = said.take(3).map(|line| line.unwrap().parse().unwrap()).collect();
            leader.wait().unwrap();
            // Until it executes its program, each still holds what the shell held, in the shell's session.
            for pid in &pids {
                while !std::fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(b"sleep\0") {
                    std::thread::yield_now();
                }
            }
            let all = pids.into_iter().map(|pid| (pid, family::stat(pid).unwrap().started)).collect();
            Self { leader: pid, started, all }
        }

        fn end(&self, process: i32, marks: &Marks) -> usize {
            Orphan::new(process, self.started).end(libc::SIGTERM, Duration::from_secs(10), marks);
            self.all.iter().filter(|(pid, started)| family::runs(*pid, *started)).count()
        }
    }

    impl Drop for Left {
        fn drop(&mut self) {
            let runs = |(pid, started): &&(i32, u64)| family::runs(*pid, *started);
            self.all.iter().filter(runs).for_each(|(pid, _)| family::signal(*pid, libc::SIGKILL));
        }
    }

    fn marks(stream: &OwnedFd) -> Marks {
        let uid = nix::unistd::geteuid().as_raw();
        Marks { pipes: [0, fd::inode(stream)], since: crate::sys::birth::tick_now(), uid }
    }

    #[test]
    fn those_who_hold_a_stream_are_ended_with_their_group_and_nobody_else() {
        let (reader, writer) = fd::pipe().unwrap();
        let marks = marks(&writer);
        let left = Left::with(writer);
        let other = fd::pipe().unwrap();
        assert_eq!(left.end(left.leader, &Marks { pipes: [fd::inode(&other.1); 2], ..marks }), 3, "another");
        let later = Marks { since: marks.since + 1000, ..marks };
        assert_eq!(left.end(left.leader, &later), 3, "older than the stream");
        assert_eq!(left.end(left.leader, &Marks { since: 0, ..marks }), 3, "not known");
        assert_eq!(left.end(left.leader, &Marks { uid: marks.uid + 1, ..marks }), 3, "another user");
        assert_eq!(left.end(left.leader, &marks), 0);
        drop(reader);
    }

    #[test]
    fn who_only_reads_a_stream_is_left_alone() {
        let (reader, writer) = fd::pipe().unwrap();
        let marks = marks(&writer);
        let left = Left::with(reader);
        assert_eq!(left.end(left.leader, &marks), 3);
    }

    #[test]
    fn without_the_process_those_who_hold_a_stream_are_ended() {
        let (reader, writer) = fd::pipe().unwrap();
        let marks = marks(&writer);
        let left = Left::with(writer);
        assert_eq!(left.end(0, &marks), 1, "that one is in a group whose number says nothing");
        drop(reader);
    }

    #[test]
    fn who_was_started_from_within_a_process_may_end_it() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut child = Command::new("/bin/sleep").arg("100").spawn().unwrap();
        let its_pid = i32::try_from(child.id()).unwrap();
        let parent = family::stat(own).unwrap().parent;
        let mut orphan = Orphan::new(parent, family::stat(parent).unwrap().started);
        let (lives, found) = (orphan.lives(), orphan.everyone());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(lives && ![own, its_pid, parent].iter().any(|pid| found.contains(pid)), "{found:?}");
        assert!(!orphan.known.iter().any(|(pid, _)| [own, its_pid].contains(pid)));
    }
}
