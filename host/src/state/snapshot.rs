//! The page as anybody else reads it, who asks no role.

use super::{
    DELIVERY, FORMAT, LastExit, MAGIC, Marks, Member, REASON, REPORT, ReloadState, State, Word, number_pid,
};
use crate::delivery::{self, Moment};
use crate::sys::family::{self, Exit};
use crate::sys::page::{BYTES, WORDS};
use std::fs::File;
use std::path::Path;

/// A copy of a page, consistent as far as the roles let it be.
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
        let mut bytes = vec![0; BYTES];
        file.read_exact_at(&mut bytes, 0).ok()?;
        Self::of_bytes(&bytes)
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < BYTES {
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

    /// Pid of a member as it was noted last, alive or not.
    pub(crate) fn noted(&self, member: Member) -> i32 {
        number_pid(self.get(member.words().0))
    }

    /// By what it is known who belongs to the group.
    pub(crate) fn marks(&self) -> Marks {
        Marks {
            pipes: [self.get(Word::StdoutPipe), self.get(Word::StderrPipe)],
            since: self.get(Word::StreamsSince),
            uid: u32::try_from(self.get(Word::ProcessUser)).unwrap_or(u32::MAX),
        }
    }

    /// When a member has started, as the roles noted it; 0: nobody did.
    pub(crate) fn started(&self, member: Member) -> u64 {
        self.get(member.words().1)
    }

    /// Whether a pump or daemon lives, or the parent that is about to start one.
    pub(crate) fn has_roles(&self) -> bool {
        self.has_roles_besides_launcher() || self.alive(Member::Launcher) != 0
    }

    /// Whether a pump or daemon lives.
    pub(crate) fn has_roles_besides_launcher(&self) -> bool {
        [Member::Pump, Member::Daemon].iter().any(|member| self.alive(*member) != 0)
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

    /// Whether the start of the group has succeeded.
    pub(crate) fn group_started(&self) -> bool {
        self.get(Word::GroupStarted) == 1
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

    /// Whether the group has had more than one pump or daemon.
    pub(crate) fn has_lost_roles(&self) -> bool {
        let (_, pump, daemon) = self.restarts();
        pump + daemon > 0
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

    /// Which request for a reload was the last one, and how far it is.
    pub(crate) fn reload(&self) -> (u64, ReloadState) {
        (self.get(Word::ReloadId), ReloadState::from_number(self.get(Word::ReloadState)))
    }

    /// Which monitors are set aside, a bit for each.
    pub(crate) fn aside(&self) -> u64 {
        self.get(Word::Aside)
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
