//! The recent output of a group, for `logs`: a ring that the relay reads the streams into.
//!
//! There is no copy: the buffer that a read fills, and that the monitors are given, is a part of the ring, and the
//! ring is a file in the group's directory. So it is there whatever the monitors do, and still when the pump has
//! died. Its pages exist once they are written: an idle group has none, and one that was busy little more than is
//! shown.

use crate::sys::fd;
use crate::sys::page::{self, SharedBytes};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The most that one read takes: what the pipe of a busy stream holds.
pub(crate) const CHUNK_BYTES: usize = if cfg!(linux_path) { 512 * 1024 } else { 64 * 1024 };
/// How much of the output is shown.
const SHOWN_BYTES: usize = 192 * 1024;
/// Size of the ring: beside what is shown, the relay may be overwriting a chunk of it. A multiple of a chunk, so that
/// one read after the other can be of a whole one.
const RING_BYTES: usize = SHOWN_BYTES.next_multiple_of(CHUNK_BYTES) + CHUNK_BYTES;
/// How much may be in memory of what is not shown any more, while there is nothing to read.
const SPARE_BYTES: u64 = 128 * 1024;
/// Before the ring stands how many bytes were ever written to it.
const HEAD_BYTES: usize = 4096;
/// A page of memory, or a part of one.
const PAGE_BYTES: u64 = 4096;

/// The relay's side: a place to read into.
#[derive(Debug)]
pub(crate) struct Ring {
    shared: SharedBytes,
    /// `None`: the memory is this process's own.
    file: Option<File>,
    length: usize,
    total: u64,
    /// Up to where it was given back.
    trimmed: u64,
    /// Whether the file is memory, and no disk that would have more to do.
    is_memory: bool,
}

impl Ring {
    /// Goes on in this file.
    ///
    /// # Errors
    /// If it cannot be mapped, or there is no room for its first page.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        // The head is touched by this process itself, the rest by the kernel in a read or a write, which tells when
        // there is no room.
        page::fill_up(&file, HEAD_BYTES)?;
        let mut length = ring_bytes(&file)?;
        // One that another version made stays as long as it is: what is where depends on it.
        if length <= SHOWN_BYTES {
            length = RING_BYTES;
            file.set_len((HEAD_BYTES + length) as u64)?;
        }
        let shared = SharedBytes::map(&file, HEAD_BYTES + length)?;
        let total = shared.counter();
        let trimmed = total.saturating_sub(length as u64);
        let is_memory = fd::is_memory(&file);
        Ok(Self { shared, file: Some(file), length, total, trimmed, is_memory })
    }

    /// Makes one that nobody else can read, and that begins at this position: a successor that compares it with what
    /// is in the file finds that it is not there.
    ///
    /// # Errors
    /// If there is no memory.
    pub(crate) fn private(total: u64) -> io::Result<Self> {
        let shared = SharedBytes::private(HEAD_BYTES + RING_BYTES)?;
        Ok(Self { shared, file: None, length: RING_BYTES, total, trimmed: total, is_memory: true })
    }

    pub(crate) fn is_private(&self) -> bool {
        self.file.is_none()
    }

    /// How many bytes were ever written to it.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Where a position is, and how much of the ring is behind it without a break.
    fn at(&self, position: u64) -> (usize, usize) {
        let at = usize::try_from(position % self.length as u64).expect("it is below the size of the ring");
        (HEAD_BYTES + at, self.length - at)
    }

    /// Where the next read goes: a part of the ring without a break, at most `most` bytes long.
    pub(crate) fn place(&mut self, most: usize) -> &mut [u8] {
        let (at, unbroken) = self.at(self.total);
        let length = most.min(CHUNK_BYTES).min(self.length - SHOWN_BYTES).min(unbroken);
        self.shared.part(at, length)
    }

    /// The first bytes of [`Ring::place`] are output now.
    pub(crate) fn took(&mut self, count: usize) {
        self.total += count as u64;
        self.shared.set_counter(self.total);
    }

    /// Takes a copy of output that is elsewhere, and leaves what is still to be copied.
    ///
    /// # Errors
    /// If there is no room for it. What was there stays.
    pub(crate) fn copy(&mut self, bytes: &mut &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (at, unbroken) = self.at(self.total);
            let (part, rest) = bytes.split_at(bytes.len().min(unbroken));
            match &self.file {
                // Not by way of the mapping: a page that cannot be had would kill.
                Some(file) => file.write_all_at(part, at as u64)?,
                None => self.shared.part(at, part.len()).copy_from_slice(part),
            }
            self.took(part.len());
            *bytes = rest;
        }
        Ok(())
    }

    /// Gives memory back that holds nothing that is shown, if it is much. Nothing of it may be needed any more.
    pub(crate) fn trim(&mut self) {
        if self.is_memory {
            self.give_back(SPARE_BYTES);
        }
    }

    /// Gives all of that memory back, and returns whether there was any.
    pub(crate) fn make_room(&mut self) -> bool {
        self.give_back(1)
    }

    fn give_back(&mut self, least: u64) -> bool {
        let unshown = self.total.saturating_sub(SHOWN_BYTES as u64) / PAGE_BYTES * PAGE_BYTES;
        let mut from = self.trimmed.max(self.total.saturating_sub(self.length as u64));
        let Some(file) = &self.file else { return false };
        if unshown.saturating_sub(from) < least {
            return false;
        }
        while from < unshown {
            let (at, unbroken) = self.at(from);
            let count = (unshown - from).min(unbroken as u64);
            if let Err(error) = fd::punch_hole(file, at as u64, count) {
                log::debug!("the memory of old output is kept: {error}");
            }
            from += count;
        }
        self.trimmed = unshown;
        true
    }

    /// The last bytes that were taken.
    pub(crate) fn last(&mut self, count: usize) -> &[u8] {
        let (at, _) = self.at(self.total - count as u64);
        self.shared.part(at, count)
    }
}

