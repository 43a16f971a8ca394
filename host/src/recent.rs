//! The recent output of a group, for `logs`: a ring that the relay reads the streams into.
//!
//! There is no copy: the buffer that a read fills, and that the monitors are given, is a part of the ring, and the
//! ring is a file in the group's directory. So it is there whatever the monitors do, and still when the pump has
//! died. Its pages exist once they are written: an idle group has none.

use crate::sys::page::{self, SharedBytes};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The most that one read takes.
pub(crate) const CHUNK_BYTES: usize = 192 * 1024;
/// How much of the output is shown.
const SHOWN_BYTES: usize = 192 * 1024;
/// Size of the ring: the relay may be overwriting a chunk of it.
const RING_BYTES: usize = SHOWN_BYTES + CHUNK_BYTES;
/// Before the ring stands how many bytes were ever written to it.
const HEAD_BYTES: usize = 4096;

/// The relay's side: a place to read into.
#[derive(Debug)]
pub(crate) struct Ring {
    shared: SharedBytes,
    total: u64,
}

impl Ring {
    /// Goes on in this file; without one, or where it has no room, the memory is this process's own.
    pub(crate) fn new(file: Option<&File>) -> io::Result<Self> {
        let length = HEAD_BYTES + RING_BYTES;
        let shared = match file {
            Some(file) => {
                // The head is touched by this process itself, the rest by the kernel in a read, which tells when
                // there is no room.
                page::fill_up(file, HEAD_BYTES)?;
                file.set_len(length as u64)?;
                SharedBytes::map(file, length)?
            }
            None => SharedBytes::private(length)?,
        };
        let total = shared.counter();
        Ok(Self { shared, total })
    }

    /// How many bytes were ever written to it.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Where the next read goes: a part of the ring without a break, at most `most` bytes long.
    pub(crate) fn place(&mut self, most: usize) -> &mut [u8] {
        let at = usize::try_from(self.total % RING_BYTES as u64).expect("it is below the size of the ring");
        let length = most.min(CHUNK_BYTES).min(RING_BYTES - at);
        self.shared.part(HEAD_BYTES + at, length)
    }

    /// The first bytes of [`Ring::place`] are output now.
    pub(crate) fn took(&mut self, count: usize) {
        self.total += count as u64;
        self.shared.set_counter(self.total);
    }

    /// The last bytes that were taken.
    pub(crate) fn last(&mut self, count: usize) -> &[u8] {
        let start = (self.total - count as u64) % RING_BYTES as u64;
        let at = usize::try_from(start).expect("it is below the size of the ring");
        self.shared.part(HEAD_BYTES + at, count)
    }
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
            let mut bytes = Vec::new();
            let mut next = start;
            while next < total {
                let at = next % RING_BYTES as u64;
                let length = (total - next).min(RING_BYTES as u64 - at);
                let mut part = vec![0; usize::try_from(length).unwrap_or(0)];
                self.file.read_exact_at(&mut part, HEAD_BYTES as u64 + at)?;
                bytes.extend_from_slice(&part);
                next += length;
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

    #[test]
    fn the_newest_output_is_there_in_order_and_goes_on_with_the_next_pump() {
        let file = tempfile::tempfile().unwrap();
        let mut written = Vec::new();
        for round in 0..3 {
            let mut ring = Ring::new(Some(&file)).unwrap();
            for number in 0..40_000_u32 {
                let line = format!("round {round} line {number}\n");
                let mut left = line.as_bytes();
                while !left.is_empty() {
                    let place = ring.place(left.len());
                    let count = place.len();
                    place.copy_from_slice(&left[..count]);
                    ring.took(count);
                    assert_eq!(ring.last(count), &left[..count]);
                    left = &left[count..];
                }
                written.extend_from_slice(line.as_bytes());
            }
        }
        let (newest, position) = Recent::new(file).since(0).unwrap();
        assert_eq!(position, written.len() as u64);
        assert_eq!(newest.len(), SHOWN_BYTES);
        assert!(written.ends_with(&newest));
    }

    #[test]
    fn nothing_was_written_yet() {
        let file = tempfile::tempfile().unwrap();
        Ring::new(Some(&file)).unwrap();
        assert_eq!(Recent::new(file).since(0).unwrap(), (Vec::new(), 0));
    }
}
