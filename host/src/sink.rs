//! Development: where a stream is copied to for the parent, by the pump, and by the parent itself when that is gone. A
//! target that breaks ends the copying of its stream and nothing else.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};

/// A target, or none.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    target: Option<OwnedFd>,
}

impl Sink {
    /// Copies to this descriptor.
    pub(crate) fn new(target: Option<OwnedFd>) -> Self {
        Self { target }
    }

    /// Whether there is a target.
    pub(crate) fn is_open(&self) -> bool {
        self.target.is_some()
    }

    /// Writes all of it, waiting for a slow target as the program itself would.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let Some(target) = &self.target else { return };
        let mut left = bytes;
        while !left.is_empty() {
            match nix::unistd::write(target, left) {
                Ok(count) => left = &left[count..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let mut fds = [PollFd::new(target.as_fd(), PollFlags::POLLOUT)];
                    if let Err(error) = poll(&mut fds, PollTimeout::NONE) {
                        log::debug!("waiting for the parent's output: {error}");
                    }
                }
                Err(error) => {
                    log::warn!("the parent's output is broken, this stream is no longer relayed: {error}");
                    self.target = None;
                    return;
                }
            }
        }
    }
}
