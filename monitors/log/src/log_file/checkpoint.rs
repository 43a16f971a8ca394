//! What a killed pump leaves to the next one: up to where each stream is in the log, and what the log was then.
//!
//! A file of its own, in the group's directory, with two slots of one record each. A record is written to the slot
//! that does not count. It counts as soon as it is whole, which its checksum says, and then it is the newest, which its
//! number says; besides, the kernel copies so few bytes within a page at once, so that a kill does not leave half of
//! them. What is held back of a line is behind the slots, in one of two places for each stream; the record says in
//! which, and how much of what is there counts.
//!
//! Written with `pwrite`: that costs half a microsecond for a read of up to 64 KiB. Mapped memory would cost less, but
//! it needs `unsafe`, and a full disk would be a SIGBUS.

use super::open_file::Identity;
use super::stamped::HELD_BYTES;
use super::{Line, Source, to_u64};
use crate::kill;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// First word of a record; its last byte is the version of what follows.
const MAGIC: u64 = u64::from_be_bytes(*b"imm-log\x01");
const WORDS: usize = 24;
const RECORD_BYTES: usize = WORDS * size_of::<u64>();
/// Where the slots are, and where what is held back begins.
const SLOTS: [usize; 2] = [0, 256];
const SLOTS_END: usize = 4096;
/// With what is held back: two places for each of two streams.
const FULL_BYTES: usize = SLOTS_END + 4 * HELD_BYTES;

/// What is in the log, to the byte, and how it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Up to where each stream is in the log, held back, or counted as dropped.
    pub(super) positions: [u64; 2],
    pub(super) mark: Mark,
    /// These are the members of [`super::LogFile`].
    pub(super) line: Line,
    pub(super) begun_bytes: u64,
    pub(super) begun_stamp_bytes: u64,
    pub(super) unsaid_bytes: u64,
    pub(super) dropped_bytes: u64,
    pub(super) skip_bytes: [usize; 2],
    pub(super) has_talked: [bool; 2],
    pub(super) written_at: SystemTime,
    pub(super) told: Told,
}

/// A file up to some length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    pub(super) identity: Identity,
    pub(super) length: u64,
    /// Whether somebody else writes to it as well.
    pub(super) is_shared: bool,
    /// Whether it is complete, and about to be renamed.
    pub(super) is_set_aside: bool,
    /// Whether its pump has ended in order: what is behind this length is not its own.
    pub(super) is_finished: bool,
}

/// Which event was noted last: its kind, the process it was about, and how many respawns there had been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Told {
    pub(crate) kind: u32,
    pub(crate) pid: i32,
    pub(crate) count: u32,
}

/// The beginning of a line that is held back.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldLine<'a> {
    /// Stays as long as nothing happens to it but that bytes are added at its end. Not zero.
    pub(super) id: u64,
    pub(super) since: SystemTime,
    pub(super) bytes: &'a [u8],
}

/// What a dead pump has left.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) checkpoint: Checkpoint,
    /// Since when something is held back of each stream, and what.
    pub(super) held: [Option<(SystemTime, Vec<u8>)>; 2],
}

/// The file.
pub(super) struct CheckpointFile {
    file: File,
    path: PathBuf,
    /// The record that counts, and its number.
    newest: Option<Record>,
    number: u64,
    stored: [Stored; 2],
}

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    checkpoint: Checkpoint,
    held: [HeldAt; 2],
}

/// What counts of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HeldAt {
    place: usize,
    /// 0: nothing is held back.
    length: usize,
    since: SystemTime,
}

/// What was last written of a stream that was held back.
#[derive(Debug, Clone, Copy, Default)]
struct Stored {
    id: u64,
    length: usize,
    place: usize,
}

impl Mark {
    /// Whether what a file has beyond this length was written by the pump that died.
    pub(super) fn owns_the_rest(&self) -> bool {
        !self.is_shared && !self.is_finished
    }
}

