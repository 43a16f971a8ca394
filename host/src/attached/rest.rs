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
    /// closed, so that whoever writes into it finds that out. Returns whether anything is left.
    pub(super) fn copy(&mut self) -> bool {
        self.0.iter_mut().for_each(|(stream, sink)| copy(stream, sink));
        self.0.retain(|(_, sink)| sink.is_open());
        self.waiting() > 0
    }

    /// Copies what is left when nobody writes any more.
    pub(super) fn finish(mut self) {
        let (mut left, mut since) = (self.waiting(), Instant::now());
        while self.copy() && since.elapsed() < PATIENCE {
            let now = self.waiting();
            if now != left {
                (left, since) = (now, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn waiting(&self) -> usize {
        self.0.iter().map(|(stream, _)| fd::waiting(stream).unwrap_or(0)).sum()
    }
}

fn copy(stream: &OwnedFd, sink: &mut Sink) {
    // What waits now: reading until it is empty need not end when somebody writes on.
    let mut left = fd::waiting(stream).unwrap_or(0);
    let mut chunk = [0; MOST_BYTES];
    while left > 0 && sink.is_ready() {
        let most = left.min(chunk.len());
        match nix::unistd::read(stream, &mut chunk[..most]) {
            Ok(count) if count > 0 => {
                sink.write(&chunk[..count]);
                left -= count;
            }
            Ok(_) | Err(_) => return,
        }
    }
}
