//! Waiting for bytes in two pipes; on Linux without polling them, as long as that pays.
//!
//! Once anybody has polled a pipe, Linux looks for somebody to wake at every write to it, for ever: that makes a
//! program that writes lines one by one a seventh slower. A signal (`O_ASYNC`) can be taken back while so much comes
//! that nobody sleeps. But it wakes whoever polls for signals in this process, too. So if there are many sleeps and
//! no burst between them, the pipes are polled after all.

use std::os::fd::BorrowedFd;

#[cfg(linux_path)]
use super::signals::Signals;

/// So many bytes at once are a burst.
#[cfg(linux_path)]
const BURST_BYTES: usize = 32 * 1024;
/// How many sleeps without a burst between them are ended by signals.
#[cfg(linux_path)]
const SLEEPS: u32 = 100;

/// One thread's wait for two pipes.
#[cfg(linux_path)]
pub(crate) struct Arrivals {
    /// `None`: the pipes are polled.
    signals: Option<Signals>,
    /// Whether a write to the pipe sends a signal.
    announced: [bool; 2],
    sleeps_left: u32,
}

#[cfg(linux_path)]
impl Arrivals {
    /// For the calling thread, in which all signals are blocked.
    pub(crate) fn new(pipes: [BorrowedFd<'_>; 2]) -> Self {
        let signals =
            linux::own(pipes).inspect_err(|error| log::debug!("output is polled for: {error}")).ok();
        Self { signals, announced: [false; 2], sleeps_left: SLEEPS }
    }

    /// Takes note of how much a pipe gave.
    pub(crate) fn came(&mut self, index: usize, pipe: BorrowedFd<'_>, count: usize) {
        if count > 0 {
            self.set(index, pipe, false);
        }
        if count > BURST_BYTES {
            self.sleeps_left = SLEEPS;
        }
    }

    /// To be called before a sleep. Returns `false` if there may be something in the pipes that would not end it: they
    /// are to be read once more.
    pub(crate) fn prepare(&mut self, pipes: [BorrowedFd<'_>; 2]) -> bool {
        let wanted = self.signals.is_some() && self.sleeps_left > 0;
        if wanted && self.announced == [true; 2] {
            self.sleeps_left -= 1;
            return true;
        }
        self.clear();
        for (index, pipe) in pipes.into_iter().enumerate() {
            self.set(index, pipe, wanted);
        }
        if !wanted {
            self.signals = None;
        }
        self.signals.is_none()
    }

    fn set(&mut self, index: usize, pipe: BorrowedFd<'_>, is_announced: bool) {
        if std::mem::replace(&mut self.announced[index], is_announced) != is_announced
            && let Err(error) = linux::announce(pipe, is_announced)
        {
            log::debug!("output is polled for from now on: {error}");
            self.signals = None;
        }
    }

    /// What to poll instead of the pipes, if anything.
    pub(crate) fn source(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        self.signals.as_ref().map(AsFd::as_fd)
    }

    /// Forgets the signals so far: the pipes are about to be read.
    pub(crate) fn clear(&mut self) {
        if let Some(signals) = &mut self.signals {
            signals.next();
        }
    }
}

#[cfg(linux_path)]
#[expect(unsafe_code, reason = "the owner of a descriptor's signals and FIOASYNC have no safe wrapper")]
mod linux {
    use super::Signals;
    use nix::errno::Errno;
    use nix::libc;
    use nix::sys::signal::Signal;
    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};

    const F_SETOWN_EX: libc::c_int = 15;
    const F_OWNER_TID: libc::c_int = 0;

    #[repr(C)]
    struct Owner {
        kind: libc::c_int,
        id: libc::pid_t,
    }

    /// Makes the calling thread the one that gets the signals of these pipes: so far it was one of the pump before.
    pub(super) fn own(pipes: [BorrowedFd<'_>; 2]) -> io::Result<Signals> {
        let owner = Owner { kind: F_OWNER_TID, id: nix::unistd::gettid().as_raw() };
        for pipe in pipes {
            // SAFETY: F_SETOWN_EX reads such a structure, and this one is alive.
            Errno::result(unsafe { libc::fcntl(pipe.as_raw_fd(), F_SETOWN_EX, &raw const owner) })?;
            announce(pipe, false)?;
        }
        Signals::watch(&[Signal::SIGIO])
    }

    pub(super) fn announce(pipe: BorrowedFd<'_>, on: bool) -> io::Result<()> {
        let on = libc::c_int::from(on);
        // SAFETY: FIOASYNC reads one `int`, and this one is alive.
        Errno::result(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIOASYNC, &raw const on) })?;
        Ok(())
    }
}

/// The pipes are polled.
#[cfg(portable_path)]
pub(crate) struct Arrivals;

#[cfg(portable_path)]
impl Arrivals {
    pub(crate) fn new(_pipes: [BorrowedFd<'_>; 2]) -> Self {
        Self
    }

    pub(crate) fn came(&mut self, _index: usize, _pipe: BorrowedFd<'_>, _count: usize) {}

    pub(crate) fn prepare(&mut self, _pipes: [BorrowedFd<'_>; 2]) -> bool {
        true
    }

    pub(crate) fn source(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    pub(crate) fn clear(&mut self) {}
}

#[cfg(all(test, linux_path))]
mod tests {
    use super::*;
    use crate::sys::{fd, poll, signals};
    use nix::poll::{PollFd, PollFlags, PollTimeout};
    use nix::sys::signal::Signal;
    use std::os::fd::AsFd;

    fn is_announced(arrivals: &Arrivals) -> bool {
        let mut fds = [PollFd::new(arrivals.source().expect("signals"), PollFlags::POLLIN)];
        poll::poll(&mut fds, PollTimeout::ZERO).expect("poll");
        fds[0].any() == Some(true)
    }

    #[test]
    fn what_comes_ends_a_sleep_until_there_were_many() {
        signals::block(&[Signal::SIGIO]).unwrap();
        let ((stdout, writer), (stderr, _other)) = (fd::pipe().unwrap(), fd::pipe().unwrap());
        let pipes = [stdout.as_fd(), stderr.as_fd()];
        let mut arrivals = Arrivals::new(pipes);
        let write = || nix::unistd::write(&writer, b"line\n").unwrap();
        write();
        assert!(!is_announced(&arrivals), "nobody sleeps");
        for sleep in 0..2 * SLEEPS {
            if sleep == SLEEPS {
                arrivals.came(0, pipes[0], BURST_BYTES + 1);
            }
            assert!(!arrivals.prepare(pipes), "something may have come: {sleep}");
            assert!(arrivals.prepare(pipes), "{sleep}");
            assert!(!is_announced(&arrivals), "{sleep}");
            write();
            assert!(is_announced(&arrivals), "{sleep}");
            arrivals.clear();
            arrivals.came(0, pipes[0], 5);
            write();
            assert!(!is_announced(&arrivals), "nobody sleeps: {sleep}");
        }
        assert!(arrivals.prepare(pipes));
        assert!(arrivals.source().is_none(), "the pipes are polled");
    }
}
