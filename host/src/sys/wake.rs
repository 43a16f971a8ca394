//! Wakes one thread's `poll` from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One thread polls it, any thread may wake it. Wakes that come before it is polled are kept, as one.
#[derive(Debug)]
pub(crate) struct Waker {
    reader: OwnedFd,
    #[cfg(portable_path)]
    writer: OwnedFd,
}

impl Waker {
    /// Makes one that is not woken.
    pub(crate) fn new() -> io::Result<Self> {
        #[cfg(linux_path)]
        {
            use nix::sys::eventfd::{EfdFlags, EventFd};
            let eventfd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
            Ok(Self { reader: eventfd.into() })
        }
        #[cfg(portable_path)]
        {
            let (reader, writer) = super::fd::pipe()?;
            super::fd::set_nonblocking(&reader)?;
            super::fd::set_nonblocking(&writer)?;
            Ok(Self { reader, writer })
        }
    }

    /// Wakes the poller. A full counter or pipe means that it is woken already.
    pub(crate) fn wake(&self) {
        #[cfg(linux_path)]
        let written = nix::unistd::write(&self.reader, &1_u64.to_ne_bytes());
        #[cfg(portable_path)]
        let written = nix::unistd::write(&self.writer, &[1]);
        if let Err(error) = written
            && error != nix::errno::Errno::EAGAIN
        {
            // The other thread would wait for ever. Somebody's code has closed what is not its own.
            log::error!("a thread cannot be woken any more, this process cannot go on: {error}");
            super::family::leave(super::exit_status::FAILED);
        }
    }

    /// Forgets the wakes so far.
    pub(crate) fn clear(&self) {
        let mut bytes = [0; 64];
        while let Ok(count) = nix::unistd::read(&self.reader, &mut bytes) {
            if count < bytes.len() {
                break;
            }
        }
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