impl CheckpointFile {
    /// Opens the file, with room for what is held back if need be, and reads what a dead pump has left in it.
    /// `is_anew`: whatever that is does not count.
    ///
    /// # Errors
    /// If it cannot be made at its full size, or not be read.
    pub(super) fn open(path: PathBuf, with_held: bool, is_anew: bool) -> io::Result<(Self, Option<Left>)> {
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(is_anew).mode(0o600).open(&path)?;
        kill::point();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let size = if with_held { FULL_BYTES } else { SLOTS_END };
        if bytes.len() < size {
            // From now on everything is written over something, which takes no room on the disk.
            file.write_all_at(&vec![0; size - bytes.len()], to_u64(bytes.len()))?;
            kill::point();
        }
        let records = SLOTS.into_iter().filter_map(|at| parse(bytes.get(at..at + RECORD_BYTES)?));
        let Some((number, record)) = records.max_by_key(|(number, _)| *number) else {
            let stored = [Stored::default(); 2];
            return Ok((Self { file, path, newest: None, number: 0, stored }, None));
        };
        let stored = record.held.map(|held| Stored { place: held.place, ..Stored::default() });
        let held = [0, 1].map(|stream| {
            let HeldAt { place, length, since } = record.held[stream];
            let at = place_at(stream, place);
            let held = bytes.get(at..at + length).filter(|held| !held.is_empty())?;
            Some((since, held.to_vec()))
        });
        let left = Left { checkpoint: record.checkpoint, held };
        Ok((Self { file, path, newest: Some(record), number, stored }, Some(left)))
    }

