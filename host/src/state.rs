//! The group's state page: a small shared file that says who is alive and what is going on.
//!
//! The roles write it, each its own part; anybody of the same user reads it, and needs nobody's answer for that.
//! Numbers are written one at a time, each atomically; the three pids are guarded by a sequence number, so that
//! a reader gets one consistent snapshot. A role killed in the middle leaves an odd sequence number, which a
//! reader waits out only for a moment.

use crate::delivery::{self, Delivery, Moment};
use crate::sys::family::{self, Exit};
use crate::sys::page::{SharedWords, WORDS};
use crate::sys::{clock, page};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const MAGIC: u64 = u64::from_le_bytes(*b"immortal");
const FORMAT: u64 = 2;

/// Where on the page a number is. Never reordered within a format.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
enum Word {
    Magic = 0,
    Format,
    Boot,
    State,
    Sequence,
    Process,
    ProcessStarted,
    Pump,
    PumpStarted,
    Daemon,
    DaemonStarted,
    Launcher,
    LauncherStarted,
    /// Wall clock of the process's start.
    Since,
    Restarts,
    PumpRestarts,
    DaemonRestarts,
    /// Exit code plus one, or 0.
    ExitCode,
    ExitSignal,
    /// Wall clock of the last exit, 0 if there was none.
    ExitAt,
    /// Wall clock of the next attempt during a pause, else 0.
    NextAttempt,
    /// Unstable deaths in a row, of process and pump together.
    Unstable,
    /// `why` of the next `setup`.
    Why,
    /// Bytes missing before the message of the next `setup`.
    MessageCut,
    /// 1 once the start of the group has succeeded.
    Executed,
    /// 1 when the process ended and is not to be respawned.
    Held,
    /// 1 once SIGKILL was needed to end the group.
    Killed,
    ReasonLength,
    ReportLength,
    /// Monotonic clock of the process's start.
    SinceMonotonic,
    /// 1 once the end of the group is wanted: what a pump did not finish, the next one does.
    StopWanted,
    /// 1 while a restart of the process is wanted.
    RestartWanted,
    /// A bit for each monitor that is set aside.
    Aside,
    /// Version of what the roles have in common.
    RolesFormat,
    /// Which wish for a reload was the last one. Before its state: a reader that knows it reads a state that is not
    /// older.
    ReloadId,
    ReloadState,
    /// Pid of a process whose end is noted in the next word, before the pump knows of it.
    Ended,
    /// How it ended: code or signal, [`BY_SIGNAL`], [`CORE`].
    EndedHow,
    /// Which descriptors a daemon is given that is executed in place, a bit for each; else 0.
    Handed,
}

const BY_SIGNAL: u64 = 1 << 32;
const CORE: u64 = 1 << 33;

const REASON: std::ops::Range<usize> = 64..128;
const REPORT: std::ops::Range<usize> = 128..DELIVERY.start;
const DELIVERY: std::ops::Range<usize> = WORDS - delivery::WORDS..WORDS;

/// A group's state, as told by `list` and `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub(crate) enum State {
    Starting = 1,
    Running,
    Stopping,
    Backoff,
    Stopped,
    Failed,
    Orphaned,
}

impl State {
    /// The word of the contract.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Orphaned => "orphaned",
        }
    }

    fn from_number(number: u64) -> Self {
        [Self::Starting, Self::Running, Self::Stopping, Self::Backoff, Self::Stopped, Self::Failed]
            .into_iter()
            .find(|state| *state as u64 == number)
            .unwrap_or(Self::Starting)
    }
}

/// How far the last reload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum ReloadState {
    /// There was none.
    None,
    /// The new monitors are not ready yet.
    UnderWay,
    /// They are; the new set-up is in force.
    Ready,
    /// They did not get ready; the old ones are not back yet.
    Restoring,
    Done,
    Failed,
}

impl ReloadState {
    fn from_number(number: u64) -> Self {
        [Self::UnderWay, Self::Ready, Self::Restoring, Self::Done, Self::Failed]
            .into_iter()
            .find(|state| *state as u64 == number)
            .unwrap_or(Self::None)
    }
}

