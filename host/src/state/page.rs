//! The page as a role has it: written and read in place.
//!
//! Numbers are written one at a time, each atomically; the pids are guarded by a sequence number, so that a reader gets
//! one consistent snapshot. A role killed in the middle leaves an odd sequence number, which a reader waits out only for
//! a moment.

use super::{
    BY_SIGNAL, CORE, DELIVERY, FORMAT, MAGIC, Marks, Member, Pids, REASON, REPORT, ReloadState, State, Word,
    number_pid, pid_number,
};
use crate::delivery::Delivery;
use crate::sys::clock;
use crate::sys::family::{self, Exit};
use crate::sys::page::SharedWords;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// A role's page: written and read in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    shared: SharedWords,
}

impl Page {
    /// Maps the page of a file.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        Ok(Self { shared: SharedWords::map(file)? })
    }

    /// Makes the page of a new group.
    pub(crate) fn initialise(self) {
        for word in self.shared.words() {
            word.store(0, Ordering::SeqCst);
        }
        self.set(Word::Magic, MAGIC);
        self.set(Word::Format, FORMAT);
        self.set(Word::Boot, family::boot_id());
        self.set(Word::State, State::Starting as u64);
        self.set(Word::Why, u64::from(immortal_monitor_api::abi::WHY_PUMP_START));
        self.set(Word::Since, clock::wall_ns());
        self.set(Word::RolesFormat, u64::from(crate::launch::FORMAT));
    }

    fn word(self, word: Word) -> &'static AtomicU64 {
        &self.shared.words()[word as usize]
    }

    fn set(self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::SeqCst);
    }

    fn get(self, word: Word) -> u64 {
        self.word(word).load(Ordering::SeqCst)
    }

    /// Runs a change of the pids so that a reader sees all of it or nothing.
    fn change_pids(self, change: impl FnOnce()) {
        let sequence = self.word(Word::Sequence);
        sequence.fetch_or(1, Ordering::SeqCst);
        change();
        // Even again, also if another role was writing at the same moment.
        sequence.store((sequence.load(Ordering::SeqCst) | 1) + 1, Ordering::SeqCst);
    }

    /// Notes a member's pid; 0: it is gone.
    pub(crate) fn set_member(self, member: Member, pid: i32) {
        let started = if pid == 0 { 0 } else { family::stat(pid).map_or(0, |stat| stat.started) };
        self.set_member_started(member, pid, started);
    }

    /// Notes this process as a member. When it started takes longer to find out, and is noted by [`Page::complete`];
    /// until then a pid that runs is good enough.
    pub(crate) fn set_own(self, member: Member) {
        self.set_pid(member, nix::unistd::getpid().as_raw());
    }

    /// The same for another process.
    pub(crate) fn set_pid(self, member: Member, pid: i32) {
        if self.get(member.words().0) != pid_number(pid) {
            self.set_member_started(member, pid, 0);
        }
    }

    /// Notes by what it is known who belongs to the group.
    pub(crate) fn set_marks(self, marks: Marks) {
        self.set(Word::StdoutPipe, marks.pipes[0]);
        self.set(Word::StderrPipe, marks.pipes[1]);
        self.set(Word::StreamsSince, marks.since);
        self.set(Word::ProcessUser, marks.uid.into());
    }

    /// Notes when a member started of which only the pid is noted.
    pub(crate) fn complete(self, member: Member) {
        let (pid_word, started_word) = member.words();
        let pid = number_pid(self.get(pid_word));
        if pid != 0 && self.get(started_word) == 0 {
            self.set_member(member, pid);
        }
    }

    /// Notes a member whose start time is known.
    pub(crate) fn set_member_started(self, member: Member, pid: i32, started: u64) {
        let (pid_word, started_word) = member.words();
        self.change_pids(|| {
            self.set(started_word, started);
            self.set(pid_word, pid_number(pid));
        });
    }

    /// When a member started, by which it is told from a stranger with its pid; 0: it is not noted.
    pub(crate) fn started(self, member: Member) -> u64 {
        self.get(member.words().1)
    }

    /// Forgets a member's start time before a child writes its own pid into the slot.
    pub(crate) fn slot(self, member: Member) -> &'static AtomicU64 {
        let (pid_word, started_word) = member.words();
        self.set(started_word, 0);
        self.word(pid_word)
    }

    /// The pids, as one consistent snapshot.
    pub(crate) fn pids(self) -> Pids {
        for _ in 0..1000 {
            let before = self.get(Word::Sequence);
            let pids = Pids {
                process: number_pid(self.get(Word::Process)),
                pump: number_pid(self.get(Word::Pump)),
                daemon: number_pid(self.get(Word::Daemon)),
            };
            if before & 1 == 0 && before == self.get(Word::Sequence) {
                return pids;
            }
            std::hint::spin_loop();
        }
        Pids {
            process: number_pid(self.get(Word::Process)),
            pump: number_pid(self.get(Word::Pump)),
            daemon: number_pid(self.get(Word::Daemon)),
        }
    }

    /// Notes what is going on, and the moment of the next attempt if this is a pause.
    pub(crate) fn set_state(self, state: State, next_attempt_ns: u64) {
        self.set(Word::NextAttempt, next_attempt_ns);
        self.set(Word::State, state as u64);
    }

    /// Notes that the process runs since now.
    pub(crate) fn process_started(self, respawn: bool) {
        self.set(Word::Since, clock::wall_ns());
        self.set(Word::SinceMonotonic, clock::monotonic_ns());
        if respawn {
            self.word(Word::Restarts).fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Takes back what [`Page::process_started`] counted of a respawn that failed.
    pub(crate) fn process_not_started(self) {
        self.word(Word::Restarts).fetch_sub(1, Ordering::SeqCst);
    }

    /// Monotonic clock of the process's start, in nanoseconds.
    pub(crate) fn since_monotonic_ns(self) -> u64 {
        self.get(Word::SinceMonotonic)
    }

    /// Wall clock of the process's start, in nanoseconds.
    pub(crate) fn since_ns(self) -> u64 {
        self.get(Word::Since)
    }

    /// Notes that the end of the group is wanted.
    pub(crate) fn set_stop_wanted(self) {
        self.set(Word::StopWanted, 1);
    }

    /// See [`Page::set_stop_wanted`].
    pub(crate) fn stop_wanted(self) -> bool {
        self.get(Word::StopWanted) == 1
    }

    /// Notes that a restart of the process is wanted, or that it is not any more.
    pub(crate) fn set_restart_wanted(self, wanted: bool) {
        self.set(Word::RestartWanted, u64::from(wanted));
    }

    /// See [`Page::set_restart_wanted`].
    pub(crate) fn restart_wanted(self) -> bool {
        self.get(Word::RestartWanted) == 1
    }

    /// Notes that a reload is under way.
    pub(crate) fn begin_reload(self, id: u64) {
        self.set(Word::ReloadState, ReloadState::UnderWay as u64);
        self.set(Word::ReloadId, id);
    }

    /// Notes how far the reload is.
    pub(crate) fn set_reload_state(self, state: ReloadState) {
        self.set(Word::ReloadState, state as u64);
    }

    /// Which request for a reload was the last one, and how far it is.
    pub(crate) fn reload(self) -> (u64, ReloadState) {
        (self.get(Word::ReloadId), ReloadState::from_number(self.get(Word::ReloadState)))
    }

    /// Notes that the start of the group has succeeded.
    pub(crate) fn set_group_started(self) {
        self.set(Word::GroupStarted, 1);
    }

    /// How many times the process was respawned.
    pub(crate) fn restarts(self) -> u64 {
        self.get(Word::Restarts)
    }

    /// Whether the start of the group has succeeded.
    pub(crate) fn group_started(self) -> bool {
        self.get(Word::GroupStarted) == 1
    }

    /// Notes how the process ended.
    pub(crate) fn process_ended(self, exit: Exit) {
        self.set(Word::ExitCode, exit.code.map_or(0, |code| pid_number(code) + 1));
        self.set(Word::ExitSignal, exit.signal.map_or(0, pid_number));
        self.set(Word::ExitAt, clock::wall_ns());
    }

    /// Notes which descriptors are meant for the program that is executed next in this process, a bit for each.
    pub(crate) fn set_handed(self, mask: u64) {
        self.set(Word::Handed, mask);
    }

    /// What was noted by [`Page::set_handed`]; once, for the next role is given its descriptors in another way.
    pub(crate) fn take_handed(self) -> u64 {
        self.word(Word::Handed).swap(0, Ordering::SeqCst)
    }

    /// Notes how this process has ended, for a pump that is not its parent; 0: that is dealt with.
    pub(crate) fn note_end(self, pid: i32, exit: Exit) {
        let how = exit.code.map_or(0, pid_number)
            | exit.signal.map_or(0, |signal| pid_number(signal) | BY_SIGNAL)
            | if exit.core { CORE } else { 0 };
        self.set(Word::Ended, 0);
        self.set(Word::EndedHow, how);
        self.set(Word::Ended, pid_number(pid));
    }

    /// See [`Page::note_end`].
    pub(crate) fn noted_end(self, pid: i32) -> Option<Exit> {
        if pid == 0 || self.get(Word::Ended) != pid_number(pid) {
            return None;
        }
        let how = self.get(Word::EndedHow);
        let number = number_pid(how & (BY_SIGNAL - 1));
        let by_signal = how & BY_SIGNAL != 0;
        Some(Exit {
            code: (!by_signal).then_some(number),
            signal: by_signal.then_some(number),
            core: how & CORE != 0,
        })
    }

    /// Counts a new pump (`why` pump restart) or daemon, and what the next `setup` is told.
    pub(crate) fn count_restart(self, member: Member) {
        match member {
            Member::Pump => _ = self.word(Word::PumpRestarts).fetch_add(1, Ordering::SeqCst),
            Member::Daemon => _ = self.word(Word::DaemonRestarts).fetch_add(1, Ordering::SeqCst),
            Member::Process | Member::Launcher => {}
        }
    }

    /// `why` of the next `setup`, and how much of its message was cut.
    pub(crate) fn set_why(self, why: u32, cut_bytes: u64) {
        self.set(Word::Why, u64::from(why));
        self.set(Word::MessageCut, cut_bytes);
    }

    /// See [`Page::set_why`].
    pub(crate) fn why(self) -> (u32, u64) {
        (u32::try_from(self.get(Word::Why)).unwrap_or(0), self.get(Word::MessageCut))
    }

    /// Notes which monitors are set aside, a bit for each.
    pub(crate) fn set_aside(self, mask: u64) {
        self.set(Word::Aside, mask);
    }

    /// See [`Page::set_aside`].
    pub(crate) fn aside(self) -> u64 {
        self.get(Word::Aside)
    }

    /// Unstable deaths in a row.
    pub(crate) fn set_unstable(self, count: u32) {
        self.set(Word::Unstable, u64::from(count));
    }

    /// See [`Page::set_unstable`].
    pub(crate) fn unstable(self) -> u32 {
        u32::try_from(self.get(Word::Unstable)).unwrap_or(u32::MAX)
    }

    /// Notes that a polite stop was not enough.
    pub(crate) fn set_killed(self) {
        self.set(Word::Killed, 1);
    }

    /// Whether the process ended and is not to be respawned by itself.
    pub(crate) fn set_held(self, held: bool) {
        self.set(Word::Held, u64::from(held));
    }

    /// See [`Page::set_held`].
    pub(crate) fn held(self) -> bool {
        self.get(Word::Held) == 1
    }

    /// How far delivery has come.
    pub(crate) fn delivery(self) -> Delivery {
        Delivery::new(&self.shared.words()[DELIVERY])
    }

    /// Says why the group failed; what does not fit on the page is cut.
    pub(crate) fn set_reason(self, reason: &str) {
        self.set_text(REASON, Word::ReasonLength, reason.as_bytes());
    }

    /// What the monitors report of themselves, as JSON; left as it was, and `false` returned, if it does not fit.
    pub(crate) fn set_report(self, json: &str) -> bool {
        let fits = json.len() <= REPORT.len() * 8;
        if fits {
            self.set_text(REPORT, Word::ReportLength, json.as_bytes());
        }
        fits
    }

    fn set_text(self, range: std::ops::Range<usize>, length: Word, text: &[u8]) {
        let text = &text[..text.len().min(range.len() * 8)];
        self.set(length, 0);
        for (index, chunk) in range.zip(text.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            self.shared.words()[index].store(u64::from_le_bytes(bytes), Ordering::SeqCst);
        }
        self.set(length, text.len() as u64);
    }
}