    /// Writes what counts from now on, if it is not what counts already.
    ///
    /// # Errors
    /// If it cannot be written. Then what counted before still does.
    pub(super) fn write(
        &mut self,
        checkpoint: &Checkpoint,
        held: [Option<HeldLine<'_>>; 2],
    ) -> io::Result<()> {
        for (stream, held) in held.iter().enumerate() {
            if let Some(held) = held {
                self.store(stream, held)?;
            }
        }
        let held = [0, 1].map(|stream| HeldAt {
            place: self.stored[stream].place,
            length: held[stream].map_or(0, |held| held.bytes.len()),
            since: held[stream].map_or(UNIX_EPOCH, |held| held.since),
        });
        let record = Record { checkpoint: *checkpoint, held };
        if self.newest == Some(record) {
            return Ok(());
        }
        let number = self.number + 1;
        let slot = SLOTS[usize::from(number.is_multiple_of(2))];
        self.file.write_all_at(kill::part(&record.to_bytes(number)), to_u64(slot))?;
        kill::point();
        (self.newest, self.number) = (Some(record), number);
        Ok(())
    }

    /// Writes what is new of a line that is held back to where it does not count yet: behind what is there of it, or
    /// to the place that does not count.
    fn store(&mut self, stream: usize, held: &HeldLine<'_>) -> io::Result<()> {
        let Stored { id, length, place } = self.stored[stream];
        let (length, place) = if id == held.id { (length, place) } else { (0, 1 - place) };
        let new = &held.bytes[length..];
        if !new.is_empty() {
            let at = place_at(stream, place) + length;
            self.file.write_all_at(kill::part(new), to_u64(at))?;
            kill::point();
        }
        self.stored[stream] = Stored { id: held.id, length: held.bytes.len(), place };
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

const TALKED: [u64; 2] = [1 << 2, 1 << 3];
const SHARED: u64 = 1 << 4;
const SET_ASIDE: u64 = 1 << 5;
const PLACES: [u64; 2] = [1 << 6, 1 << 7];
const FINISHED: u64 = 1 << 8;

impl Record {
    fn to_bytes(self, number: u64) -> [u8; RECORD_BYTES] {
        let Self { checkpoint, held } = self;
        let Mark { identity, length, .. } = checkpoint.mark;
        let Told { kind, pid, count } = checkpoint.told;
        let mut words = [
            MAGIC,
            number,
            self.flags(),
            checkpoint.positions[0],
            checkpoint.positions[1],
            identity.device,
            identity.inode,
            identity.born_ns,
            length,
            checkpoint.begun_bytes,
            checkpoint.begun_stamp_bytes,
            checkpoint.unsaid_bytes,
            checkpoint.dropped_bytes,
            to_u64(checkpoint.skip_bytes[0]),
            to_u64(checkpoint.skip_bytes[1]),
            to_ns(checkpoint.written_at),
            u64::from(kind),
            u64::from(pid.cast_unsigned()),
            u64::from(count),
            to_u64(held[0].length),
            to_ns(held[0].since),
            to_u64(held[1].length),
            to_ns(held[1].since),
            0,
        ];
        words[WORDS - 1] = checksum(&words[..WORDS - 1]);
        let mut bytes = [0; RECORD_BYTES];
        for (place, word) in bytes.chunks_exact_mut(size_of::<u64>()).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn flags(&self) -> u64 {
        let flag = |is_set: bool, bit: u64| if is_set { bit } else { 0 };
        let line = match self.checkpoint.line {
            Line::Ended => 0,
            Line::Open(None) => 1,
            Line::Open(Some(Source::Stdout)) => 2,
            Line::Open(Some(Source::Stderr)) => 3,
        };
        let both = |stream: usize| {
            flag(self.checkpoint.has_talked[stream], TALKED[stream])
                | flag(self.held[stream].place == 1, PLACES[stream])
        };
        let mark = &self.checkpoint.mark;
        let marked = flag(mark.is_shared, SHARED)
            | flag(mark.is_set_aside, SET_ASIDE)
            | flag(mark.is_finished, FINISHED);
        line | both(0) | both(1) | marked
    }
}

/// The number of a record, and what it says; `None` if it is not whole, or of another version.
fn parse(bytes: &[u8]) -> Option<(u64, Record)> {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(size_of::<u64>())) {
        *word = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    if words[0] != MAGIC || words[WORDS - 1] != checksum(&words[..WORDS - 1]) {
        return None;
    }
    let [
        _,
        number,
        flags,
        stdout,
        stderr,
        device,
        inode,
        born_ns,
        length,
        begun_bytes,
        begun_stamp_bytes,
        unsaid_bytes,
        dropped_bytes,
        skip_stdout,
        skip_stderr,
        written_ns,
        kind,
        pid,
        count,
        held_stdout,
        since_stdout,
        held_stderr,
        since_stderr,
        _,
    ] = words;
    let is_set = |bit: u64| flags & bit != 0;
    let small = |word: u64| u32::try_from(word).ok();
    let held = |stream: usize, length: u64, since_ns: u64| {
        Some(HeldAt {
            place: usize::from(is_set(PLACES[stream])),
            length: usize::try_from(length).ok().filter(|length| *length <= HELD_BYTES)?,
            since: from_ns(since_ns),
        })
    };
    let checkpoint = Checkpoint {
        positions: [stdout, stderr],
        mark: Mark {
            identity: Identity { device, inode, born_ns },
            length,
            is_shared: is_set(SHARED),
            is_set_aside: is_set(SET_ASIDE),
            is_finished: is_set(FINISHED),
        },
        line: match flags & 3 {
            0 => Line::Ended,
            2 => Line::Open(Some(Source::Stdout)),
            3 => Line::Open(Some(Source::Stderr)),
            _ => Line::Open(None),
        },
        begun_bytes,
        begun_stamp_bytes,
        unsaid_bytes,
        dropped_bytes,
        skip_bytes: [usize::try_from(skip_stdout).ok()?, usize::try_from(skip_stderr).ok()?],
        has_talked: TALKED.map(is_set),
        written_at: from_ns(written_ns),
        told: Told { kind: small(kind)?, pid: small(pid)?.cast_signed(), count: small(count)? },
    };
    let held = [held(0, held_stdout, since_stdout)?, held(1, held_stderr, since_stderr)?];
    Some((number, Record { checkpoint, held }))
}

/// Tells a whole record from half of one; nobody has to be kept from forging it.
fn checksum(words: &[u64]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    words.iter().fold(FACTOR, |sum, word| (sum ^ word).wrapping_mul(FACTOR).rotate_left(29))
}

/// Where a place begins.
fn place_at(stream: usize, place: usize) -> usize {
    SLOTS_END + (2 * stream + place) * HELD_BYTES
}

fn to_ns(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn from_ns(ns: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn checkpoint(number: u64) -> Checkpoint {
        Checkpoint {
            positions: [number, number + 1],
            mark: Mark {
                identity: Identity { device: 1, inode: number, born_ns: 3 },
                length: number * 3,
                is_shared: number.is_multiple_of(2),
                is_set_aside: number.is_multiple_of(3),
                is_finished: number.is_multiple_of(4),
            },
            line: match number % 4 {
                0 => Line::Ended,
                1 => Line::Open(None),
                2 => Line::Open(Some(Source::Stdout)),
                _ => Line::Open(Some(Source::Stderr)),
            },
            begun_bytes: number + 4,
            begun_stamp_bytes: 30,
            unsaid_bytes: number + 5,
            dropped_bytes: number + 6,
            skip_bytes: [64 * 1024, 7],
            has_talked: [number.is_multiple_of(5), number.is_multiple_of(7)],
            written_at: from_ns(number + 8),
            told: Told { kind: 3, pid: -1, count: u32::MAX },
        }
    }

    #[test]
    fn what_was_written_last_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint");
        let open = |is_anew| CheckpointFile::open(path.clone(), true, is_anew).unwrap();
        let (mut file, left) = open(false);
        assert!(left.is_none());
        for number in 0..9 {
            file.write(&checkpoint(number), [None; 2]).unwrap();
            let (reopened, left) = open(false);
            let left = left.unwrap();
            assert_eq!(left.checkpoint, checkpoint(number));
            assert_eq!(left.held, [None, None]);
            file = reopened;
        }
        assert!(open(true).1.is_none(), "a new group has no past");
    }

    #[test]
    fn half_a_record_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint");
        let open = || CheckpointFile::open(path.clone(), false, false).unwrap();
        let mut file = open().0;
        file.write(&checkpoint(1), [None; 2]).unwrap();
        file.write(&checkpoint(2), [None; 2]).unwrap();
        let before = fs::read(&path).unwrap();
        file.write(&checkpoint(3), [None; 2]).unwrap();
        let after = fs::read(&path).unwrap();
        for cut in 0..SLOTS_END {
            let torn = [&after[..cut], &before[cut..]].concat();
            fs::write(&path, &torn).unwrap();
            let expected = if torn == after { 3 } else { 2 };
            assert_eq!(open().1.unwrap().checkpoint, checkpoint(expected), "cut at {cut}");
        }
    }

    #[test]
    fn a_file_of_another_version_or_of_garbage_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoint");
        for garbage in [vec![], vec![0xff; 100], vec![0; SLOTS_END], vec![1; FULL_BYTES * 2]] {
            fs::write(&path, garbage).unwrap();
            let (mut file, left) = CheckpointFile::open(path.clone(), true, false).unwrap();
            assert!(left.is_none());
            file.write(&checkpoint(1), [None; 2]).unwrap();
            assert!(CheckpointFile::open(path.clone(), true, false).unwrap().1.is_some());
        }
    }

    proptest! {
        /// Lines that are held back and grow, as the log holds them: killed anywhere, those of the last record that
        /// was written are there.
        #[test]
        fn what_is_held_back_belongs_to_its_record(
            steps in prop::collection::vec((0_usize..2, any::<bool>(), 0_usize..200), 1..40),
            killed_after in 0_i64..100,
            tears in any::<bool>(),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("checkpoint");
            let mut file = CheckpointFile::open(path.clone(), true, false).unwrap().0;
            let (mut lines, mut ids) = ([Vec::new(), Vec::new()], [1, 2]);
            let mut expected = Vec::new();
            let plan = kill::Plan::begin(killed_after, tears);
            let since = from_ns(7);
            let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for (number, (stream, is_new, bytes)) in (1..).zip(&steps) {
                    if *is_new {
                        lines[*stream].clear();
                        ids[*stream] += 2;
                    }
                    lines[*stream].extend(vec![u8::try_from(number % 251).unwrap(); *bytes]);
                    let held = [0, 1].map(|stream: usize| {
                        let held = HeldLine { id: ids[stream], since, bytes: &lines[stream] };
                        (!held.bytes.is_empty()).then_some(held)
                    });
                    expected.push(lines.clone());
                    file.write(&checkpoint(number), held).unwrap();
                }
            }));
            plan.end();
            let left = CheckpointFile::open(path, true, false).unwrap().1;
            let Some(left) = left else {
                prop_assert!(expected.len() < 2, "the first one at most was not written");
                return Ok(());
            };
            let number = usize::try_from(left.checkpoint.positions[0]).unwrap();
            prop_assert!(number + 1 >= expected.len());
            prop_assert!(killed.is_err() || number == steps.len());
            let held = left.held.map(|held| held.map_or(Vec::new(), |(_, bytes)| bytes));
            prop_assert_eq!(&held, &expected[number - 1]);
        }
    }
}
