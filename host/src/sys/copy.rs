//! Copies of this process: a fork that no exec follows.
//!
//! A copy has the forking thread alone. Whatever lock another thread held at that moment stays locked in it for
//! ever, so only a process of one thread can be copied.

#![expect(unsafe_code, reason = "fork and unshare have no safe form")]

use super::exit_status::PANICKED;
#[cfg(linux_path)]
use nix::errno::Errno;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// What this process runs, whatever its path holds now (Linux).
pub(crate) const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// Tells whether this process runs that file: whether a copy of it is what executing the file would give.
pub(crate) fn is_of(executable: &Path) -> bool {
    let own = Path::new(OWN_EXECUTABLE);
    let file = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    executable == own || file(executable).is_some_and(|file_of| file(own) == Some(file_of))
}

/// Tells whether this process can be copied: the system says that it has one thread.
#[cfg(linux_path)]
pub(crate) fn is_possible() -> bool {
    // With this flag the call does nothing; and it fails where there are more threads.
    // SAFETY: unshare takes a number.
    match Errno::result(unsafe { libc::unshare(libc::CLONE_THREAD) }) {
        Ok(_) => true,
        Err(Errno::EINVAL) => false,
        // Containers may forbid the call. A directory has one link for its name, one for itself, and one for each
        // directory in it.
        Err(_) => std::fs::metadata("/proc/self/task").is_ok_and(|threads| threads.nlink() == 3),
    }
}

/// Nobody tells how many threads there are.
#[cfg(portable_path)]
pub(crate) fn is_possible() -> bool {
    false
}

/// Has a copy of this process do this work and end with its result; returns the pid of the copy. Exit handlers
/// are not run in it. A process of more threads is not copied ([`io::ErrorKind::Unsupported`]).
pub(crate) fn start(work: impl FnOnce() -> u8) -> io::Result<i32> {
    if !is_possible() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: this is the only thread: the copy is as whole as the original, and may do everything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let status = catch_unwind(AssertUnwindSafe(work)).unwrap_or(PANICKED);
            // SAFETY: `_exit` takes a number; what is left on the stack belongs to the original.
            unsafe { libc::_exit(i32::from(status)) }
        }
        pid => Ok(pid),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_with_more_threads_cannot_be_copied() {
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        assert_eq!(super::start(|| 0).unwrap_err().kind(), std::io::ErrorKind::Unsupported);
        drop(end);
        assert!(other.join().unwrap().is_err());
    }
}