/// How long the ring in a file is; 0: there is none yet.
fn ring_bytes(file: &File) -> io::Result<usize> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    Ok(length.saturating_sub(HEAD_BYTES))
}

/// The reader's side.
#[derive(Debug)]
pub(crate) struct Recent {
    file: File,
}

impl Recent {
    pub(crate) fn new(file: File) -> Self {
        Self { file }
    }

    fn total(&self) -> io::Result<u64> {
        let mut head = [0; 8];
        // The file is empty until the relay has made the ring.
        self.file.read_at(&mut head, 0)?;
        Ok(u64::from_ne_bytes(head))
    }

    /// The output from this position on, as far as it is still there, and the position behind it. What the relay
    /// may be overwriting at this moment is left out.
    pub(crate) fn since(&self, position: u64) -> io::Result<(Vec<u8>, u64)> {
        let kept = SHOWN_BYTES as u64;
        loop {
            let total = self.total()?;
            let start = position.max(total.saturating_sub(kept)).min(total);
            let length = ring_bytes(&self.file)?.max(1) as u64;
            let mut bytes = Vec::new();
            let mut next = start;
            while next < total {
                let at = next % length;
                let count = (total - next).min(length - at);
                let mut part = vec![0; usize::try_from(count).unwrap_or(0)];
                self.file.read_exact_at(&mut part, HEAD_BYTES as u64 + at)?;
                bytes.extend_from_slice(&part);
                next += count;
            }
            // Written over while it was read: again, for what is newer.
            if self.total()?.saturating_sub(kept) <= start {
                return Ok((bytes, total));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{SysconfVar, sysconf};
    use std::os::unix::fs::MetadataExt;

    /// What is written to a ring, in lines.
    struct Writer {
        ring: Ring,
        written: Vec<u8>,
    }

    impl Writer {
        fn new(file: &File) -> Self {
            Self { ring: Ring::new(file.try_clone().unwrap()).unwrap(), written: Vec::new() }
        }

        /// Writes so many lines more, as a read does, or from elsewhere.
        fn write(&mut self, lines: u32, is_copied: bool) {
            for _ in 0..lines {
                let line = format!("at {}\n", self.written.len());
                let mut left = line.as_bytes();
                if is_copied {
                    self.ring.copy(&mut left).unwrap();
                }
                while !left.is_empty() {
                    let place = self.ring.place(left.len());
                    let count = place.len();
                    place.copy_from_slice(&left[..count]);
                    self.ring.took(count);
                    assert_eq!(self.ring.last(count), &left[..count]);
                    left = &left[count..];
                }
                self.written.extend_from_slice(line.as_bytes());
            }
        }
    }

    fn assert_shown(file: &File, written: &[u8]) {
        let (newest, position) = Recent::new(file.try_clone().unwrap()).since(0).unwrap();
        assert_eq!(position, written.len() as u64);
        assert_eq!(newest.len(), SHOWN_BYTES.min(written.len()));
        assert!(written.ends_with(&newest));
    }

    #[test]
    fn the_newest_output_is_there_in_order_and_goes_on_with_the_next_pump() {
        let file = tempfile::tempfile().unwrap();
        let mut written = Vec::new();
        for round in 0..6 {
            let mut writer = Writer::new(&file);
            writer.written = written;
            writer.write(40_000, round % 2 == 1);
            written = writer.written;
            assert_shown(&file, &written);
        }
    }

    #[test]
    fn a_ring_of_another_version_is_gone_on_with() {
        let file = tempfile::tempfile().unwrap();
        file.set_len((HEAD_BYTES + 2 * SHOWN_BYTES) as u64).unwrap();
        let mut writer = Writer::new(&file);
        for _ in 0..20 {
            writer.write(3_000, false);
            assert_shown(&file, &writer.written);
        }
        assert_eq!(file.metadata().unwrap().len(), (HEAD_BYTES + 2 * SHOWN_BYTES) as u64);
        assert!(writer.ring.place(usize::MAX).len() <= SHOWN_BYTES);
    }

    #[test]
    fn what_is_not_shown_is_given_back() {
        let memory = std::path::Path::new("/dev/shm");
        let file =
            if memory.is_dir() { tempfile::tempfile_in(memory) } else { tempfile::tempfile() }.unwrap();
        let is_trimmed = cfg!(linux_path) && fd::is_memory(&file);
        let mut writer = Writer::new(&file);
        for lines in [1, 20_000, 100, 10_000, 200_000, 1, 7_000, 70_000, 300, 300] {
            writer.write(lines, false);
            writer.ring.trim();
            assert_shown(&file, &writer.written);
            if is_trimmed {
                let blocks_bytes = file.metadata().unwrap().blocks() * 512;
                let page_bytes = sysconf(SysconfVar::PAGE_SIZE).unwrap().unwrap().unsigned_abs();
                let most = page_bytes + SHOWN_BYTES as u64 + SPARE_BYTES + 4 * page_bytes;
                assert!(blocks_bytes <= most, "{blocks_bytes} bytes are in use");
            }
        }
        writer = Writer { ring: Ring::new(file.try_clone().unwrap()).unwrap(), ..writer };
        assert!(writer.ring.make_room());
        assert!(!writer.ring.make_room());
        assert_shown(&file, &writer.written);
    }

    #[test]
    fn nothing_was_written_yet() {
        let file = tempfile::tempfile().unwrap();
        Ring::new(file.try_clone().unwrap()).unwrap();
        assert_eq!(Recent::new(file).since(0).unwrap(), (Vec::new(), 0));
    }

    #[test]
    fn a_file_that_takes_nothing_is_an_error_and_no_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let ring = Ring::new(file.reopen().unwrap()).unwrap();
        let mut ring = Ring { file: Some(File::open(file.path()).unwrap()), ..ring };
        let mut left = b"what cannot be kept\n".as_slice();
        ring.copy(&mut left).unwrap_err();
        assert_eq!(left, b"what cannot be kept\n");
        assert_eq!(ring.total(), 0);
        let mut ring = Ring::private(7).unwrap();
        ring.copy(&mut b"kept\n".as_slice()).unwrap();
        assert_eq!(ring.last(5), b"kept\n");
        assert_eq!(ring.total(), 12);
        assert!(!ring.make_room());
    }
}
