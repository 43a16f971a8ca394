//! Signals as events: blocked first, then read from a descriptor. No handler runs any code of ours.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Blocks every signal in this thread, and in the threads and programs that come out of it, but those of a crash:
/// one of these that somebody sends would be waiting for ever.
pub(crate) fn block_all() -> io::Result<()> {
    use Signal::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
    let mut signals = SigSet::all();
    for signal in [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP] {
        signals.remove(signal);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None)?;
    Ok(())
}

/// Blocks these signals in this thread, besides those that are blocked.
pub(crate) fn block(signals: &[Signal]) -> io::Result<()> {
    let set: SigSet = signals.iter().copied().collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    Ok(())
}

/// Does something with all signals blocked in this thread: a thread that is started in it never gets one.
pub(crate) fn while_blocked<T>(f: impl FnOnce() -> T) -> io::Result<T> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    let result = f();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    Ok(result)
}

/// Gives signals back to the kernel that somebody else has dealt with. Rust's runtime catches SIGSEGV and SIGBUS
/// and survives the first one that somebody sends. And what the caller ignored is inherited as ignored: of SIGCHLD
/// that means that no death is ever told, and an ignored SIGTERM does not even get to a descriptor.
#[expect(unsafe_code, reason = "sigaction has no safe form")]
pub(crate) fn restore_defaults() -> io::Result<()> {
    use Signal::{SIGBUS, SIGCHLD, SIGHUP, SIGINT, SIGSEGV, SIGTERM};
    for signal in [SIGSEGV, SIGBUS, SIGCHLD, SIGTERM, SIGINT, SIGHUP] {
        // SAFETY: SIG_DFL installs no handler, so there is no code that would have to be async-signal-safe.
        unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl)? };
    }
    Ok(())
}

/// A descriptor that gets readable when one of a set of (blocked) signals has come.
pub(crate) struct Signals {
    #[cfg(linux_path)]
    source: nix::sys::signalfd::SignalFd,
    #[cfg(portable_path)]
    source: portable::Source,
}

impl Signals {
    /// Watches these signals, which must be blocked in all threads.
    pub(crate) fn watch(signals: &[Signal]) -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in signals {
            set.add(*signal);
        }
        #[cfg(linux_path)]
        {
            use nix::sys::signalfd::{SfdFlags, SignalFd};
            let source = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
            Ok(Self { source })
        }
        #[cfg(portable_path)]
        {
            Ok(Self { source: portable::Source::new(set)? })
        }
    }

    /// Takes the next signal that has come.
    pub(crate) fn next(&mut self) -> Option<Signal> {
        #[cfg(linux_path)]
        {
            let info = self.source.read_signal().ok().flatten()?;
            i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
        }
        #[cfg(portable_path)]
        {
            self.source.next()
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

#[cfg(portable_path)]
mod portable {
    //! A thread of its own waits for the signals and writes their numbers to a pipe.

    use nix::sys::signal::{SigSet, Signal};
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

    pub(super) struct Source {
        reader: OwnedFd,
    }

    impl Source {
        pub(super) fn new(set: SigSet) -> io::Result<Self> {
            let (reader, writer) = super::super::fd::pipe()?;
            super::super::fd::set_nonblocking(&reader)?;
            std::thread::Builder::new().name("signals".into()).stack_size(64 * 1024).spawn(move || {
                while let Ok(signal) = set.wait() {
                    let number = u8::try_from(signal as i32).unwrap_or(0);
                    if nix::unistd::write(&writer, &[number]).is_err() {
                        break;
                    }
                }
            })?;
            Ok(Self { reader })
        }

        pub(super) fn next(&mut self) -> Option<Signal> {
            let mut number = [0];
            match nix::unistd::read(&self.reader, &mut number) {
                Ok(1) => Signal::try_from(i32::from(number[0])).ok(),
                Ok(_) | Err(_) => None,
            }
        }
    }

    impl AsFd for Source {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.reader.as_fd()
        }
    }
}
