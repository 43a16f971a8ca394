//! Waiting for descriptors.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::io;

/// Waits until one of them is ready or the time is up. An interruption is a wake-up without a reason.
///
/// # Errors
/// A descriptor is not open any more: somebody else's code has closed a number that is not its own, and nothing
/// that this process believes of its descriptors holds.
pub(crate) fn poll(fds: &mut [PollFd<'_>], timeout: PollTimeout) -> io::Result<()> {
    match nix::poll::poll(fds, timeout) {
        Ok(_) => all_open(fds),
        Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// See [`poll`].
pub(crate) fn all_open(fds: &[PollFd<'_>]) -> io::Result<()> {
    let closed = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| events.contains(PollFlags::POLLNVAL));
    if fds.iter().any(closed) {
        return Err(io::Error::other("a descriptor of this process was closed by code that does not own it"));
    }
    Ok(())
}
