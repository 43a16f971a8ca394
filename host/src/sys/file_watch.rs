//! Tells of new files in directories (Linux).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Gets readable when a file in one of some directories was written to or took its place.
#[derive(Debug)]
pub(crate) struct FileWatch {
    fd: OwnedFd,
}

impl FileWatch {
    /// Watches directories. It is closed on exec and never blocks.
    #[cfg(linux_path)]
    pub(crate) fn of<'a>(directories: impl Iterator<Item = &'a Path>) -> io::Result<Self> {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        for directory in directories {
            inotify.add_watch(directory, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO)?;
        }
        Ok(Self { fd: inotify.as_fd().try_clone_to_owned()? })
    }

    /// There is no such thing that all systems have.
    #[cfg(portable_path)]
    pub(crate) fn of<'a>(_directories: impl Iterator<Item = &'a Path>) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes all that was told; whether there was anything.
    pub(crate) fn take(&self) -> bool {
        let mut told = false;
        let mut events = [0; 4096];
        while nix::unistd::read(&self.fd, &mut events).is_ok_and(|count| count > 0) {
            told = true;
        }
        told
    }
}

impl AsFd for FileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(all(test, linux_path))]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_and_one_that_takes_a_place_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let watch = FileWatch::of([directory.path()].into_iter()).unwrap();
        assert!(!watch.take());
        std::fs::write(directory.path().join("new"), "x").unwrap();
        assert!(watch.take());
        assert!(!watch.take());
        std::fs::rename(directory.path().join("new"), directory.path().join("other")).unwrap();
        assert!(watch.take());
    }
}