/// Whether the monitor of this index is set aside, by the bits of [`Page::aside`].
pub(crate) fn is_aside(mask: u64, monitor: usize) -> bool {
    u32::try_from(monitor)
        .ok()
        .and_then(|monitor| mask.checked_shr(monitor))
        .is_some_and(|bits| bits & 1 == 1)
}

/// Who of a group is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    Process,
    Pump,
    Daemon,
    Launcher,
}

impl Member {
    fn words(self) -> (Word, Word) {
        match self {
            Self::Process => (Word::Process, Word::ProcessStarted),
            Self::Pump => (Word::Pump, Word::PumpStarted),
            Self::Daemon => (Word::Daemon, Word::DaemonStarted),
            Self::Launcher => (Word::Launcher, Word::LauncherStarted),
        }
    }
}

/// The three pids, 0 where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pids {
    pub(crate) process: i32,
    pub(crate) pump: i32,
    pub(crate) daemon: i32,
}

/// How the process ended last, and when (wall clock, nanoseconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastExit {
    pub(crate) exit: Exit,
    pub(crate) at_ns: u64,
}

fn pid_number(pid: i32) -> u64 {
    u64::try_from(pid).unwrap_or(0)
}

fn number_pid(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(0)
}

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

    /// Which wish for a reload was the last one, and how far it is.
    pub(crate) fn reload(self) -> (u64, ReloadState) {
        (self.get(Word::ReloadId), ReloadState::from_number(self.get(Word::ReloadState)))
    }

    /// Notes that the start of the group has succeeded.
    pub(crate) fn set_there(self) {
        self.set(Word::Executed, 1);
    }

    /// How many times the process was respawned.
    pub(crate) fn restarts(self) -> u64 {
        self.get(Word::Restarts)
    }

    /// Whether the process was ever executed.
    pub(crate) fn executed(self) -> bool {
        self.get(Word::Executed) == 1
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

    /// What the monitors report of themselves, as JSON; left as it was if it does not fit.
    pub(crate) fn set_report(self, json: &str) {
        if json.len() <= REPORT.len() * 8 {
            self.set_text(REPORT, Word::ReportLength, json.as_bytes());
        }
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

/// A page as somebody else reads it: a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    words: Vec<u64>,
}

impl Snapshot {
    /// Reads the page at a path. `None`: it is no page, of another format, or of an earlier boot.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let mut latest = None;
        for _ in 0..100 {
            let snapshot = Self::read_once(path)?;
            let sequence = snapshot.get(Word::Sequence);
            let settled = sequence & 1 == 0 && latest == Some(sequence);
            if settled {
                return Some(snapshot);
            }
            latest = Some(sequence);
        }
        Self::read_once(path)
    }

    fn read_once(path: &Path) -> Option<Self> {
        Self::of_bytes(&std::fs::read(path).ok()?)
    }

    /// Reads the page of an open file, which the group may have removed meanwhile.
    pub(crate) fn of_file(file: &File) -> Option<Self> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; page::BYTES];
        file.read_exact_at(&mut bytes, 0).ok()?;
        Self::of_bytes(&bytes)
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < page::BYTES {
            return None;
        }
        let words = bytes
            .chunks_exact(8)
            .map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]));
        let snapshot = Self { words: words.take(WORDS).collect() };
        let known = snapshot.get(Word::Magic) == MAGIC && snapshot.get(Word::Format) == FORMAT;
        (known && snapshot.get(Word::Boot) == family::boot_id()).then_some(snapshot)
    }

    fn get(&self, word: Word) -> u64 {
        self.words[word as usize]
    }

    /// Pid of a member that runs at this moment, else 0.
    pub(crate) fn alive(&self, member: Member) -> i32 {
        let (pid, started) = member.words();
        let pid = number_pid(self.get(pid));
        if family::runs(pid, self.get(started)) { pid } else { 0 }
    }

    /// Whether a pump or daemon lives, or the parent that is about to start one.
    pub(crate) fn has_roles(&self) -> bool {
        [Member::Pump, Member::Daemon, Member::Launcher].iter().any(|member| self.alive(*member) != 0)
    }

    /// What is going on, as the roles wrote it and as far as it can still be true.
    pub(crate) fn state(&self) -> State {
        if self.has_roles() {
            let noted = State::from_number(self.get(Word::State));
            // Somebody has just died and it is not noted yet: a new one comes.
            let whole = self.alive(Member::Process) != 0 && self.alive(Member::Pump) != 0;
            if noted == State::Running && !whole { State::Starting } else { noted }
        } else if self.alive(Member::Process) != 0 {
            State::Orphaned
        } else {
            State::Failed
        }
    }

    /// Whether the process was ever executed.
    pub(crate) fn executed(&self) -> bool {
        self.get(Word::Executed) == 1
    }

    /// Whether SIGKILL was needed.
    pub(crate) fn killed(&self) -> bool {
        self.get(Word::Killed) == 1
    }

    /// Wall clock of the process's start, nanoseconds.
    pub(crate) fn since_ns(&self) -> u64 {
        self.get(Word::Since)
    }

    /// Respawns of process, pump and daemon.
    pub(crate) fn restarts(&self) -> (u64, u64, u64) {
        (self.get(Word::Restarts), self.get(Word::PumpRestarts), self.get(Word::DaemonRestarts))
    }

    /// Unstable deaths in a row.
    pub(crate) fn unstable(&self) -> u64 {
        self.get(Word::Unstable)
    }

    /// Wall clock of the next attempt, if this is a pause.
    pub(crate) fn next_attempt_ns(&self) -> Option<u64> {
        Some(self.get(Word::NextAttempt)).filter(|at| *at != 0)
    }

    /// How the process ended last.
    pub(crate) fn last_exit(&self) -> Option<LastExit> {
        let at_ns = self.get(Word::ExitAt);
        let code = self.get(Word::ExitCode).checked_sub(1).map(number_pid);
        let signal = Some(number_pid(self.get(Word::ExitSignal))).filter(|signal| *signal != 0);
        (at_ns != 0).then_some(LastExit { exit: Exit { code, signal, core: false }, at_ns })
    }

    /// Version of what the roles have in common.
    pub(crate) fn roles_format(&self) -> u64 {
        self.get(Word::RolesFormat)
    }

    /// Which wish for a reload was the last one, and how far it is.
    pub(crate) fn reload(&self) -> (u64, ReloadState) {
        (self.get(Word::ReloadId), ReloadState::from_number(self.get(Word::ReloadState)))
    }

    /// Which monitors are set aside, a bit for each.
    pub(crate) fn aside(&self) -> u64 {
        self.get(Word::Aside)
    }

    /// Pid of the pump as it was noted last, alive or not.
    pub(crate) fn noted_pump(&self) -> i32 {
        number_pid(self.get(Word::Pump))
    }

    /// Whether a role has noted that the group has failed, before it left.
    pub(crate) fn is_noted_as_failed(&self) -> bool {
        State::from_number(self.get(Word::State)) == State::Failed
    }

    /// What the delivery was about.
    pub(crate) fn moment(&self) -> Moment {
        delivery::moment(&self.words[DELIVERY])
    }

    /// How many bytes are taken from the streams and not delivered.
    pub(crate) fn spool_fill(&self) -> u64 {
        delivery::fill(&self.words[DELIVERY])
    }

    /// Why the group failed, as far as the roles could say.
    pub(crate) fn reason(&self) -> Option<String> {
        self.text(REASON, Word::ReasonLength)
    }

    /// What the monitors report of themselves, as JSON.
    pub(crate) fn report(&self) -> Option<String> {
        self.text(REPORT, Word::ReportLength)
    }

    fn text(&self, range: std::ops::Range<usize>, length: Word) -> Option<String> {
        let length = usize::try_from(self.get(length)).ok()?.min(range.len() * 8);
        let bytes: Vec<u8> =
            self.words[range].iter().flat_map(|word| word.to_le_bytes()).take(length).collect();
        (length > 0).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}
