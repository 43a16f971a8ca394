//! What was taken from the streams and is not delivered yet, where a pump's death cannot reach it (`--on-crash
//! keep`).
//!
//! The spool is a memory file that daemon and pump share, and so is its file offset. `splice` moves bytes from a
//! stream's pipe into it and the offset behind them in one call, so that no kill falls between. The chunk is
//! delivered from there; only then the state page says that it is done. The kernel's offset and the page together
//! tell a successor what was taken and is still to be delivered.

use crate::delivery::{Delivery, Standing};
use crate::sys::page::SharedBytes;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The most that is taken at once, in bytes; as much is set aside of what a monitor dies of.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;
/// The most that it holds, in bytes.
pub(crate) const SPOOL_BYTES: usize = 4 * CHUNK_BYTES;

/// Makes the file of a new group's spool.
///
/// # Errors
/// This system has no memory files, does not splice into them, or has no `/proc` by which a pipe is opened anew.
pub(crate) fn create() -> io::Result<OwnedFd> {
    let file = File::from(crate::sys::fd::memory()?);
    file.set_len(SPOOL_BYTES as u64)?;
    let (reader, writer) = crate::sys::fd::pipe()?;
    nix::unistd::write(&writer, b"?")?;
    crate::sys::fd::splice(&reader, &file, 1)?;
    rewind(&file)?;
    crate::sys::fd::both_ways(&writer)?;
    Ok(file.into())
}

fn rewind(file: impl AsFd) -> io::Result<()> {
    lseek(file, 0, Whence::SeekSet)?;
    Ok(())
}

/// What is taken and not acknowledged, read without a mapping, while no pump lives.
pub(crate) fn pending_bytes(file: &OwnedFd, delivery: Delivery) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let position = u64::try_from(lseek(file, 0, Whence::SeekCur)?).unwrap_or(0);
    let standing = delivery.standing();
    let length = if standing.rewinding { 0 } else { position.saturating_sub(standing.from) };
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    File::from(file.try_clone()?).read_exact_at(&mut bytes, standing.from)?;
    Ok(bytes)
}

/// The pump's side.
#[derive(Debug)]
pub(crate) struct Spool {
    file: OwnedFd,
    memory: SharedBytes,
    delivery: Delivery,
    /// The file's offset.
    position: usize,
}

impl Spool {
    /// Goes on where the pump before stopped, which must have ended.
    pub(crate) fn open(file: OwnedFd, delivery: Delivery) -> io::Result<Self> {
        let memory = SharedBytes::map(&File::from(file.try_clone()?), SPOOL_BYTES)?;
        let position = usize::try_from(lseek(&file, 0, Whence::SeekCur)?).unwrap_or(0);
        let mut spool = Self { file, memory, delivery, position };
        let standing = delivery.standing();
        if standing.rewinding || usize::try_from(standing.from).map_or(true, |from| from > position) {
            spool.rewind(standing)?;
        }
        delivery.set_fill(spool.pending() as u64);
        Ok(spool)
    }

    /// How many bytes are taken and not acknowledged; their stream is that of the standing.
    pub(crate) fn pending(&self) -> usize {
        self.position.saturating_sub(usize::try_from(self.delivery.standing().from).unwrap_or(usize::MAX))
    }

    /// The bytes that are taken and not acknowledged.
    pub(crate) fn bytes(&mut self) -> &[u8] {
        let length = self.pending();
        self.memory.part(self.position - length, length)
    }

    /// Takes at most this much of a stream. There must be nothing pending. 0: there is nothing now.
    pub(crate) fn take(&mut self, pipe: impl AsFd, stream: usize, most: usize) -> io::Result<usize> {
        let standing = self.delivery.standing();
        if self.position + CHUNK_BYTES > SPOOL_BYTES {
            self.rewind(standing)?;
        }
        if standing.stream != stream {
            self.delivery.commit(Standing { from: self.position as u64, stream, ..standing });
        }
        let most = most.min(CHUNK_BYTES);
        let count = loop {
            match crate::sys::fd::splice(&pipe, &self.file, most) {
                Ok(count) => break count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break 0,
                Err(error) => return Err(error.into()),
            }
        };
        self.position += count;
        self.delivery.set_fill(count as u64);
        Ok(count)
    }

    /// Every monitor has got what is pending, or it was set aside.
    pub(crate) fn acknowledge(&mut self) {
        let mut standing = self.delivery.standing();
        standing.offsets[standing.stream] += self.pending() as u64;
        standing.from = self.position as u64;
        self.delivery.commit(standing);
        self.delivery.set_fill(0);
    }

    /// Begins again at the front of the file, which holds nothing that is still needed. A successor that finds the
    /// mark does it once more.
    fn rewind(&mut self, standing: Standing) -> io::Result<()> {
        self.delivery.commit(Standing { rewinding: true, ..standing });
        rewind(&self.file)?;
        self.position = 0;
        self.delivery.commit(Standing { from: 0, rewinding: false, ..standing });
        Ok(())
    }
}

#[cfg(linux_path)]
#[cfg(test)]
mod tests;
