//! What the process has written and the pump, which copies it to the parent's output, did not live to copy.

use crate::sink::Sink;
use crate::sys::fd;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// A target that takes something takes as much at once.
const MOST_BYTES: usize = 4096;
/// For so long it is waited for a target that takes nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// The streams of a group in development, by their reading ends, and where they are copied to.
#[derive(Debug)]
pub(crate) struct Rest(Vec<(OwnedFd, Sink)>);

impl Rest {
    /// Those of stdout and stderr.
    pub(super) fn new(streams: [OwnedFd; 2], targets: [OwnedFd; 2]) -> Self {
        Self(streams.into_iter().zip(targets.map(|target| Sink::new(Some(target)))).collect())
    }

    /// Copies what waits at this moment, as far as the targets take it without a wait. A stream whose target breaks is
    /// closed, so that whoever writes into it finds that out. Returns how many bytes are left of what waited.
    pub(super) fn copy(&mut self) -> usize {
        let left = self.0.iter_mut().map(|(stream, sink)| copy(stream, sink)).sum();
        self.0.retain(|(_, sink)| sink.is_open());
        left
    }

    /// Copies all that waits at this moment: the last that is copied.
    pub(super) fn finish(mut self) {
        let (mut left, mut since) = (self.copy(), Instant::now());
        while left > 0 && since.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
            let now = self.copy();
            if now < left {
                (left, since) = (now, Instant::now());
            }
        }
    }
}

/// Returns how many bytes are left of what waited.
fn copy(stream: &OwnedFd, sink: &mut Sink) -> usize {
    // Reading until it is empty need not end when somebody writes on.
    let mut left = fd::waiting(stream).unwrap_or(0);
    let mut chunk = [0; MOST_BYTES];
    while left > 0 && sink.is_ready() {
        let most = left.min(chunk.len());
        match nix::unistd::read(stream, &mut chunk[..most]) {
            Ok(count) if count > 0 => {
                sink.write(&chunk[..count]);
                left -= count;
            }
            Ok(_) | Err(_) => return 0,
        }
    }
    if sink.is_open() { left } else { 0 }
}
